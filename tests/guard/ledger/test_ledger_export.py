"""The Parquet export holds every row, once, in files that appear whole."""

import asyncio
import hashlib
import json
from pathlib import Path

import pytest
from pyarrow import parquet

from safehold.errors import LedgerError
from safehold.exchange import Lane
from safehold.guard.ledger.export import export
from safehold.guard.ledger.interface import EventKind, EventRow
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import RowMaker


@pytest.fixture
def filled(url: str, rows: RowMaker) -> str:
    """A ledger with 1,200 exchanges and one event."""

    async def go() -> None:
        async with await Ledger.open(url) as ledger:
            await asyncio.gather(
                *(ledger.append(rows.prompt(f"x{n}"), rows.final(f"x{n}")) for n in range(1200))
            )
            await ledger.append(EventRow(at=1.25, kind=EventKind.CANARY, detail={"passed": True}))

    asyncio.run(go())
    return url


def test_every_row_is_exported_once(filled: str, tmp_path: Path) -> None:
    """Counts, columns and times agree, and the manifest's digests are the files'."""
    files = export(LedgerReader.open(filled), tmp_path / "out")
    assert [file.rows for file in files] == [1200, 0, 1200, 1]
    table = parquet.read_table(tmp_path / "out" / "prompts.parquet")
    assert len(set(table["decision_id"].to_pylist())) == 1200
    assert json.loads(table["exchange"][0].as_py())["turns"][0]["parts"][0]["type"] == "text"
    event = parquet.read_table(tmp_path / "out" / "events.parquet").to_pylist()[0]
    assert event["at"].timestamp() == 1.25
    for entry in json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]:
        content = (tmp_path / "out" / entry["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    assert not list((tmp_path / "out").glob("*.partial"))


def test_an_export_can_go_on_where_the_last_one_ended(filled: str, tmp_path: Path) -> None:
    """`after` leaves out what was exported before."""
    files = export(LedgerReader.open(filled), tmp_path / "out", after=2399)
    assert sum(file.rows for file in files) == 2


def test_an_export_is_never_overwritten(filled: str, tmp_path: Path) -> None:
    """A folder that holds an export refuses."""
    export(LedgerReader.open(filled), tmp_path / "out", after=2400)
    with pytest.raises(LedgerError, match="without an export"):
        export(LedgerReader.open(filled), tmp_path / "out")


def test_every_column_of_every_row_is_exported(url: str, rows: RowMaker, tmp_path: Path) -> None:
    """No column is left empty here, so one that Parquet would take for another type is seen."""
    lane = Lane()
    prompt = rows.prompt(
        "d", tenant="t", key_id="k", use_case="u", grant_id="g", clause="c", score=0.5, turn=-1
    )
    final = rows.final("d", clause="c", score=0.5, lane=lane, offset=3, tokens_in=1, tokens_out=2)

    async def go() -> None:
        async with await Ledger.open(url) as ledger:
            await ledger.append(prompt, rows.progress("d", "text"), final)
            await ledger.append(EventRow(at=1.0, kind=EventKind.CANARY, detail={"passed": True}))

    asyncio.run(go())
    export(LedgerReader.open(url), tmp_path / "out")
    assert parquet.read_table(tmp_path / "out" / "prompts.parquet")["turn"].to_pylist() == [-1]


def test_an_export_that_fails_leaves_no_content_behind(filled: str, tmp_path: Path) -> None:
    """An error in the middle removes the half-written file."""

    def stop(_: int) -> None:
        raise LedgerError("the reader went away")

    with pytest.raises(LedgerError, match="went away"):
        export(LedgerReader.open(filled), tmp_path / "out", progress=stop)
    assert list((tmp_path / "out").iterdir()) == []
