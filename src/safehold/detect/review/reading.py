"""Reading the review desk for people: the queue, a case, and what verdicts say in sum.

Nothing here tells of a verdict to who has not given theirs: lists hold counts alone.
"""

from collections.abc import Callable

import msgspec
from sqlalchemy import func, select

from safehold.detect.review.tables import CASES, DECISIONS, ITEMS, METADATA, OPENS, VERDICTS
from safehold.errors import UsageError
from safehold.guard.ledger.engine import told
from safehold.guard.ledger.own_tables import open_tables

_SEVERITY_S = 7 * 86_400.0
_REST_S = 900.0
PAUSE_AFTER_S = 90 * 60.0
"""After so long without a quarter of an hour's rest, a reviewer is told to pause."""


class QueuedCase(msgspec.Struct, frozen=True, kw_only=True):
    """A case in the list. `waiting` items still need a verdict; `due_at` is an appeal's."""

    case: int
    kind: str
    severity: int
    account: str | None
    opened_by: str
    opened_at: float
    due_at: float | None
    state: str
    outcome: str | None
    items: int
    waiting: int


class CaseItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item of a case, as one person may see it.

    To who may still be asked, `given` and `needed` say that a verdict is missing and no more: a
    third that is needed would tell that two disagree.
    """

    item: int
    decision_id: str
    needed: int
    given: int
    mine: str | None
    """The person's own verdict."""
    held: bool
    """Whether the person holds its lock now."""
    locked_until: float
    opened: bool
    """Whether the person has looked at it."""


class CaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A case with its items."""

    about: QueuedCase
    items: tuple[CaseItem, ...]
    decided_by: str | None


class CountedVerdict(msgspec.Struct, frozen=True):
    """One verdict and the decision it is about, without its person."""

    decision_id: str
    verdict: str


class ReviewReading:
    """Answers questions about the desk's tables; changes nothing."""

    def __init__(self, url: str, clock: Callable[[], float], *, make: bool = True) -> None:
        """Open the desk's database.

        Without `make` its tables must be there.

        Raises:
            LedgerError: it can't be used.
        """
        self._engine = open_tables(url, METADATA, name="review", make=make)
        self._clock = clock

    def cases(self, *, state: str = "open", limit: int = 200) -> list[QueuedCase]:
        """Return cases in the order of the queue: severity, then age."""
        given = select(func.count()).where(VERDICTS.c.item == ITEMS.c.id).scalar_subquery()
        mine = ITEMS.c.case_id == CASES.c.id
        total = select(func.count()).select_from(ITEMS).where(mine).scalar_subquery()
        waiting = (
            select(func.count()).select_from(ITEMS).where(mine, given < ITEMS.c.needed)
        ).scalar_subquery()
        query = (
            select(CASES, total.label("items"), waiting.label("waiting"))
            .where(CASES.c.state == state)
            .order_by(CASES.c.opened_at - CASES.c.severity * _SEVERITY_S, CASES.c.id)
            .limit(limit)
        )
        with told(self._engine), self._engine.connect() as connection:
            return [
                QueuedCase(
                    case=row["id"], **{key: value for key, value in row.items() if key != "id"}
                )
                for row in connection.execute(query).mappings()
            ]

    def case(self, number: int, person: str) -> CaseRecord:
        """Return one case as a person may see it.

        Raises:
            UsageError: there is none of that number.
        """
        found = [one for one in (*self.cases(), *self.cases(state="closed", limit=10_000))
                 if one.case == number]  # fmt: skip
        if not found:
            raise UsageError(f"there is no case {number}")
        now = self._clock()
        with told(self._engine), self._engine.connect() as connection:
            rows = connection.execute(
                select(ITEMS).where(ITEMS.c.case_id == number).order_by(ITEMS.c.id)
            ).all()
            numbers = [row.id for row in rows]
            verdicts = connection.execute(
                select(VERDICTS).where(VERDICTS.c.item.in_(numbers))
            ).all()
            looked = set(
                connection.execute(
                    select(OPENS.c.item).where(OPENS.c.item.in_(numbers), OPENS.c.person == person)
                ).scalars()
            )
            decided = connection.execute(
                select(DECISIONS.c.decided_by).where(DECISIONS.c.case_id == number)
            ).scalar()
        items = []
        for row in rows:
            said = {one.person: one.verdict for one in verdicts if one.item == row.id}
            blind = person not in said and len(said) < row.needed
            items.append(
                CaseItem(
                    item=row.id,
                    decision_id=row.decision_id,
                    needed=1 if blind else row.needed,
                    given=0 if blind else len(said),
                    mine=said.get(person),
                    held=row.locked_by == person and row.locked_until >= now,
                    locked_until=row.locked_until,
                    opened=row.id in looked,
                )
            )
        return CaseRecord(about=found[0], items=tuple(items), decided_by=decided)

    def case_of(self, item: int) -> int:
        """Return the number of an item's case.

        Raises:
            UsageError: there is no such item.
        """
        with told(self._engine), self._engine.connect() as connection:
            found = connection.execute(select(ITEMS.c.case_id).where(ITEMS.c.id == item)).scalar()
        if found is None:
            raise UsageError(f"there is no item {item}")
        return int(found)

    def reading_for(self, person: str) -> float:
        """Return for how many seconds a person has looked at items without a rest until now."""
        query = (
            select(OPENS.c.opened_at)
            .where(OPENS.c.person == person)
            .order_by(OPENS.c.opened_at.desc())
            .limit(1_000)
        )
        now = self._clock()
        with told(self._engine), self._engine.connect() as connection:
            looks = list(connection.execute(query).scalars())
        began = now
        for moment in looks:
            if began - moment >= _REST_S:
                break
            began = moment
        return now - began

    def awaited(self, person: str) -> frozenset[str]:
        """Return the decisions on which this person may still be asked for a verdict."""
        given = select(func.count()).where(VERDICTS.c.item == ITEMS.c.id).scalar_subquery()
        mine = select(VERDICTS.c.item).where(
            VERDICTS.c.item == ITEMS.c.id, VERDICTS.c.person == person
        )
        query = (
            select(ITEMS.c.decision_id)
            .join_from(ITEMS, CASES, CASES.c.id == ITEMS.c.case_id)
            .where(CASES.c.state == "open", given < ITEMS.c.needed, ~mine.exists())
        )
        with told(self._engine), self._engine.connect() as connection:
            return frozenset(connection.execute(query).scalars())

    def verdicts(self, *, limit: int = 2_000) -> list[CountedVerdict]:
        """Return the newest verdicts with the decisions that they are about."""
        query = (
            select(ITEMS.c.decision_id, VERDICTS.c.verdict)
            .join_from(VERDICTS, ITEMS, VERDICTS.c.item == ITEMS.c.id)
            .order_by(VERDICTS.c.given_at.desc())
            .limit(limit)
        )
        with told(self._engine), self._engine.connect() as connection:
            return [CountedVerdict(*row) for row in connection.execute(query)]
