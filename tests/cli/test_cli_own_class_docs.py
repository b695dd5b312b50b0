"""The tutorial of a class of one's own: what is printed there is what the commands understand."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from safehold.cli import safehold
from safehold.constitution import load_document
from safehold.constitution.lint import lint

_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "docs" / "your-own-class.md"
_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def _commands() -> list[str]:
    lines = [
        line for block in _BLOCK.findall(_PAGE.read_text("utf-8")) for line in block.split("\n")
    ]
    return [line for line in lines if line.startswith("safehold ")]


@pytest.mark.parametrize("line", _commands())
def test_every_printed_command_is_understood(line: str) -> None:
    """Each command and option of the page exists and takes the value that is printed."""
    words = shlex.split(line)[1:]
    command: click.Command | None = safehold
    context = click.Context(safehold)
    while isinstance(command, click.Group):
        command = command.get_command(context, words.pop(0))
    assert command is not None
    known = {name: option for option in command.params for name in option.opts}
    for at, word in enumerate(words):
        if word.startswith("--"):
            assert word in known, f"{word} is no option of {command.name}"
            option = known[word]
            if isinstance(option, click.Option) and not option.is_flag and option.nargs == 1:
                follows = words[at + 1] if at + 1 < len(words) else "--"
                if not option._flag_needs_value:
                    assert not follows.startswith("--")


_SAID = re.compile(r"`([^`]+)`")
_VARYING = re.compile(
    r"\d+(?:\.\w+)?|\.\.\.|\bX\b|seeds/\w+|\b(?:test|restricted|refused)\b"
    r"|\bdata$|\b(?=by another)"
)
"""What a message has from the run: numbers, files, clauses, splits, sides, reasons."""


def _troubles() -> list[str]:
    """Return the messages that the page's table of troubles quotes, in parts that never vary."""
    _, _, table = _PAGE.read_text("utf-8").partition("| You see | What it means |")
    rows = [line.split("|")[1] for line in table.partition("\n\n")[0].split("\n")[2:]]
    said = [part for row in rows for part in _SAID.findall(row)]
    parts = [part.strip(" :,") for one in said for part in _VARYING.split(one)]
    return [part for part in parts if len(part) >= len("clause")]


def test_every_message_that_the_page_quotes_is_one_of_ours() -> None:
    """What the page says one will see stands in the package, word for word."""
    folder = _ROOT / "src" / "safehold"
    files = [folder / "record_file.py"]
    files += [
        file
        for part in ("cli", "improve", "constitution")
        for file in (folder / part).rglob("*.py")
    ]
    source = "".join(re.sub(r'"\s*\n\s*f?"', "", file.read_text("utf-8")) for file in files)
    assert len(_troubles()) > 10
    assert [part for part in _troubles() if part not in source] == []


def test_the_page_names_every_step() -> None:
    """From new to serve, and up, nothing of the path is missing on the page."""
    said = " ".join(_commands())
    for step in ("constitution new", "constitution lint", "constitution neighbours", "synth",
                 "train", "eval", "calibrate", "serve", "up"):  # fmt: skip
        assert f"safehold {step}" in said


@pytest.mark.parametrize("name", ["bread", "bicycle-repair", "soap"])
def test_the_examples_lack_nothing(name: str) -> None:
    """The constitutions that the tutorial shows are ready for training."""
    assert lint(load_document(_ROOT / "examples" / "classes" / f"{name}.yaml"), seeds=()) == ()


_WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from safehold.cli import COMMANDS, main
for words in (["synth"], ["train"], ["up"], ["calibrate"], ["constitution", "neighbours"]):
    try:
        main([*words, "--help"])
    except SystemExit as end:
        assert end.code == 0, (words, end.code)
"""
_EXTRAS = {"torch", "datasketch", "sklearn", "scipy", "transformers", "onnx", "onnxruntime",
           "sentencepiece", "xllamacpp", "matplotlib"}  # fmt: skip


def test_help_needs_no_extra() -> None:
    """Where none of the extras is installed, every step of the path still explains itself."""
    code = _WITHOUT.replace("{EXTRAS!r}", repr(_EXTRAS))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("Usage:") == 5


def test_bundle_options_have_one_name_everywhere() -> None:
    """Trust in a bundle is given by the same options in every command that reads one."""
    context = click.Context(safehold)
    for words in (["serve"], ["eval"], ["demo"], ["calibrate"], ["redteam", "run"]):
        command: click.Command | None = safehold
        for word in words:
            assert isinstance(command, click.Group)
            command = command.get_command(context, word)
        assert command is not None
        names = {name for option in command.params for name in option.opts}
        assert {"--bundle-key", "--unsafe-unsigned-bundle"} <= names, words
        assert not names & {"--key", "--sha256", "--unsafe-unsigned"}
