"""What the ledger's writer promises: durable, ordered, all or none, nobody waits for ever."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from safehold.errors import ConfigError, LedgerError
from safehold.exchange import Exchange, Lane, Role, TextPart, Turn, user_says
from safehold.guard.ledger.codec import table_of, to_columns, to_entry
from safehold.guard.ledger.engine import open_engine
from safehold.guard.ledger.interface import EventKind, EventRow, LedgerSettings, Row
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import RowMaker


def run(coroutine: Any) -> Any:
    """Drive one coroutine to its end."""
    return asyncio.run(coroutine)


async def append_all(url: str, *rows: Row, **settings: Any) -> list[int]:
    """Append rows side by side and return their numbers."""
    async with await Ledger.open(url, LedgerSettings(**settings)) as ledger:
        return list(await asyncio.gather(*(ledger.append(row) for row in rows)))


def test_every_kind_of_row_comes_back_as_it_went_in(url: str, rows: RowMaker) -> None:
    """A reader gets equal rows, numbered from one without holes."""
    kept = [
        rows.prompt("d", tenant="t", would_block=True),
        rows.progress("d", "malted "),
        rows.final("d", lane=Lane(choice=1), offset=7),
        EventRow(at=1.5, kind=EventKind.CANARY, detail={"passed": True, "n": 3}, surface="main"),
    ]
    run(append_all(url, *kept))
    entries = LedgerReader.open(url).tail(10)
    assert [entry.row for entry in entries] == kept
    assert [entry.seq for entry in entries] == [1, 2, 3, 4]


def test_hostile_text_is_kept_exactly(url: str, rows: RowMaker) -> None:
    """NUL, lone surrogates, quotes and bidi marks in content survive both storages."""
    hostile = "a\0b\udfff\ud800'\";--\u202e\u200d\U000e0041\r\n"
    run(append_all(url, rows.prompt("d", exchange=user_says(hostile)), rows.final("d", hostile)))
    prompt, final = (entry.row for entry in LedgerReader.open(url).decision("d"))
    assert next(prompt.exchange.texts()).text == hostile
    assert final.delivered[0].text == hostile


def test_hostile_names_are_cleaned_and_cut(url: str, rows: RowMaker) -> None:
    """A client's model name can't break the row or fill the disk."""
    run(append_all(url, rows.prompt("d", model="m\0\ud800" + "x" * 100_000)))
    [entry] = LedgerReader.open(url).decision("d")
    assert entry.row.model.startswith("m\\x00\\ud800x")
    assert len(entry.row.model) < 600


def test_a_clock_set_back_does_not_change_the_order(url: str, rows: RowMaker) -> None:
    """Order is the sequence number; the clock is only shown."""
    times = [100.0, 50.0, 99.0, 1.0]

    async def one_after_another() -> None:
        async with await Ledger.open(url) as ledger:
            for number, at in enumerate(times):
                await ledger.append(rows.prompt(f"d{number}", at=at))

    run(one_after_another())
    assert [entry.row.at for entry in LedgerReader.open(url).tail(10)] == times


def test_a_duplicate_decision_fails_alone(url: str, rows: RowMaker) -> None:
    """One caller's impossible row does not fail the rows that share its commit."""

    async def go() -> list[Any]:
        async with await Ledger.open(url) as ledger:
            await ledger.append(rows.prompt("d0"))
            appends = [ledger.append(rows.prompt(name)) for name in ("d1", "d0", "d2")]
            return await asyncio.gather(*appends, return_exceptions=True)

    first, duplicate, last = run(go())
    assert isinstance(duplicate, LedgerError)
    assert "already has such a row" in str(duplicate)
    assert (first, last) == (2, 3)


def test_rows_of_one_append_are_kept_together_or_not_at_all(url: str, rows: RowMaker) -> None:
    """When the second row is impossible, the first is not kept either."""

    async def go() -> None:
        async with await Ledger.open(url) as ledger:
            await ledger.append(rows.final("d0"))
            with pytest.raises(LedgerError):
                await ledger.append(rows.prompt("d1"), rows.final("d0"))

    run(go())
    assert LedgerReader.open(url).decision("d1") == []


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1 << 63])
def test_a_number_that_no_database_keeps_is_refused(
    tmp_path: Path, rows: RowMaker, number: float
) -> None:
    """A score that is no number must not turn into a silent NULL."""
    with pytest.raises(LedgerError, match="finite number"):
        run(append_all(str(tmp_path / "l.db"), rows.final("d", score=number)))


def test_a_row_over_the_limit_is_refused_without_its_content(
    tmp_path: Path, rows: RowMaker
) -> None:
    """The size limit names sizes, not text."""
    row = rows.prompt("d", exchange=user_says("secret" * 1000))
    with pytest.raises(LedgerError, match="at most 1000 bytes") as caught:
        run(append_all(str(tmp_path / "l.db"), row, max_row_bytes=1000))
    assert "secret" not in str(caught.value)


def test_a_value_that_is_no_row_is_refused(tmp_path: Path) -> None:
    """The writer survives a programming error of its caller."""
    with pytest.raises(LedgerError, match="expected a ledger row"):
        run(append_all(str(tmp_path / "l.db"), "no row"))


