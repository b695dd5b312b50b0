"""`--help` is quick: a command loads what it needs when it runs, and says what is missing."""

import subprocess
import sys

import pytest

from safehold.cli import COMMANDS, _monitor_ladder, capability, monitor
from safehold.detect.monitoring.campaign_book import CampaignSettings
from safehold.detect.monitoring.ladder import Climb
from safehold.detect.monitoring.scan.scanners import SCANNERS
from safehold.detect.monitoring.simulate import TAILS
from safehold.govern.capability.run import ELICITATIONS

# cryptography alone is quick to load: six groups may bring it with the types of their options.
HEAVY = (
    "aiohttp",
    "matplotlib",
    "numpy",
    "onnxruntime",
    "pyarrow",
    "rich",
    "scipy",
    "sqlalchemy",
    "starlette",
    "torch",
    "transformers",
    "uvicorn",
)


def test_no_command_loads_a_library_before_it_runs() -> None:
    """Every module of the command line is imported, one after the other; none brings any."""
    modules = sorted(module for module, _, _ in COMMANDS.values())
    program = (
        "import importlib, sys\n"
        f"for module in {modules!r}:\n"
        "    importlib.import_module(module)\n"
        f"    found = sorted({set(HEAVY)!r} & sys.modules.keys())\n"
        "    assert not found, (module, found)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert run.returncode == 0, run.stderr.decode()[-400:]


def test_help_costs_about_what_its_own_libraries_cost() -> None:
    """Every command's help, in CPU time, against the import of what no command can do without."""
    names = sorted(COMMANDS)
    program = (
        "import time\n"
        "import click, msgspec, cryptography, typing, pathlib, asyncio, ssl, json\n"
        "from click.testing import CliRunner\n"
        "base = time.process_time()\n"
        "from safehold.cli import safehold\n"
        f"for name in {names!r}:\n"
        "    began = time.process_time()\n"
        "    said = CliRunner().invoke(safehold, [name, '--help'])\n"
        "    assert said.exit_code == 0, (name, said.output)\n"
        "    spent = time.process_time() - began\n"
        "    assert spent < 2 * base, (name, spent, base)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert run.returncode == 0, run.stderr.decode()[-400:]


def test_words_told_early_are_those_of_the_parts() -> None:
    """What `--help` offers without loading its parts is what there is."""
    assert sorted(SCANNERS) == list(monitor.SCANNERS)
    assert tuple(TAILS) == monitor.TAILS
    assert CampaignSettings().begin_with == monitor.BACKGROUND
    assert tuple(ELICITATIONS) == capability.ELICITATIONS
    assert Climb().limit_after == _monitor_ladder.LIMIT_AFTER
    assert Climb().requests_per_hour == _monitor_ladder.REQUESTS_PER_HOUR


@pytest.mark.parametrize(
    ("module", "said"),
    [("onnxruntime", "safehold[stage2]"), ("starlette", "safehold[console]"), ("nobody", "nobody")],
)
def test_missing_extra_is_one_line_with_what_to_install(module: str, said: str) -> None:
    """A package that is not there is exit status 7 and one line; never a traceback."""
    program = (
        "import sys\n"
        "import safehold.cli as cli\n"
        "def broken(*_, **__):\n"
        f"    raise ModuleNotFoundError('x', name={module!r})\n"
        "cli.safehold.main = broken\n"
        "cli.main([])\n"
    )
    run = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert run.returncode == 7
    assert said in run.stderr.decode()
    assert run.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("OSError(28, 'No space left on device', 'data/x.jsonl')", "data/x.jsonl: No space left"),
        ("PermissionError(13, 'Permission denied', b'a\\xff\\nb')", r"a\xff\nb: Permission denied"),
        ("OSError(18, 'Invalid link', 'a', None, 'b')", "a to b: Invalid link"),
        ("OSError(5, 'Input/output error')", "error: Input/output error"),
        ("TimeoutError()", "error: the system refused it"),
        ("urllib.error.URLError(ConnectionRefusedError(111, 'refused'))", "error: refused"),
    ],
)
def test_what_the_system_refuses_is_one_line(raised: str, said: str) -> None:
    """An error of the system that no command foresaw is exit status 9, its place and its reason."""
    program = (
        "import urllib.error\n"
        "import safehold.cli as cli\n"
        "def broken(*_, **__):\n"
        f"    raise {raised}\n"
        "cli.safehold.main = broken\n"
        "cli.main([])\n"
    )
    run = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert run.returncode == 9
    assert said in run.stderr.decode()
    assert run.stderr.count(b"\n") == 1


def test_a_defect_of_ours_keeps_its_traceback() -> None:
    """What is no error of the system or of the user is not hidden in a line."""
    program = (
        "import safehold.cli as cli\n"
        "def broken(*_, **__):\n"
        "    raise KeyError('x')\n"
        "cli.safehold.main = broken\n"
        "cli.main([])\n"
    )
    run = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert run.returncode == 1
    assert b"Traceback" in run.stderr
