"""`safehold completion`: commands, options and open requests at the press of a key."""

import click
from click.shell_completion import get_completion_class

from safehold.errors import UsageError

_VARIABLE = "_SAFEHOLD_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete `safehold`; ids of open requests are completed too.

    \b
    Examples:
      eval "$(safehold completion bash)"
      safehold completion zsh > ~/.zfunc/_safehold
      safehold completion fish > ~/.config/fish/completions/safehold.fish
    """
    made = get_completion_class(shell)
    if made is None:
        raise UsageError(f"expected bash, zsh or fish, got {shell}")
    root = click.get_current_context().find_root().command
    click.echo(made(root, {}, "safehold", _VARIABLE).source())
