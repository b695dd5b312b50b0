"""`safehold drill`: attacks on a miniature enclave that the drill makes and removes."""

from pathlib import Path

import click

from safehold.cli._trust import json_option
from safehold.errors import UsageError


@click.group()
def drill() -> None:
    """Try the controls against a thief.

    \b
    Examples:
      sudo safehold drill heist
      sudo safehold drill heist --out heist.md
    """


@drill.command("heist")
@click.option("--out", type=click.Path(path_type=Path), help="Write the table as Markdown.")
@json_option
@click.pass_context
def heist_command(context: click.Context, out: Path | None, as_json: bool) -> None:
    """Play a heist in network namespaces; exit 1 unless every step is real and held."""
    from safehold.demo.heist.steps import as_json as in_json
    from safehold.demo.heist.steps import heist
    from safehold.demo.heist.table import markdown, rows

    tries = heist(lambda line: click.echo(line, err=True))
    table = rows(tries)
    if as_json:
        click.echo(in_json(tries).decode())
    else:
        click.echo(markdown(table))
    if out is not None:
        try:
            out.write_text(markdown(table))
        except OSError as error:
            raise UsageError(f"can't write {out}: {error.strerror}") from error
    if not all(one.held and not one.not_counted for one in table):
        context.exit(1)
