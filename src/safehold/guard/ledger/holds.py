"""Retention locks: decisions that a case needs stay in the ledger until the case lets go.

A hold is no way round retention: none lasts longer than `LONGEST_HOLD_S`, counted from when its
holder first asked, however often it is renewed.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select, update

from safehold.errors import UsageError
from safehold.guard.ledger.engine import open_engine, told
from safehold.guard.ledger.schema import FINALS, HOLDS, PROGRESS, PROMPTS, check_version
from safehold.guard.ledger.sealing import PREFIX, ContentKey, key_at_hand
from safehold.guard.ledger.sqlite_log import empty_log

_CONTENT = ((PROMPTS, "exchange"), (PROGRESS, "text"), (FINALS, "delivered"))
LONGEST_HOLD_S = 180 * 86_400.0


def hold(
    url: str, decision_ids: Sequence[str], *, holder: str, until: float, now: float
) -> dict[str, float]:
    """Keep these decisions from pruning and return until when, by decision, in epoch seconds.

    Where `SAFEHOLD_LEDGER_KEY` names a key, the content is encrypted in place (`sealing`).
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
    key = key_at_hand()
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
            if key is not None:
                _seal(connection, decision_id, key)
    if key is not None:  # the log beside the file still has the pages of before
        empty_log(engine, wait_s=5.0)
    return ends


def _seal(connection: Connection, decision_id: str, key: ContentKey) -> None:
    """Encrypt what an ended decision's rows hold of content; `settle` still needs an open one's."""
    ended = select(FINALS.c.seq).where(FINALS.c.decision_id == decision_id)
    if connection.execute(ended).first() is None:
        return
    for table, column in _CONTENT:
        here = select(table.c.seq, table.c[column]).where(table.c.decision_id == decision_id)
        for seq, value in connection.execute(here).all():
            if isinstance(value, str):
                closed = key.seal(value, decision_id=decision_id, column=column)
                changed = update(table).where(table.c.seq == seq).values({column: closed})
                connection.execute(changed)


def sealed(connection: Connection, decision_ids: Sequence[str]) -> frozenset[str]:
    """Return which of these decisions have content that is kept encrypted, key or none."""
    found: set[str] = set()
    for table, column in _CONTENT:
        mine = table.c.decision_id.in_(decision_ids)
        query = select(table.c.decision_id).where(mine, table.c[column].startswith(PREFIX))
        found.update(connection.execute(query).scalars())
    return frozenset(found)


def let_go(url: str, *, holder: str) -> int:
    """End every hold of a holder and return how many there were.

    Raises:
        LedgerError: the ledger can't be written.
    """
    engine = open_engine(url, wait_s=5.0, write=True)
    with told(engine), engine.begin() as connection:
        check_version(connection)
        return connection.execute(delete(HOLDS).where(HOLDS.c.holder == holder)).rowcount
