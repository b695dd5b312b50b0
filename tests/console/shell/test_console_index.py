"""The console's index: exact counts whatever is killed, no scan for a question, PostgreSQL too."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import event, text

from safehold.console.index import ExchangeIndex, Wanted
from safehold.console.shell.logins import Logins
from safehold.console.shell.pulse import PagePulse
from safehold.guard.ledger.engine import open_engine
from safehold.guard.ledger.interface import Action, LedgerVerdict, Outcome
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import RowMaker

NOW = 1_790_000_000.0


async def fill(url: str, count: int) -> None:
    """Keep exchanges; every third is blocked."""
    ledger, rows = await Ledger.open(url), RowMaker()
    for n in range(count):
        stop, end = {}, {}
        if n % 3 == 0:
            stop = {"verdict": LedgerVerdict.BLOCK, "clause": "c", "action": Action.BLOCK}
            end = {"outcome": Outcome.BLOCKED_BY_GUARD}
        who = {"tenant": "t", "key_id": f"k{n % 2}"}
        prompt = rows.prompt(f"d{n}", at=NOW + n, **who, **stop)  # type: ignore[arg-type]
        await ledger.append(prompt, rows.final(f"d{n}", at=NOW + n, **end))
    await ledger.close()


def index_of(folder: Path, store: str) -> ExchangeIndex:
    """Return an index of the ledger in this folder."""
    reader = LedgerReader.open(str(folder / "l.db"))
    return ExchangeIndex(open_engine(store, wait_s=30, write=True), reader, time.time)


def test_each_exchange_counts_once_on_both_databases(
    tmp_path: Path, new_database: Callable[[], str]
) -> None:
    """Two followers on one store, and one that begins again, find the same counts."""
    asyncio.run(fill(str(tmp_path / "l.db"), 30))
    for store in (str(tmp_path / "c.db"), new_database()):
        one, two = index_of(tmp_path, store), index_of(tmp_path, store)
        assert one.follow() == 30
        assert two.follow() == 0
        assert index_of(tmp_path, store).follow() == 0
        hours = one.hours(0)
        assert sum(hour.exchanges for hour in hours) == 30
        assert sum(hour.blocked for hour in hours) == 10
        found = two.lines(Wanted(outcome="blocked_by_guard", account="t/k1", limit=3))
        assert [line.decision_id for line in found] == ["d27", "d21", "d15"]
        older = two.lines(Wanted(before=found[-1].seq, outcome="blocked_by_guard", account="t/k1"))
        assert [line.decision_id for line in older] == ["d9", "d3"]
        assert one.outcomes(["d0", "d1", "none"]) == {"d0": "blocked_by_guard", "d1": "complied"}
        logins = Logins(open_engine(store, wait_s=30, write=True), time.time)
        token = logins.begin("p", "")
        assert logins.find(token) is not None
        logins.spend(nonce := logins.challenge())
        with pytest.raises(Exception, match="used before"):
            logins.spend(nonce)


def test_no_question_scans_the_index(tmp_path: Path) -> None:
    """Each filter walks an index of its own, so that a page costs the same over any ledger."""
    asyncio.run(fill(str(tmp_path / "l.db"), 3))
    index = index_of(tmp_path, str(tmp_path / "c.db"))
    index.follow()
    asked: list[tuple[str, object]] = []

    @event.listens_for(index._engine, "before_cursor_execute")
    def note(_c: object, _u: object, statement: str, given: object, *_: object) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, given))

    for wanted in (Wanted(), Wanted(outcome="error"), Wanted(account="t/k0"), Wanted(clause="c"),
                   Wanted(surface="main"), Wanted(before=5)):  # fmt: skip
        index.lines(wanted)
    index.hours(NOW)
    index.outcomes(["d0"])
    event.remove(index._engine, "before_cursor_execute", note)
    assert len(asked) == 8
    with index._engine.connect() as connection:
        for statement, given in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given).all()  # type: ignore[arg-type]
            words = " ".join(str(row[3]) for row in plan)
            whole = "SCAN" in words and "LIMIT" not in statement
            assert not whole, (statement, words)
            assert "TEMP B-TREE" not in words, (statement, words)
        connection.execute(text("SELECT 1"))


def test_a_stream_resumes_where_it_left_off() -> None:
    """Who saw the newest row hears nothing until there is news; who saw less hears at once."""

    async def run() -> None:
        rows = [7]
        pulse = PagePulse(lambda: rows[0], every_s=0.01)
        first = pulse.stream(0)
        assert (await anext(first)).startswith(b"retry")
        assert b"id: 7\n" in await anext(first)
        again = pulse.stream(7)
        await anext(again)
        waiting = asyncio.ensure_future(anext(again))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        rows[0] = 9
        assert b"id: 9\n" in await waiting
        ahead = pulse.stream(10**9)  # another ledger's number
        await anext(ahead)
        assert b"id: 9\n" in await anext(ahead)
        for one in (first, again, ahead):
            await one.aclose()  # type: ignore[attr-defined]
        assert pulse.open == 0

    asyncio.run(run())
