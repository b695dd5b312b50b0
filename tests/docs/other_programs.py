"""What is wrong with a page's line of a program that is not ours: the name that is not there.

Nothing is run. A program that no checker knows is a fault: the table below grows with
the pages.
"""

import ast
import contextlib
import functools
import re
import shlex
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
UNITS = (ROOT / "deploy" / "systemd", ROOT / "examples" / "systemd")
_VERBS = {"enable", "disable", "start", "stop", "restart", "reload", "status", "daemon-reload"}


@functools.cache
def targets() -> frozenset[str]:
    """Return the targets of the Makefile."""
    return frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@functools.cache
def options(file: Path) -> dict[str, list[str]]:
    """Return the options that a program's parser has, each with its choices where it lists them."""
    found: dict[str, list[str]] = {"--help": []}
    for node in ast.walk(ast.parse(file.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        names = [one.value for one in node.args if isinstance(one, ast.Constant)]
        if node.func.attr == "add_argument" and names and str(names[0]).startswith("--"):
            said = [one.value for one in node.keywords if one.arg == "choices"]
            found |= {str(name): _choices(said) for name in names}
    return found


def _choices(said: list[ast.expr]) -> list[str]:
    with contextlib.suppress(ValueError):
        return [str(one) for value in said for one in ast.literal_eval(value)]
    return []


def make(words: list[str]) -> str | None:
    """`make TARGET... NAME=VALUE...`: the targets are there."""
    lost = [one for one in words if "=" not in one and one not in targets()]
    return f"no target {lost}" if lost else None


def python(words: list[str]) -> str | None:
    """`python -m MODULE OPTIONS` or `python FILE OPTIONS`: both are there, its parser has each."""
    name = words[1] if words[0] == "-m" else words[0]
    if words[0] == "-c":
        return None
    file = ROOT / name if words[0] != "-m" else _module(name)
    if not file.is_file():
        return f"no module {name}"
    known = options(file)
    given = words[2:] if words[0] == "-m" else words[1:]
    flags = [one.partition("=")[0] for one in given if one.startswith("--")]
    lost = [one for one in flags if one not in known]
    for flag, value in pairwise(given):
        if name == "bench" and flag == "--only" and not (ROOT / "bench" / f"{value}.py").is_file():
            lost.append(f"{flag} {value}")
        if known.get(flag) and value not in known[flag]:
            lost.append(f"{flag} {value}")
    return f"{name} has no {lost}" if lost else None


def _module(name: str) -> Path:
    roots = [ROOT / "src", ROOT] if name.startswith("safehold") else [ROOT]
    found = [root.joinpath(*name.split(".")) for root in roots]
    ways = [one / "__main__.py" if one.is_dir() else one.with_suffix(".py") for one in found]
    return next((one for one in ways if one.is_file()), ways[-1])


def pip(words: list[str]) -> str | None:
    """`pip install 'safehold[EXTRA,...]'`: the extras are there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = [re.fullmatch(r"safehold(?:\[([\w,]+)\])?(?:==.*)?", one) for one in words]
    asked = {name for one in said if one and one[1] for name in one[1].split(",")}
    lost = asked - set(extras["optional-dependencies"])
    return f"no extra {sorted(lost)}" if lost else None


def script(words: list[str]) -> str | None:
    """`scripts/NAME WORDS`: it is there, can be run (one in `.py` by python), knows each word."""
    file = ROOT / words[0]
    if not (file.is_file() and (file.suffix == ".py" or file.stat().st_mode & 0o111)):
        return f"no script {words[0]}"
    near = [file, *sorted((ROOT / "bench" / file.name).rglob("*"))]
    text = " ".join(one.read_text("utf-8", "replace") for one in near if one.is_file())
    parts = [part for one in words[1:] for part in re.split(r"[:,=]", one) if part]
    lost = [one for one in parts if not re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", text)]
    return f"{words[0]} knows no {lost}" if lost else None


def systemctl(words: list[str]) -> str | None:
    """`systemctl VERB UNIT...`: a verb of systemd's, and units that we ship."""
    given = [one for one in words if not one.startswith("-")]
    if given[0] not in _VERBS:
        return f"no verb {given[0]}"
    there = {one.name for folder in UNITS for one in folder.iterdir()}
    lost = [one for one in given[1:] if not {one, f"{one}.service"} & there]
    return f"no unit {lost}" if lost else None


def files(words: list[str]) -> str | None:
    """`cp`, `pytest`, `podman build -f`: what is named below our folders is there."""
    ours = [one for one in words if re.match(r"(deploy|examples|tests|scripts|bench|src)/", one)]
    lost = [one for one in ours if not list(ROOT.glob(one.partition("::")[0]))]
    marks = [mark for flag, mark in pairwise(words) if flag == "-m"]
    known = (ROOT / "pyproject.toml").read_text()
    lost += [mark for mark in marks if f'"{mark}:' not in known]
    return f"not there: {lost}" if lost else None


def model_signing(words: list[str]) -> str | None:
    """The reference tool's own parser takes the line."""
    from model_signing._cli import main  # noqa: PLC0415 - half a second, for one page

    command: click.Command = main
    left = list(words)
    while isinstance(command, click.Group):
        inner = command.commands.get(left[0])
        if inner is None:
            return f"no command {left[0]!r}"
        command, left = inner, left[1:]
    try:
        command.make_parser(click.Context(command)).parse_args(left)
    except click.UsageError as error:
        return error.format_message()
    return None


def curl(words: list[str]) -> str | None:
    """`curl localhost:8400/PATH`: the gateway answers there."""
    paths = [found[1] for one in words if (found := re.search(r"localhost:8400(/\S*)", one))]
    app = (ROOT / "src/safehold/guard/gateway/app.py").read_text()
    lost = [one for one in paths if f'"{one}"' not in app]
    return f"no route {lost}" if lost else None


def anything(words: list[str]) -> str | None:
    """A line of the shell or of somebody's tool that names nothing of ours."""
    del words
    return None


CHECKS: dict[str, Callable[[list[str]], str | None]] = {
    "make": make,
    "python": python,
    "pip": pip,
    "systemctl": systemctl,
    "cp": files,
    "pytest": files,
    "podman": files,
    "model_signing": model_signing,
    "curl": curl,
    **dict.fromkeys(("export", "eval", "echo", "nginx", "promtool", "scout"), anything),
    **dict.fromkeys(("systemd-analyze", "ssh-keygen", "sshd", "kill", "nft", "git"), anything),
}
"""Program -> what is wrong with a line of it, or nothing."""


def fault(line: str) -> str | None:
    """Return what is wrong with a line, or nothing."""
    said = re.sub(r"\s#.*$", "", line).removeprefix("sudo ").strip()
    words = shlex.split(re.sub(r" (\.\.\.|…)", "", said))
    if re.match(r"(\./)?scripts/", words[0]):
        return script([words[0].removeprefix("./"), *words[1:]])
    check = CHECKS.get(words[0])
    return (
        f"no check of {words[0]!r} in tests/docs/other_programs.py"
        if not check
        else check(words[1:])
    )
