"""Retention locks keep what a case needs, and no longer than the longest hold."""

import asyncio

import pytest

from safehold.errors import UsageError
from safehold.guard.ledger.holds import LONGEST_HOLD_S, hold, let_go
from safehold.guard.ledger.joined import joined, watermark
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.retention import prune
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import NOW, RowMaker

_DAY = 86_400.0


def _keep(url: str, *rows: object) -> None:
    async def go() -> None:
        ledger = await Ledger.open(url)
        for row in rows:
            await ledger.append(row)  # type: ignore[arg-type] # rows of every kind
        await ledger.close()

    asyncio.run(go())


def test_pruning_leaves_what_a_case_holds(url: str, rows: RowMaker) -> None:
    """The held decision stays whole, its neighbour goes; let go, it goes too."""
    old = {"at": NOW - 40 * _DAY}
    for name in ("held", "free"):
        _keep(url, rows.prompt(name, **old), rows.final(name, **old))
    hold(url, ["held"], holder="case-1", until=NOW + _DAY, now=NOW)
    assert prune(url, older_than_s=30 * _DAY, clock=lambda: NOW).decisions == 1
    reader = LedgerReader.open(url)
    assert len(reader.decision("held")) == 2
    assert reader.decision("free") == []
    assert let_go(url, holder="case-1") == 1
    assert prune(url, older_than_s=30 * _DAY, clock=lambda: NOW).decisions == 1


def test_an_expired_hold_holds_nothing(url: str, rows: RowMaker) -> None:
    """A hold that nobody renewed ends by itself."""
    _keep(url, rows.prompt("d"), rows.final("d"))
    hold(url, ["d"], holder="case-1", until=NOW + _DAY, now=NOW)
    late = NOW + 40 * _DAY
    assert prune(url, older_than_s=30 * _DAY, clock=lambda: late).decisions == 1


def test_renewing_a_hold_for_ever_is_cut_at_its_longest_time(url: str, rows: RowMaker) -> None:
    """Renewals count from the first hold, so that a hold is no way round retention."""
    _keep(url, rows.prompt("d"))
    hold(url, ["d"], holder="c", until=NOW + LONGEST_HOLD_S, now=NOW)
    later = NOW + 100 * _DAY
    ends = hold(url, ["d"], holder="c", until=later + 100 * _DAY, now=later)
    assert ends == {"d": NOW + LONGEST_HOLD_S}


@pytest.mark.parametrize("length_s", [0.0, -1.0, LONGEST_HOLD_S + 1, float("nan")])
def test_a_hold_of_no_or_endless_length_is_refused(
    url: str, rows: RowMaker, length_s: float
) -> None:
    """Only a hold that begins and ends can be asked for."""
    _keep(url, rows.prompt("d"))
    with pytest.raises(UsageError):
        hold(url, ["d"], holder="c", until=NOW + length_s, now=NOW)


def test_joined_exchanges_come_once_in_the_order_of_their_ends(url: str, rows: RowMaker) -> None:
    """A late end is placed above the watermark that was read before it."""
    _keep(url, rows.prompt("late"), rows.prompt("b"), rows.final("b"))
    reader = LedgerReader.open(url)
    with reader.snapshot() as connection:
        mark = watermark(connection)
        first = [one.decision_id for one in joined(connection, after=0, through=mark)]
    _keep(url, rows.final("late"))
    with reader.snapshot() as connection:
        after = list(joined(connection, after=mark, through=watermark(connection)))
    assert (first, [one.decision_id for one in after]) == (["b"], ["late"])
    assert after[0].prompt == rows.prompt("late")
