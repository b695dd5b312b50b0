"""The audit finds every way of serving without scoring or logging, and no other."""

import asyncio
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from safehold.errors import ConfigError, LedgerError, UsageError
from safehold.guard.ledger.coverage import (
    CoverageMark,
    LedgerCoverage,
    StallLimits,
    audit,
    audit_since,
)
from safehold.guard.ledger.coverage_mark import read_mark, write_mark
from safehold.guard.ledger.engine import open_engine
from safehold.guard.ledger.holds import hold
from safehold.guard.ledger.interface import (
    EventKind,
    EventRow,
    FinalRow,
    LedgerSettings,
    Outcome,
    Row,
)
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.retention import prune, settle
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import NOW, RowMaker


def keep(url: str, *rows: Row, crash: bool = False, at: float = NOW) -> None:
    """Append rows one after another by a writer that closes, or that dies."""

    async def go() -> None:
        ledger = await Ledger.open(url, clock=lambda: at)
        for row in rows:
            await ledger.append(row)
        if crash:  # what a killed process leaves: no closing mark
            ledger._storage.end = lambda: None
        await ledger.close()

    asyncio.run(go())


def look(url: str, *, now: float = NOW, **limits: Any) -> LedgerCoverage:
    """Audit a ledger."""
    return audit(LedgerReader.open(url), now=now, limits=StallLimits(**limits))


def test_a_whole_exchange_is_no_gap(url: str, rows: RowMaker) -> None:
    """Prompt, final row, and equal counters: covered, with its outcome counted."""
    keep(url, rows.prompt("d"), rows.final("d"))
    found = look(url)
    assert found.gaps == ()
    assert found.surfaces["main"].outcomes[Outcome.COMPLIED] == 1


def test_one_byte_delivered_beyond_what_was_scored_is_a_gap(url: str, rows: RowMaker) -> None:
    """Another exchange's surplus does not pay for it, and the decision is named."""
    keep(
        url,
        rows.prompt("good"),
        rows.final("good", scored_bytes=1000),
        rows.prompt("bad"),
        rows.final("bad", "malt", scored_bytes=3),
    )
    found = look(url)
    assert found.surfaces["main"].unscored_bytes == 1
    assert len(found.gaps) == 1
    assert found.gaps[0].endswith(": bad")


@pytest.mark.parametrize("counted", [3, 5])
def test_text_that_differs_from_the_bytes_delivered_is_a_gap(
    url: str, rows: RowMaker, counted: int
) -> None:
    """The ledger must hold what was delivered, no less and no more."""
    keep(url, rows.prompt("d"), rows.final("d", "malt", delivered_bytes=counted, scored_bytes=9))
    assert look(url).surfaces["main"].unlogged_bytes == 1
    assert look(url).gaps


def test_bytes_are_counted_in_utf8(url: str, rows: RowMaker) -> None:
    """A character of four bytes counts four."""
    keep(url, rows.prompt("d"), rows.final("d", "🍺é"))
    assert look(url).surfaces["main"].delivered_bytes == 6
    assert look(url).gaps == ()


def test_an_exchange_of_a_live_writer_is_in_flight(url: str, rows: RowMaker) -> None:
    """A running stream is no gap while its writer was seen of late."""
    keep(url, rows.prompt("d"), crash=True)
    found = look(url, now=NOW + 59)
    assert found.surfaces["main"].in_flight == 1
    assert found.gaps == ()


def test_an_exchange_of_a_dead_writer_crashed(url: str, rows: RowMaker) -> None:
    """A writer that was not seen for too long left a gap."""
    keep(url, rows.prompt("d"), crash=True)
    found = look(url, now=NOW + 61)
    assert found.surfaces["main"].crashed == 1
    assert found.gaps


def test_an_exchange_that_its_writer_forgot_is_a_gap_at_once(url: str, rows: RowMaker) -> None:
    """A writer that closed in good order can't have streams in flight."""
    keep(url, rows.prompt("d"))
    assert look(url).surfaces["main"].crashed == 1


