"""`safehold ledger` as its users type it."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from safehold.cli.ledger import ledger
from safehold.errors import LedgerError, UsageError
from safehold.exchange import user_says
from safehold.guard.ledger.coverage import CoverageError
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import RowMaker


@pytest.fixture
def kept(tmp_path: Path) -> str:
    """A ledger with one whole exchange whose prompt is hostile to terminals."""
    path = str(tmp_path / "l.db")
    rows = RowMaker()
    hostile = user_says("what is malt?\x1b[2J\u202e")

    async def go() -> None:
        async with await Ledger.open(path) as opened:
            await opened.append(rows.prompt("d1", exchange=hostile), rows.final("d1"))

    asyncio.run(go())
    return path


def typed(*words: str) -> Result:
    """Run the command group."""
    return CliRunner().invoke(ledger, ["--ledger", *words])


def test_tail_shows_a_line_per_row_without_content(kept: str) -> None:
    """One line each, in order, and no word of the exchange, in JSON too."""
    shown = typed(kept, "tail").stdout
    assert [line.split()[3] for line in shown.splitlines()] == ["prompt", "final"]
    as_json = typed(kept, "tail", "--json").stdout
    assert [json.loads(line)["seq"] for line in as_json.splitlines()] == [1, 2]
    assert "malt" not in shown + as_json


def test_show_makes_hostile_text_visible(kept: str) -> None:
    """Escape sequences and bidi marks reach the terminal as words, not as commands."""
    shown = typed(kept, "show", "d1").stdout
    assert "what is malt?\\u{1b}[2J\\u{202e}" in shown
    assert "malted grain" in shown
    assert "\x1b[2J" not in shown


def test_show_of_an_unknown_id_is_an_error(kept: str) -> None:
    """An empty answer would look like an exchange without content."""
    assert isinstance(typed(kept, "show", "d2").exception, UsageError)


def test_coverage_tells_by_its_exit_status(kept: str) -> None:
    """Covered is 0; a gap is a CoverageError, whose status is 8, with the JSON still printed."""
    assert typed(kept, "coverage").exit_code == 0

    async def leave_open() -> None:
        async with await Ledger.open(kept) as opened:
            await opened.append(RowMaker().prompt("d2"))

    asyncio.run(leave_open())
    result = typed(kept, "coverage", "--json")
    assert isinstance(result.exception, CoverageError)
    assert json.loads(result.stdout)["surfaces"]["main"]["crashed"] == 1


def test_settle_closes_the_gap(kept: str, tmp_path: Path) -> None:
    """Without the journal nothing is settled; with it, the audit is content."""

    async def leave_open() -> None:
        async with await Ledger.open(kept) as opened:
            await opened.append(RowMaker().prompt("d2"))

    asyncio.run(leave_open())
    refused = typed(kept, "settle", "--json")
    assert isinstance(refused.exception, LedgerError)
    assert "--journal" in str(refused.exception)
    (tmp_path / "journal").mkdir()
    settled = typed(kept, "settle", "--json", "--journal", str(tmp_path / "journal"))
    assert json.loads(settled.stdout) == {"settled": ["d2"]}
    assert typed(kept, "coverage").exit_code == 0


def test_export_writes_files(kept: str, tmp_path: Path) -> None:
    """The files that it names are there."""
    shown = typed(kept, "export", str(tmp_path / "out")).stdout
    assert "prompts.parquet: 1 rows" in shown
    assert (tmp_path / "out" / "manifest.json").exists()


def test_prune_asks_before_it_removes(kept: str) -> None:
    """Without a yes nothing goes."""
    old = time.time() - 90 * 86_400

    async def add() -> None:
        async with await Ledger.open(kept) as opened:
            await opened.append(RowMaker().prompt("old", at=old), RowMaker().final("old", at=old))

    asyncio.run(add())
    assert typed(kept, "prune", "--older-than", "30d").exit_code == 1
    assert typed(kept, "show", "old").exit_code == 0
    assert "1 decisions" in typed(kept, "prune", "--older-than", "30d", "--yes").stdout
    assert typed(kept, "show", "old").exit_code != 0


@pytest.mark.parametrize("period", ["30", "d", "-3d", "1.5h", "30m", "9999999d"])
def test_a_period_that_is_none_is_refused(kept: str, period: str) -> None:
    """A typing error must not prune."""
    assert typed(kept, "prune", "--older-than", period, "--yes").exit_code != 0
    assert typed(kept, "show", "d1").exit_code == 0


@pytest.mark.parametrize(
    "name", ["tail", "show", "coverage", "settle", "export", "prune", "migrate"]
)
def test_every_command_has_help_with_examples(name: str) -> None:
    """--help shows how to type it, and every command speaks JSON."""
    shown = typed("x", name, "--help").stdout
    assert f"safehold ledger {name}" in shown or name == "migrate"
    assert "Examples:" in shown
    assert "--json" in shown


def test_a_storage_error_is_one_line(tmp_path: Path) -> None:
    """The real program prints no traceback and exits with the error's status."""
    done = subprocess.run(
        [sys.executable, "-m", "safehold", "ledger", "--ledger", str(tmp_path / "no.db"), "tail"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "no such file" in done.stderr
