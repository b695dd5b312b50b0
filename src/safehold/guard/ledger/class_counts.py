"""What each class behind a gateway stopped, or would have: counted from the ledger's rows."""

from collections import Counter

import msgspec
from sqlalchemy import func, select

from safehold.guard.ledger.interface import EventKind, LedgerVerdict
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.schema import EVENTS, FINALS
from safehold.stats import Rate

_PAGE = 5_000


class ClassCount(msgspec.Struct, frozen=True):
    """One class in one state: its exchanges, those it stopped or would have, and by which clause.

    `unscored` are exchanges in which the class broke, counted in no rate.
    """

    name: str
    state: str
    blocked: Rate
    unscored: int
    clauses: dict[str, int]


def class_counts(reader: LedgerReader) -> tuple[ClassCount, ...]:
    """Count every class of a ledger; the gateway's first class comes first and has no name.

    Raises:
        LedgerError: the storage can't be read.
    """
    seen: Counter[tuple[str, str, str]] = Counter()
    clauses: Counter[tuple[str, str, str]] = Counter()
    with reader.snapshot() as connection:
        query = select(EVENTS.c.seq, EVENTS.c.detail).where(EVENTS.c.kind == EventKind.CLASS.value)
        after = 0
        while page := connection.execute(
            query.where(EVENTS.c.seq > after).order_by(EVENTS.c.seq).limit(_PAGE)
        ).all():
            after = page[-1].seq
            for row in page:
                said = msgspec.json.decode(row.detail)
                key = said["class"], "on" if said["acts"] else "shadow"
                seen[*key, said["verdict"]] += 1
                if said["verdict"] == "block":
                    clauses[*key, said["clause"] or "unnamed"] += 1
        ended = connection.execute(
            select(FINALS.c.verdict, FINALS.c.clause, func.count())
            .where(~FINALS.c.decision_id.like("canary\\_%", escape="\\"))
            .group_by(FINALS.c.verdict, FINALS.c.clause)
        ).all()
    names = {name for name, _, _ in seen}
    for verdict, clause, count in ended:
        whose = (clause or "").partition(".")[0]
        stopped = verdict == LedgerVerdict.BLOCK and whose not in names
        judged = (
            "block" if stopped else "unscored" if verdict == LedgerVerdict.UNSCORED else "allow"
        )
        seen["", "on", judged] += count
        if stopped:
            clauses["", "on", clause or "unnamed"] += count
    keys = sorted({(name, state) for name, state, _ in seen})
    return tuple(_count(name, state, seen, clauses) for name, state in keys)


def _count(
    name: str,
    state: str,
    seen: Counter[tuple[str, str, str]],
    clauses: Counter[tuple[str, str, str]],
) -> ClassCount:
    blocked, allowed = seen[name, state, "block"], seen[name, state, "allow"]
    return ClassCount(
        name=name,
        state=state,
        blocked=Rate(blocked, blocked + allowed),
        unscored=seen[name, state, "unscored"],
        clauses={
            clause: count
            for (whose, how, clause), count in sorted(clauses.items())
            if (whose, how) == (name, state)
        },
    )