def test_an_exchange_that_never_ends_is_a_gap(url: str, rows: RowMaker) -> None:
    """A live writer does not excuse a prompt without a final row for ever."""
    keep(url, rows.prompt("d", at=NOW - 3601), crash=True)
    assert look(url).surfaces["main"].stalled == 1
    assert look(url).gaps


def test_an_idle_writer_stays_alive(tmp_path: Path, rows: RowMaker) -> None:
    """The heartbeat keeps a quiet gateway's long stream from looking dead."""
    path = str(tmp_path / "l.db")
    times = iter(range(int(NOW), int(NOW) + 1_000_000, 50))

    async def go() -> None:
        settings = LedgerSettings(heartbeat_s=0.05)
        ledger = await Ledger.open(path, settings, clock=lambda: float(next(times)))
        await ledger.append(rows.prompt("d"))
        for _ in range(1_200):
            if look(path, now=NOW + 150, dead_after_s=60).surfaces["main"].in_flight == 1:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("no heartbeat in a minute")
        await ledger.close()

    asyncio.run(go())


def test_a_final_row_without_a_prompt_row_is_a_gap(url: str, rows: RowMaker) -> None:
    """Something was served that was not logged first."""
    keep(url, rows.final("d"))
    assert look(url).surfaces["(no prompt row)"].without_prompt == 1
    assert look(url).gaps


@pytest.mark.parametrize("table", ["ledger_prompts", "ledger_finals", "ledger_events"])
def test_a_row_deleted_by_hand_is_a_gap(url: str, rows: RowMaker, table: str) -> None:
    """Numbers that were given out must be present or pruned."""
    event = EventRow(at=NOW, kind=EventKind.CANARY, detail={})
    keep(url, rows.prompt("d"), rows.final("d"), event)
    with open_engine(url, wait_s=1, write=True).begin() as connection:
        connection.execute(text(f"DELETE FROM {table}"))
    assert look(url).missing_rows == 1
    assert any("missing" in gap for gap in look(url).gaps)


def test_settling_records_what_a_dead_gateway_may_have_delivered(url: str, rows: RowMaker) -> None:
    """A crashed exchange gets a final row from its progress rows, and the gap closes."""
    keep(
        url,
        rows.prompt("d"),
        rows.progress("d", "malted "),
        rows.progress("d", "grain", offset=7),
        crash=True,
    )

    async def go() -> list[str]:
        async with await Ledger.open(url, clock=lambda: NOW + 100) as ledger:
            reader = LedgerReader.open(url)
            return await settle(
                ledger, reader, now=NOW + 100, limits=StallLimits(), journalled=None
            )

    assert asyncio.run(go()) == ["d"]
    assert asyncio.run(go()) == []
    final = LedgerReader.open(url).decision("d")[-1].row
    assert isinstance(final, FinalRow)
    assert (final.outcome, final.error) == (Outcome.ERROR, "WriterDied")
    assert final.delivered[0].text == "malted grain"
    found = look(url, now=NOW + 100)
    assert (found.gaps, found.surfaces["main"].settled) == ((), 1)


def test_settling_takes_the_delivered_text_from_the_journal(url: str, rows: RowMaker) -> None:
    """What only the journal knows is in the final row; without a journal nothing is settled."""
    keep(url, rows.prompt("d"), crash=True)
    proved = {"d": rows.final("d", delivered_bytes=6, scored_bytes=6)}

    async def go(journalled: dict[str, FinalRow] | None) -> list[str]:
        async with await Ledger.open(url, clock=lambda: NOW + 100) as ledger:
            reader = LedgerReader.open(url)
            limits = StallLimits()
            return await settle(ledger, reader, now=NOW + 100, limits=limits, journalled=journalled)

    with pytest.raises(LedgerError, match="--journal"):
        asyncio.run(go(None))
    assert len(LedgerReader.open(url).decision("d")) == 1
    assert asyncio.run(go(proved)) == ["d"]
    assert LedgerReader.open(url).decision("d")[-1].row == proved["d"]


