"""Every command explains itself: what it does, each of its options, and a call of itself."""

import re
from collections.abc import Iterator

import click
import pytest

from safehold.cli import safehold


def tree(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all below it, with what is typed to reach it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from tree(below, f"{path} {name}")


def unexplained(path: str, command: click.Command) -> list[str]:
    """Return what a command leaves its reader to guess."""
    said = command.help or ""
    wrong = []
    if not re.match(r"\s*[A-Z]\S* ", said):
        wrong.append(f"{path}: no sentence says what it does")
    words = r"(?: --[\w-]+ \S+)* ".join(map(re.escape, path.split()))  # a group's options
    example = rf"^ +(?:sudo |\w+=\S+ )*{words}(?:\s|$)"
    if not isinstance(command, click.Group) and not re.search(example, said, re.MULTILINE):
        wrong.append(f"{path}: no example of a call")
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        # Words that the reader has not read yet in the option's own name.
        names = " ".join(option.opts).replace("-", " ").lower().split()
        told = re.findall(r"\w+", (option.help or "").lower())
        if not set(told) - set(names):
            wrong.append(f"{path} {'/'.join(option.opts)}: no help")
    return wrong


def test_every_command_and_option_is_explained() -> None:
    """Each has a help text that says more than its name, and each command an example of itself."""
    commands = list(tree(safehold, "safehold"))
    assert len(commands) > 300
    assert [line for path, one in commands for line in unexplained(path, one)] == []


@pytest.mark.parametrize(
    ("said", "options", "wrong"),
    [
        ("Do it.\n\n\b\nExample:\n  safehold do it\n", [click.Option(["--out"], help="To.")], 0),
        ("Do it.\n\n\b\nExample:\n  sudo safehold --log x do\n", [], 0),
        ("Do it.\n\n\b\nExample:\n  safehold done\n", [], 1),
        ("Do it.", [], 1),
        ("", [], 2),
        ("Do it.\n  safehold do\n", [click.Option(["--out"])], 1),
        ("Do it.\n  safehold do\n", [click.Option(["--out-file"], help="Out file.")], 1),
        ("Do it.\n  safehold do\n", [click.Option(["--out"], help="Out.", hidden=True)], 1),
    ],
)
def test_what_is_not_explained_is_found(
    said: str, options: list[click.Parameter], wrong: int
) -> None:
    """A missing sentence, example or help text, and one that repeats the option's name."""
    command = click.Command("do", help=said, params=options)
    assert len(unexplained("safehold do", command)) == wrong