def test_close_keeps_what_is_queued(url: str, rows: RowMaker) -> None:
    """Closing while appends wait writes them all first."""

    async def go() -> list[Any]:
        ledger = await Ledger.open(url)
        waiting = [asyncio.create_task(ledger.append(rows.prompt())) for _ in range(50)]
        await asyncio.sleep(0)
        await ledger.close()
        return await asyncio.gather(*waiting)

    assert sorted(run(go())) == list(range(1, 51))


def test_a_closed_ledger_refuses(tmp_path: Path, rows: RowMaker) -> None:
    """An append after close raises at once instead of waiting for ever."""

    async def go() -> None:
        ledger = await Ledger.open(str(tmp_path / "l.db"))
        await ledger.close()
        await ledger.close()
        with pytest.raises(LedgerError, match="closed"):
            await ledger.append(rows.prompt())

    run(go())


def test_a_cancelled_caller_loses_nothing_and_blocks_nobody(tmp_path: Path, rows: RowMaker) -> None:
    """A client that hangs up while its row waits leaves the row and the queue's room."""
    path = str(tmp_path / "l.db")

    async def go() -> None:
        async with await Ledger.open(path, LedgerSettings(max_pending=1)) as ledger:
            task = asyncio.create_task(ledger.append(rows.prompt("gone")))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait_for(ledger.append(rows.prompt("next")), 60)

    run(go())
    assert LedgerReader.open(path).decision("gone")


def test_a_full_queue_makes_callers_wait(tmp_path: Path, rows: RowMaker) -> None:
    """At most `max_pending` appends are handed to the writer at once."""

    async def go() -> int:
        settings = LedgerSettings(max_pending=4)
        async with await Ledger.open(str(tmp_path / "l.db"), settings) as ledger:
            tasks = [asyncio.create_task(ledger.append(rows.prompt())) for _ in range(20)]
            await asyncio.sleep(0)
            queued = ledger._jobs.qsize()
            await asyncio.gather(*tasks)
            return queued

    assert run(go()) <= 4


def test_two_writers_share_one_sequence(url: str, rows: RowMaker) -> None:
    """Several gateways on one ledger get distinct numbers without holes."""

    async def go() -> list[int]:
        async with await Ledger.open(url) as one, await Ledger.open(url) as two:
            return list(
                await asyncio.gather(
                    *(ledger.append(rows.prompt()) for _ in range(20) for ledger in (one, two))
                )
            )

    assert sorted(run(go())) == list(range(1, 41))


def test_appends_of_one_task_are_in_order(url: str, rows: RowMaker) -> None:
    """A prompt's number is below its final row's, however many share a commit."""

    async def exchange(ledger: Ledger, name: str) -> tuple[int, int]:
        return await ledger.append(rows.prompt(name)), await ledger.append(rows.final(name))

    async def go() -> list[tuple[int, int]]:
        async with await Ledger.open(url) as ledger:
            return list(await asyncio.gather(*(exchange(ledger, f"d{n}") for n in range(20))))

    assert all(prompt < final for prompt, final in run(go()))
    assert all(a.seq < b.seq for a, b in pairwise(LedgerReader.open(url).tail(40)))


def test_a_newer_schema_is_refused(url: str) -> None:
    """A ledger that a newer release made is neither read nor written."""
    run(append_all(url))
    with open_engine(url, wait_s=1, write=True).begin() as connection:
        connection.execute(text("INSERT INTO ledger_schema VALUES (9999, 0)"))
    with pytest.raises(LedgerError, match=r"version 9999.*upgrade"):
        run(append_all(url))
    with pytest.raises(LedgerError, match=r"version 9999.*upgrade"):
        LedgerReader.open(url)


def test_opening_twice_migrates_once(url: str, rows: RowMaker) -> None:
    """A second start finds the first one's rows."""
    run(append_all(url, rows.prompt("a")))
    run(append_all(url, rows.prompt("b")))
    assert len(LedgerReader.open(url).tail(10)) == 2


@pytest.mark.parametrize("bad", ["mysql://h/d", "sqlite://", "sqlite:///:memory:", "://"])
def test_an_unusable_url_is_refused(bad: str) -> None:
    """A URL that names no supported storage is a configuration error."""
    with pytest.raises(ConfigError):
        open_engine(bad, wait_s=1, write=False)


def test_a_ledger_file_is_its_owners_alone(tmp_path: Path, rows: RowMaker) -> None:
    """Content at rest is not readable by other users, the log beside it included."""

    def modes() -> dict[str, int]:
        return {file.name: file.stat().st_mode & 0o077 for file in tmp_path.iterdir()}

    async def go() -> dict[str, int]:
        async with await Ledger.open(str(tmp_path / "l.db")) as ledger:
            await ledger.append(rows.prompt())
            return await asyncio.to_thread(modes)

    assert run(go()) == {"l.db": 0, "l.db-wal": 0, "l.db-shm": 0}


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(codec=None)), max_size=3))
def test_any_text_survives_the_codec(rows: RowMaker, texts: list[str]) -> None:
    """Columns decode to the row that was encoded, lone surrogates included.

    Two surrogates in a row that mean one character come back as that character, as in any JSON.
    """
    joined = [t.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") for t in texts]
    turn = Turn(role=Role.USER, parts=tuple(TextPart(text=text) for text in joined))
    row = rows.prompt("d", exchange=Exchange(turns=(turn,)))
    columns = to_columns(row, max_bytes=1 << 20)
    assert table_of(row).name == "ledger_prompts"
    assert to_entry(type(row), {"seq": 1, "writer": "w", **columns}).row == row