def test_pruning_removes_old_decisions_and_says_so(url: str, rows: RowMaker) -> None:
    """Decisions go whole; events stay; the audit has no gap; the removal is recorded."""
    old = NOW - 40 * 86_400
    keep(
        url,
        rows.prompt("old", at=old),
        rows.progress("old", "x", at=old),
        rows.final("old", at=old),
        rows.prompt("long", at=old),
        rows.final("long", at=NOW),
        rows.prompt("new", at=NOW),
        rows.final("new", at=NOW),
    )
    done = prune(url, older_than_s=30 * 86_400, clock=lambda: NOW)
    assert (done.decisions, done.rows) == (1, 3)
    reader = LedgerReader.open(url)
    assert reader.decision("old") == []
    assert len(reader.decision("long")) == len(reader.decision("new")) == 2
    events = [entry.row for entry in reader.tail(2)]
    assert [event.kind for event in events] == [EventKind.PRUNE, EventKind.PRUNE]
    assert events[1].detail["rows"] == 3
    assert look(url).gaps == ()
    assert look(url).pruned_rows == 3


def test_pruning_works_through_many_transactions(url: str, rows: RowMaker) -> None:
    """More decisions than one transaction takes all go."""
    keep(url, *(rows.prompt(at=0.0) for _ in range(450)))
    assert prune(url, older_than_s=86_400, clock=lambda: NOW).rows == 450
    assert look(url).missing_rows == 0


def test_a_dry_run_removes_nothing(url: str, rows: RowMaker) -> None:
    """It counts, and writes no event."""
    keep(url, rows.prompt("d", at=0.0))
    assert prune(url, older_than_s=86_400, dry_run=True, clock=lambda: NOW).decisions == 1
    assert len(LedgerReader.open(url).tail(10)) == 1


@pytest.mark.parametrize("period", [0.0, -1.0, 3599.0, float("nan")])
def test_a_period_that_reaches_into_running_streams_is_refused(
    tmp_path: Path, rows: RowMaker, period: float
) -> None:
    """Pruning younger rows could remove the prompt of a stream that still runs."""
    path = str(tmp_path / "l.db")
    keep(path, rows.prompt())
    with pytest.raises(UsageError):
        prune(path, older_than_s=period)


def test_pruned_content_is_gone_from_the_disk(tmp_path: Path, rows: RowMaker) -> None:
    """SQLite overwrites what it frees, and its log is emptied."""
    keep(str(tmp_path / "l.db"), rows.prompt("d", at=0.0, model="findable-model-name"))
    prune(str(tmp_path / "l.db"), older_than_s=86_400, clock=lambda: NOW)
    assert all(b"findable" not in file.read_bytes() for file in tmp_path.iterdir())


def test_auditing_a_missing_ledger_is_one_error(tmp_path: Path) -> None:
    """A typing error in the path must not look like an empty, covered ledger."""
    with pytest.raises(LedgerError, match="no such file"):
        look(str(tmp_path / "l.db"))


def test_counting_what_is_due_waits_for_no_writer(tmp_path: Path, rows: RowMaker) -> None:
    """A dry run reads beside a gateway that holds the write lock, and takes none itself."""
    url = str(tmp_path / "l.db")
    keep(url, rows.prompt("d", at=0.0))
    with open_engine(url, wait_s=0.1, write=True).begin():
        brief = LedgerSettings(wait_s=0.1)
        found = prune(url, older_than_s=86_400, dry_run=True, clock=lambda: NOW, settings=brief)
    assert found.decisions == 1


def test_what_is_held_or_written_to_meanwhile_stays(url: str, rows: RowMaker) -> None:
    """Each small transaction looks once more at what it is about to remove."""
    keep(url, *(rows.prompt(f"d{n:03}", at=0.0) for n in range(450)))
    late = iter(["once"])

    def meanwhile(_: int) -> None:
        if next(late, None):
            hold(url, ["d300"], holder="case", until=NOW + 60, now=NOW)
            keep(url, rows.final("d400", at=NOW))

    done = prune(url, older_than_s=86_400, clock=lambda: NOW, progress=meanwhile)
    assert done.rows == 448
    reader = LedgerReader.open(url)
    assert [len(reader.decision(name)) for name in ("d000", "d300", "d400")] == [0, 1, 2]


