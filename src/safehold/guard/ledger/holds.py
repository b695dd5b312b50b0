"""Retention locks: decisions that a case needs stay in the ledger until the case lets go.

A hold is no way round retention: none lasts longer than `LONGEST_HOLD_S`, counted from when its
holder first asked, however often it is renewed.
"""

from collections.abc import Sequence

from sqlalchemy import delete, insert, select, update

from safehold.errors import UsageError
from safehold.guard.ledger.engine import open_engine, told
from safehold.guard.ledger.schema import HOLDS, check_version

LONGEST_HOLD_S = 180 * 86_400.0


def hold(
    url: str, decision_ids: Sequence[str], *, holder: str, until: float, now: float
) -> dict[str, float]:
    """Keep these decisions from pruning and return until when, by decision, in epoch seconds.

    An earlier hold of the same holder is moved to `until`, never beyond its own longest time.

    Raises:
        UsageError: `until` is not after `now`, or is more than 180 days after it.
        LedgerError: the ledger can't be written.
    """
    if not now < until <= now + LONGEST_HOLD_S:
        raise UsageError(
            f"expected a hold that ends within {LONGEST_HOLD_S:.0f} s from now, "
            f"came one of {until - now:.0f} s"
        )
    engine = open_engine(url, wait_s=5.0, write=True)
    ends: dict[str, float] = {}
    with told(engine), engine.begin() as connection:
        check_version(connection)
        for decision_id in dict.fromkeys(decision_ids):
            mine = (HOLDS.c.decision_id == decision_id) & (HOLDS.c.holder == holder)
            first = connection.execute(select(HOLDS.c.held_at).where(mine)).scalar()
            if first is None:
                values = {"decision_id": decision_id, "holder": holder, "held_at": now}
                connection.execute(insert(HOLDS), {**values, "until": until})
                ends[decision_id] = until
            else:
                ends[decision_id] = end = min(until, first + LONGEST_HOLD_S)
                connection.execute(update(HOLDS).where(mine).values(until=end))
    return ends


def let_go(url: str, *, holder: str) -> int:
    """End every hold of a holder and return how many there were.

    Raises:
        LedgerError: the ledger can't be written.
    """
    engine = open_engine(url, wait_s=5.0, write=True)
    with told(engine), engine.begin() as connection:
        check_version(connection)
        return connection.execute(delete(HOLDS).where(HOLDS.c.holder == holder)).rowcount
