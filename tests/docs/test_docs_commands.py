"""What the pages tell a reader to type exists: commands, options, targets, links, reference."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from other_programs import fault, targets

from safehold.cli import safehold as top

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
_STOP = {"|", "||", ">", ">>", "<", "&&", ";", "&", "2>"}


def names(path: Path) -> str:
    """A page's name in a test's id."""
    return str(path.relative_to(ROOT))


def commands(text: str) -> list[list[str]]:
    """Return the `safehold` command lines of a page's fenced blocks, as words."""
    found = []
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in re.sub(r" *\\\n\s*", " ", block).splitlines():
            said = line.strip().removeprefix("$ ").removeprefix("sudo ")
            # After two spaces a help page says what the command does.
            said = re.split(r"\s#|\s{2,}", said)[0].strip()
            said = re.sub(r"^[A-Z]+=\$\((.*)\)$", r"\1", said)
            said = re.sub(r"\$\((?:[^()]|\([^()]*\))*\)", "VALUE", said)
            if not re.match(r"safehold [a-z]", said) or said.endswith(("…", "...")):
                continue
            # Where a page leaves words out, what must stand there is not asked.
            said = re.sub(r"( --[\w-]+) (\.\.\.|…)(?= )", r"\1 VALUE", said)
            said = re.sub(r" (\.\.\.|…)(?= )", "", said)
            try:
                words = shlex.split(said)
            except ValueError:
                continue
            end = next((i for i, word in enumerate(words) if word in _STOP), len(words))
            found.append(words[1:end])
    return found


def inline(text: str) -> list[list[str]]:
    """Return the commands in backticks within a page's sentences, as words.

    A sentence may name a part of a line alone, and may leave words out (`…`).
    """
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    said = re.findall(r"`(?:sudo )?((?:safehold |make |python -m bench)[^`\n]*)`", prose)
    found = [shlex.split(re.sub(r" (\.\.\.|…)", "", one)) for one in said if "->" not in one]
    return [words for words in found if words[1:]]


def partly(words: list[str]) -> str | None:
    """Return what is wrong with a command in a sentence: a name that is not there, or nothing."""
    if words[0] != "safehold":
        return fault(shlex.join(words))
    end = next((i for i, word in enumerate(words) if word in _STOP), len(words))
    return named(words[1:end])


def flags(command: click.Command) -> dict[str, bool]:
    """Return every option of a command, and whether it stands without a value."""
    known = {"--help": True, "-h": True}
    for one in command.params:
        if isinstance(one, click.Option):
            known |= dict.fromkeys((*one.opts, *one.secondary_opts), one.is_flag)
    return known


def words_of(value: object) -> tuple[str, ...]:
    """Return what was typed for an option; the parser has a mark of its own for nothing."""
    several = value if isinstance(value, list | tuple) else (value,)
    return tuple(one for one in several if isinstance(one, str) and one)


def lacking(words: list[str]) -> str | None:
    """Return what the command itself says of a line that it can't take: a value that is required.

    Whether a file is there is not asked: it is the reader's.
    """
    command: click.Command = top
    context = click.Context(top)
    left = list(words)
    while isinstance(command, click.Group) and left and not left[0].startswith("-"):
        name = left.pop(0)
        inner = command.get_command(context, name)
        if inner is None:
            return None
        command, context = inner, click.Context(inner, info_name=name, parent=context)
    if isinstance(command, click.Group) or "--help" in left:
        return None
    try:
        given, extra, _ = command.make_parser(context).parse_args(left)
    except click.UsageError as error:
        return error.format_message()
    missing = [
        one.make_metavar(context) if isinstance(one, click.Argument) else one.opts[-1]
        for one in command.params
        if one.required and not words_of(given.get(one.name or ""))
    ]
    unknown = [] if command.ignore_unknown_options or command.allow_extra_args else extra
    return (
        f"lacks {', '.join(missing)}" if missing else f"can't take {unknown}" if unknown else None
    )


def typed(words: list[str]) -> str | None:
    """Return what is wrong with a command line, or nothing."""
    return named(words) or lacking(words)


def named(words: list[str]) -> str | None:
    """Return which command or option of a line is not there, or nothing."""
    command: click.Command = top
    known = flags(command)
    value = False
    for word in words:
        if word == "--":
            break
        if value:
            value = False
            continue
        name, equals, _ = word.partition("=")
        if word.startswith("-"):
            if name.startswith("--") and name not in known:
                return f"no option {name}"
            value = not (known.get(name, True) or equals)
        elif isinstance(command, click.Group):
            inner = command.get_command(click.Context(command), word)
            if inner is None:
                return f"no command {word!r}"
            command, known = inner, flags(inner)
    return None


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_command_on_the_page_exists(page: Path) -> None:
    """No page tells of a command or an option that is not there."""
    text = page.read_text()
    wrong = [(" ".join(words), fault) for words in commands(text) if (fault := typed(words))]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_command_in_a_sentence_exists(page: Path) -> None:
    """Commands, options, targets and benches that a sentence names are there."""
    said = inline(page.read_text())
    assert [(" ".join(words), fault) for words in said if (fault := partly(words))] == []


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_target_and_bench_on_the_page_exists(page: Path) -> None:
    """`make X` and `scripts/X` name what is there."""
    text = page.read_text()
    said = set(re.findall(r"`make ([a-z-]+)", text))
    assert said - targets() == set()
    scripts = set(re.findall(r"`scripts/([\w.-]+)", text))
    assert {one for one in scripts if not (ROOT / "scripts" / one).exists()} == set()


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_link_on_the_page_leads_somewhere(page: Path) -> None:
    """A relative link names a file that is there, and a heading that is in it."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]*`", "", text)
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists():
            wrong.append(link)
        elif anchor and target.suffix == ".md":
            heads = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            if anchor not in {slug(head) for head in heads}:
                wrong.append(link)
    assert wrong == []


def test_the_reference_is_what_the_code_says() -> None:
    """The pages under docs/reference are made anew and compared."""
    check = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "reference"), "--check"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_a_wrong_command_is_found() -> None:
    """The reader of commands is no test that can't fail."""
    page = (
        "```\nsafehold log verify COPY --kys x | less\nsafehold lgo init\nsafehold log init L\n"
        "safehold log init L --origin example.org M\nsafehold log init L --origin example.org\n```"
    )
    assert [typed(words) is None for words in commands(page)] == [False] * 4 + [True]


@pytest.mark.parametrize(
    "said",
    [
        "safehold lgo init",
        "safehold log inti L",
        "safehold log init L --orign x",
        "make tset",
        "python -m bench.gatewya",
        "python -m bench --only nothing",
        "python -m bench --olny gateway",
        "python -m bench.response --recrod F",
    ],
)
def test_a_wrong_command_in_a_sentence_is_found(said: str) -> None:
    """The same for sentences; a part of a line is no fault."""
    found = [partly(words) is None for words in inline(f"See `{said}`, `safehold log …`.")]
    assert found == [False, True]