def on_from(
    mark: CoverageMark | None, url: str, *, now: float = NOW
) -> tuple[LedgerCoverage, CoverageMark]:
    """Audit from a mark on."""
    return audit_since(mark, LedgerReader.open(url), now=now, limits=StallLimits())


def test_an_audit_that_goes_on_says_what_a_whole_one_says(url: str, rows: RowMaker) -> None:
    """After each of some random steps, with gaps of every kind among them, both agree."""
    draw = random.Random(5)
    mark, open_ones = None, []
    for step in range(12):
        for one in range(draw.randrange(4)):
            name = f"d{step}-{one}"
            keep(url, rows.prompt(name))
            open_ones.append(name)
        draw.shuffle(open_ones)
        while len(open_ones) > 2:
            name = open_ones.pop()
            wrong = draw.choice([{}, {}, {"scored_bytes": 0}, {"delivered_bytes": 3}])
            keep(url, rows.final(name, **wrong))
        if step == 6:
            keep(url, rows.final("never-asked"))
        whole = look(url)
        found, mark = on_from(mark, url)
        assert found.surfaces == whole.surfaces
        assert (found.missing_rows, found.last_seq) == (whole.missing_rows, whole.last_seq)
        assert [gap.partition(":")[0] for gap in found.gaps] == [
            gap.partition(":")[0] for gap in whole.gaps
        ]


def test_an_open_exchange_below_the_mark_is_asked_about_again(url: str, rows: RowMaker) -> None:
    """It is a gap until its final row comes, and none after."""
    keep(url, rows.prompt("late"), crash=True)
    found, mark = on_from(None, url, now=NOW + 1000)
    assert "their writer is gone" in found.gaps[0]
    keep(url, *(rows.prompt(f"d{n}") for n in range(600)), crash=True)
    again, mark = on_from(mark, url, now=NOW + 1000)
    assert again.surfaces["main"].crashed == 601
    keep(url, rows.final("late"), *(rows.final(f"d{n}") for n in range(600)))
    assert on_from(mark, url, now=NOW + 1000)[0].gaps == ()


def test_rows_that_go_below_the_mark_are_missed(url: str, rows: RowMaker) -> None:
    """What was audited once and then deleted by hand is a gap to the next audit too."""
    keep(url, rows.prompt("d"), rows.final("d"))
    _, mark = on_from(None, url)
    with open_engine(url, wait_s=5, write=True).begin() as connection:
        connection.execute(text("DELETE FROM ledger_finals"))
    assert "rows are missing" in on_from(mark, url)[0].gaps[0]


def test_a_mark_of_another_ledger_is_refused(url: str, rows: RowMaker) -> None:
    """A ledger that ends before the mark is another one, or an older copy."""
    keep(url, rows.prompt("d"), rows.final("d"))
    _, mark = on_from(None, url)
    later = msgspec.structs.replace(mark, seq=mark.seq + 1)
    with pytest.raises(LedgerError, match="older copy"):
        on_from(later, url)


def test_a_mark_is_signed(tmp_path: Path) -> None:
    """It is read back whole; changed in any byte, or by another key, it is refused."""
    key, other, file = tmp_path / "key", tmp_path / "other", tmp_path / "mark"
    for number, path in enumerate((key, other)):
        path.write_bytes(bytes([number]) * 32)
        path.chmod(0o600)
    assert read_mark(file, key) is None
    mark = CoverageMark(seq=7, at=NOW, open=("d",), surfaces={}, gaps={})
    write_mark(file, key, mark)
    assert read_mark(file, key) == mark
    with pytest.raises(LedgerError, match="another key"):
        read_mark(file, other)
    good = file.read_bytes()
    for place in range(len(good) - 1):
        file.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(LedgerError):
            read_mark(file, key)
    other.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        write_mark(file, other, mark)
