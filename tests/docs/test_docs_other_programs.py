"""Lines of programs that are not ours: what they name is there, on every page and in every unit."""

import re
import subprocess
from pathlib import Path

import pytest
from other_programs import CHECKS, ROOT, UNITS, fault
from test_docs_commands import PAGES, commands, names, typed

_HAND = [page for page in PAGES if "reference" not in page.parts]
_OURS = re.compile(r"(?:\w+=\$\()?(?:sudo )?safehold ")


def blocks(text: str) -> list[str]:
    """Return the blocks of commands, continued lines joined: those with no language, and shells."""
    found = re.findall(r"^```([a-z]*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(r" *\\\n\s*", " ", block) for kind, block in found if kind in {"", "sh", "bash"}]


def others(text: str) -> list[str]:
    """Return a page's lines of other programs, in blocks and in sentences."""
    lines = [line.strip() for block in blocks(text) for line in block.splitlines()]
    found = [line for line in lines if line and line[0] != "#" and not _OURS.match(line)]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for said in re.findall(r"`(?:sudo )?([^`\n]+)`", prose):
        program, _, rest = said.partition(" ")
        if (program in CHECKS and rest) or re.match(r"(\./)?scripts/[a-z]", program):
            found.append(said)
    return found


@pytest.mark.parametrize("page", _HAND, ids=names)
def test_every_line_of_another_program_names_what_is_there(page: Path) -> None:
    """Targets, modules, options, scripts, extras, units and files that a page types exist.

    A block without a language holds commands only: a program without a check is a fault, and so is
    a line that is no command.
    """
    found = [(line, wrong) for line in others(page.read_text()) if (wrong := fault(line))]
    assert found == []


@pytest.mark.parametrize("page", _HAND, ids=names)
def test_every_block_is_what_a_shell_takes(page: Path) -> None:
    """No quote is left open, no bracket unclosed."""
    whole = "\n".join(re.sub(r" <\w+>", " WORD", block) for block in blocks(page.read_text()))
    done = subprocess.run(
        ["bash", "-n"], input=whole, text=True, capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def _units() -> list[Path]:
    return sorted(one for folder in UNITS for one in folder.iterdir())


@pytest.mark.parametrize("unit", _units(), ids=names)
def test_every_unit_starts_what_exists(unit: Path) -> None:
    """Commands, options and the units that a unit waits for are there."""
    text = unit.read_text()
    said = re.findall(r"^Exec\w+=[+!-]*\S+/(safehold .*)$", text, re.MULTILINE)
    block = "```\n" + "\n".join(said) + "\n```"
    assert len(commands(block)) == len(said)
    assert [(words, wrong) for words in commands(block) if (wrong := typed(words))] == []
    waits = set(re.findall(r"\bsafehold-[\w-]+\.(?:service|socket|timer)", text))
    assert waits - {one.name for one in _units()} == set()


def test_the_container_file_names_what_is_there() -> None:
    """The line at its top that builds it."""
    text = (ROOT / "deploy/container/Containerfile").read_text()
    said = re.findall(r"(?:podman|docker) build [^\n]*", text)
    assert len(said) == 1
    assert fault(said[0]) is None


@pytest.mark.parametrize(
    "line",
    [
        "make tset",
        "python -m bench.gatewya",
        "python -m bench.response --recrod F",
        "python -m bench --only nothing",
        "python bench/weights.py --mibs 128",
        "pip install 'safehold[stage3]'",
        "scripts/outsid deploy",
        "scripts/outside depoly",
        "./scripts/vm colums:none",
        "systemctl reload safehold-gatewya",
        "systemctl relaod safehold-gateway",
        "cp deploy/systemd/safehold-gate.* /etc/systemd/system/",
        "pytest tests/secure/egress/test_egress_way.py",
        "pytest tests/soak/test_soak_egress.py -m saok",
        "podman build -f deploy/Containerfile .",
        "model_signing verify kee sealed/ --signature s",
        "model_signing verify key sealed/ --signatur s",
        "curl -s localhost:8400/readyy",
        "a line of output",
    ],
)
def test_a_wrong_line_is_found(line: str) -> None:
    """The checks are no tests that can't fail."""
    assert fault(line) is not None
