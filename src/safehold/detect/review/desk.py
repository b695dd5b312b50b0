"""The review desk: who looks at what, blind at first, with a leaf before every look.

1. An item is one person's at a time, under a lock that runs out, so that nothing is judged twice
   by accident and a person who leaves loses nothing for the others.
2. Content is read from the ledger when it is shown, after its leaf is in the log.
3. What a scorer or another person said is told to a person only after that person's own verdict.
4. The order is severity, then age: a step of severity is worth a week. An item's rank never
   changes, so every item is some day the first.
5. An appeal is heard once, about one block, and by others: whoever judged the block in another
   case, or decided such a case, neither judges nor decides its appeal. It ends as its verdicts say.
   A closed case takes no verdict any more.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select, text, update

from safehold.detect.leaf_sink import LeafSink
from safehold.detect.review.interface import (
    BY_TWO,
    RESTRICTED,
    Assignment,
    Authority,
    CaseAction,
    CaseKind,
    Context,
    GivenVerdict,
    Holds,
    NoHolds,
    Revealed,
    ReviewLedger,
    ReviewVerdict,
    actions_for,
)
from safehold.detect.review.permitted import permitted_example, write_permitted
from safehold.detect.review.tables import CASES, DECISIONS, ITEMS, METADATA, OPENS, VERDICTS
from safehold.errors import TrustError, UsageError
from safehold.guard.ledger.engine import told
from safehold.guard.ledger.interface import FinalRow, PromptRow
from safehold.guard.ledger.own_tables import open_tables

_WORST = 4
"""The end of the scale of severity."""
_TWO = 2
"""Verdicts that a case has before a third person is asked."""
_SATURDAY = 5
"""As `datetime.weekday` counts."""

LOCK_S = 900.0
_SEVERITY_S = 7 * 86_400.0
_HIGH = 3
_SECOND_OF = 10
_APPEAL_WORKING_DAYS = 5
_APPEALS_LOCK = 0x5AFE_A


class ReviewDesk:
    """Hands out items, takes verdicts and decisions; every call is one person's."""

    def __init__(
        self,
        url: str,
        *,
        evidence: ReviewLedger,
        leaves: LeafSink,
        authority: Authority,
        sampling_key: bytes,
        holds: Holds | None = None,
        examples: Path | None = None,
        clock: Callable[[], float] = time.time,
        make: bool = True,
    ) -> None:
        """Open the desk's database (path, SQLite or PostgreSQL URL) and make its tables.

        Without `make` they must be there.

        `sampling_key` decides, unforeseeably, which items get a second review. `holds` keeps a
        case's decisions in the ledger until the case is closed. An appeal that is overturned
        leaves its permitted example in the folder `examples`.

        Raises:
            LedgerError: the database can't be used.
        """
        self._engine = open_tables(url, METADATA, name="review", make=make)
        self._evidence, self._leaves, self._authority = evidence, leaves, authority
        self._key, self._clock = sampling_key, clock
        self._holds, self._examples = holds or NoHolds(), examples

    def open_case(
        self,
        kind: CaseKind,
        decision_ids: Sequence[str],
        *,
        severity: int,
        opened_by: str,
        account: str | None = None,
        gold: Mapping[str, ReviewVerdict] = MappingProxyType({}),
    ) -> int:
        """Open a case about these decisions and return its number; severity from 0 to 4.

        `gold` tells of which of them the answer is known; nobody who judges learns it.

        Raises:
            UsageError: there is no decision, or no such severity; or an appeal is about more than
                one decision, or about one that was appealed already.
        """
        decision_ids = tuple(dict.fromkeys(decision_ids))
        if not decision_ids or not 0 <= severity <= _WORST:
            raise UsageError("a case needs a decision and a severity from 0 to 4")
        if kind is CaseKind.APPEAL and len(decision_ids) > 1:
            raise UsageError(f"an appeal is about one decision, came {len(decision_ids)}")
        now = self._clock()
        case: dict[str, object] = {"kind": kind, "severity": severity, "account": account}
        due = _working_days_after(now, _APPEAL_WORKING_DAYS) if kind is CaseKind.APPEAL else None
        case |= {"opened_by": opened_by, "opened_at": now, "due_at": due, "state": "open"}
        with told(self._engine), self._engine.begin() as connection:
            if kind is CaseKind.APPEAL:
                _appealed_once(connection, decision_ids[0])
            made = connection.execute(insert(CASES).values(**case)).inserted_primary_key
            number = int(made[0]) if made else 0
            rows = [
                {
                    "case_id": number,
                    "decision_id": decision_id,
                    "needed": 2 if severity >= _HIGH or self._chosen(number, decision_id) else 1,
                    "gold": gold.get(decision_id),
                    "rank": now - severity * _SEVERITY_S,
                    "locked_by": "",
                    "locked_until": 0.0,
                }
                for decision_id in decision_ids
            ]
            connection.execute(insert(ITEMS), rows)
            # Held before the case exists for others: a case never stands without its evidence.
            self._holds.hold(decision_ids, case=number)
            return number

    def next(self, person: str) -> Assignment | None:
        """Give a person the first item that needs one more verdict, not theirs; None: no work.

        An appeal's item is given to nobody who judged or decided about the same block before.
        """
        now = self._clock()
        given = select(func.count()).where(VERDICTS.c.item == ITEMS.c.id).scalar_subquery()
        mine = select(VERDICTS.c.item).where(
            VERDICTS.c.item == ITEMS.c.id, VERDICTS.c.person == person
        )
        query = (
            select(ITEMS)
            .where(
                (ITEMS.c.locked_until < now)
                | (ITEMS.c.locked_until > now + 2 * LOCK_S)  # a clock was set back
                | (ITEMS.c.locked_by == person),
                given < ITEMS.c.needed,
                ~mine.exists(),
                _of_case(CASES.c.state == "open"),
                ~(_of_case(CASES.c.kind == CaseKind.APPEAL) & _knew(person)),
            )
            .order_by(ITEMS.c.rank, ITEMS.c.id)
            .limit(1)
        )
        if self._engine.dialect.name == "postgresql":
            query = query.with_for_update(skip_locked=True)
        with told(self._engine), self._engine.begin() as connection:
            item = connection.execute(query).one_or_none()
            # PostgreSQL counts verdicts as of when the query began. Whoever gave the last one
            # meanwhile is seen now that the row is ours: then there is nothing to judge in it.
            while item is not None and not self._wanted(connection, item.id):
                item = connection.execute(query.where(ITEMS.c.id != item.id)).one_or_none()
            if item is None:
                return None
            until = now + LOCK_S
            lock = update(ITEMS).where(ITEMS.c.id == item.id)
            connection.execute(lock.values(locked_by=person, locked_until=until))
            case = connection.execute(select(CASES).where(CASES.c.id == item.case_id)).one()
            kind = CaseKind(case.kind)
            return Assignment(item=item.id, case=case.id, kind=kind, locked_until=until)

    def keep(self, item: int, person: str) -> float:
        """Give a person another fifteen minutes with an item that is theirs; return its end.

        Raises:
            TrustError: the item is not theirs any more.
        """
        until = self._clock() + LOCK_S
        with told(self._engine), self._engine.begin() as connection:
            self._held(connection, item, person)
            connection.execute(update(ITEMS).where(ITEMS.c.id == item).values(locked_until=until))
        return until

    def give_back(self, item: int, person: str) -> None:
        """Free an item that a person does not want to judge.

        Raises:
            TrustError: the item is not theirs.
        """
        with told(self._engine), self._engine.begin() as connection:
            self._held(connection, item, person)
            _free(connection, item)

    def reveal(self, item: int, person: str, *, reason: str) -> Revealed:
        """Return the exchange's content, once its leaf is in the log.

        Raises:
            TrustError: the item is not theirs, no reason is given, or the log took no leaf.
        """
        if not reason.strip():
            raise TrustError("a reveal needs a reason: say in a few words why you look")
        now = self._clock()
        with told(self._engine), self._engine.begin() as connection:
            held = self._held(connection, item, person)
            look = {"item": item, "person": person, "opened_at": now, "reason": reason}
            connection.execute(insert(OPENS).values(**look))
            # The leaf comes before the first byte is read; a log that fails shows nothing.
            facts = {"person": person, "item": str(item), "case": str(held.case_id)}
            self._leaves.append("review-open", {**facts, "decision": _digest(held.decision_id)})
        rows = [entry.row for entry in self._evidence.decision(held.decision_id)]
        prompt = next((row for row in rows if isinstance(row, PromptRow)), None)
        final = next((row for row in rows if isinstance(row, FinalRow)), None)
        return Revealed(
            exchange=None if prompt is None else prompt.exchange,
            delivered=() if final is None else final.delivered,
        )

    def verdict(self, item: int, person: str, verdict: ReviewVerdict, *, note: str = "") -> None:
        """Take a person's verdict; it can't be given unseen and can't be changed.

        Raises:
            TrustError: the item is not theirs, or they have not looked at it.
        """
        now = self._clock()
        with told(self._engine), self._engine.begin() as connection:
            self._held(connection, item, person)
            looks = select(func.count()).where(OPENS.c.item == item, OPENS.c.person == person)
            if not connection.execute(looks).scalar_one():
                raise TrustError(f"item {item} was not revealed to {person}: look first")
            note_digest = _digest(note)
            facts = {"person": person, "item": str(item), "verdict": verdict.value}
            self._leaves.append("review-verdict", {**facts, "note": note_digest})
            given = {"item": item, "person": person, "verdict": verdict, "given_at": now}
            connection.execute(insert(VERDICTS).values(**given, note_digest=note_digest))
            _third(connection, item)
            _free(connection, item)

    def context(self, item: int, person: str) -> Context:
        """Return what scorers and other people said, to a person who has given a verdict.

        Raises:
            TrustError: they have not.
        """
        with told(self._engine), self._engine.begin() as connection:
            found = connection.execute(select(VERDICTS).where(VERDICTS.c.item == item)).all()
            if person not in {row.person for row in found}:
                raise TrustError(f"item {item}: give your own verdict first")
            query = select(ITEMS.c.decision_id).where(ITEMS.c.id == item)
            decision_id = connection.execute(query).scalar_one()
        rows = [entry.row for entry in self._evidence.decision(decision_id)]
        judged = [row for row in rows if isinstance(row, PromptRow | FinalRow)]
        return Context(
            score=max((row.score for row in judged if row.score is not None), default=None),
            clause=next((row.clause for row in judged if row.clause is not None), None),
            verdicts=tuple(
                GivenVerdict(person=row.person, verdict=ReviewVerdict(row.verdict)) for row in found
            ),
        )

    def decide(
        self,
        case: int,
        action: CaseAction,
        *,
        by: str,
        grant_id: str | None = None,
        consent: str = "",
    ) -> Path | None:
        """End a case with an action; return the permitted example that it left, where it left one.

        Stepping up and suspending need an item judged restricted by two people who agree, and a
        grant of others than them, which is spent. Overturning needs every verdict to say permitted.
        A training example needs the reference of the tenant's consent. The case's holds end then.

        Only a block is overturned or upheld. An appeal is decided by nobody who judged or decided
        about the block in another case, and it is overturned where every verdict says permitted.

        Raises:
            TrustError: items are unjudged, two people are needed, or grant or consent is missing;
                or an appeal's rules are broken.
            UsageError: there is no such open case, or nothing in it to overturn or uphold.
        """
        now = self._clock()
        with told(self._engine), self._engine.begin() as connection:
            found = select(CASES).where(CASES.c.id == case, CASES.c.state == "open")
            if self._engine.dialect.name == "postgresql":
                found = found.with_for_update()
            about = connection.execute(found).one_or_none()
            if about is None:
                raise UsageError(f"there is no open case {case}")
            if action is CaseAction.TRAINING_EXAMPLE and not consent.strip():
                raise TrustError("a training example needs the reference of the tenant's consent")
            judged = self._judged(connection, case)
            appeal = about.kind == CaseKind.APPEAL
            _about_blocks(connection, about, action, judged, by)
            if action in BY_TWO:
                _agreed(judged, action)
                if grant_id is None:
                    raise TrustError(f"{action} needs a grant: safehold grant request")
                judges = self._judges(connection, case)
                self._authority.spend(
                    action, case=case, account=about.account, grant_id=grant_id, judges=judges
                )
            elif any(len(given) < needed for needed, given in judged):
                raise TrustError(f"case {case}: items still need a verdict")
            elif action is CaseAction.OVERTURN:
                _permitted(judged)
            facts = {"person": by, "case": str(case), "action": action.value}
            self._leaves.append("case-close", facts | ({"consent": consent} if consent else {}))
            # Written while the case still holds its decision: afterwards it may be pruned.
            overturned = appeal and action is CaseAction.OVERTURN
            written = self._example(connection, case) if overturned else None
            row = {"case_id": case, "action": action, "decided_by": by, "decided_at": now}
            connection.execute(insert(DECISIONS).values(**row, grant_id=grant_id))
            closed = {"state": "closed", "outcome": action.value}
            connection.execute(update(CASES).where(CASES.c.id == case).values(**closed))
        self._holds.let_go(case=case)
        return written

    def _example(self, connection: Connection, case: int) -> Path | None:
        if self._examples is None:
            return None
        query = select(ITEMS.c.decision_id).where(ITEMS.c.case_id == case)
        decision_id = connection.execute(query).scalar_one()
        example = permitted_example(
            self._evidence.decision(decision_id), case=case, decision_id=decision_id
        )
        return None if example is None else write_permitted(self._examples, example)

    def appeal_state(self, case: int) -> dict[str, str]:
        """Return what a client may know of an appeal: open until when, or its outcome.

        Raises:
            UsageError: there is no such appeal.
        """
        query = select(CASES).where(CASES.c.id == case, CASES.c.kind == CaseKind.APPEAL)
        with told(self._engine), self._engine.begin() as connection:
            found = connection.execute(query).one_or_none()
        if found is None:
            raise UsageError(f"there is no appeal {case}")
        if found.state == "closed":
            return {"state": "answered", "outcome": found.outcome}
        return {"state": "open", "due": datetime.fromtimestamp(found.due_at, UTC).isoformat()}

    def _chosen(self, case: int, decision_id: str) -> bool:
        code = hmac.new(self._key, f"{case} {decision_id}".encode(), hashlib.sha256).digest()
        return int.from_bytes(code[:4]) % _SECOND_OF == 0

    def _wanted(self, connection: Connection, item: int) -> bool:
        query = select(ITEMS.c.needed).where(ITEMS.c.id == item)
        counted = select(func.count()).where(VERDICTS.c.item == item)
        given = connection.execute(counted).scalar_one()
        return bool(given < connection.execute(query).scalar_one())

    def _held(self, connection: Connection, item: int, person: str) -> "Row[tuple[object, ...]]":
        query = select(ITEMS).where(ITEMS.c.id == item)
        if self._engine.dialect.name == "postgresql":
            query = query.with_for_update()
        found = connection.execute(query).one_or_none()
        if found is None or found.locked_by != person or found.locked_until < self._clock():
            raise TrustError(f"item {item} is not {person}'s now: take it with next")
        state = select(CASES.c.state).where(CASES.c.id == found.case_id)
        if connection.execute(state).scalar_one() != "open":
            raise TrustError(f"case {found.case_id} is closed: it takes no verdict any more")
        return found

    def _judges(self, connection: Connection, case: int) -> frozenset[str]:
        query = (
            select(VERDICTS.c.person)
            .join_from(VERDICTS, ITEMS, VERDICTS.c.item == ITEMS.c.id)
            .where(ITEMS.c.case_id == case)
        )
        return frozenset(connection.execute(query).scalars())

    def _judged(self, connection: Connection, case: int) -> list[tuple[int, list[str]]]:
        items = connection.execute(select(ITEMS).where(ITEMS.c.case_id == case)).all()
        return [
            (
                item.needed,
                list(
                    connection.execute(
                        select(VERDICTS.c.verdict).where(VERDICTS.c.item == item.id)
                    ).scalars()
                ),
            )
            for item in items
        ]


def _agreed(judged: Sequence[tuple[int, list[str]]], action: CaseAction) -> None:
    if not any(len(given) > 1 and set(given) <= RESTRICTED for _, given in judged):
        raise TrustError(f"{action} needs an item that two people judged restricted")


def _about_blocks(
    connection: Connection,
    about: "Row[Any]",
    action: CaseAction,
    judged: Sequence[tuple[int, list[str]]],
    by: str,
) -> None:
    """Refuse what must not be done about a block.

    Raises:
        UsageError: there is no block in the case to overturn or uphold.
        TrustError: the person knew an appeal's block before, or the verdicts say otherwise.
    """
    if action not in actions_for(about.kind):
        raise UsageError(f"case {about.id} is about no block: there is nothing to {action}")
    if about.kind != CaseKind.APPEAL:
        return
    if _knew_any(connection, about.id, by):
        raise TrustError(
            f"{by} judged or decided about this block before: another person decides appeal "
            f"{about.id}"
        )
    unjudged = any(len(given) < needed for needed, given in judged)
    if not unjudged and _all_permitted(judged) and action is not CaseAction.OVERTURN:
        raise TrustError(f"every verdict on appeal {about.id} says permitted: overturn it")


def _of_case(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Say of an item's case whether a condition holds."""
    return select(CASES.c.id).where(CASES.c.id == ITEMS.c.case_id, condition).exists()


def _knew(person: str) -> ColumnElement[bool]:
    """Say of an item whether a person judged or decided about its block in another case."""
    other = ITEMS.alias("other")
    same = (other.c.decision_id == ITEMS.c.decision_id) & (other.c.case_id != ITEMS.c.case_id)
    judged = (
        select(VERDICTS.c.item)
        .join_from(VERDICTS, other, VERDICTS.c.item == other.c.id)
        .where(same, VERDICTS.c.person == person)
    )
    decided = (
        select(DECISIONS.c.id)
        .join_from(DECISIONS, other, DECISIONS.c.case_id == other.c.case_id)
        .where(same, DECISIONS.c.decided_by == person)
    )
    return judged.correlate(ITEMS).exists() | decided.correlate(ITEMS).exists()


def _knew_any(connection: Connection, case: int, person: str) -> bool:
    query = select(ITEMS.c.id).where(ITEMS.c.case_id == case, _knew(person)).limit(1)
    return connection.execute(query).first() is not None


def _appealed_once(connection: Connection, decision_id: str) -> None:
    """Refuse a second appeal of one decision, whoever opens it.

    Raises:
        UsageError: there is an appeal about it, open or closed.
    """
    if connection.dialect.name == "postgresql":  # SQLite's transactions wait for each other
        lock = text("SELECT pg_advisory_xact_lock(:kind, hashtext(:decision))")
        connection.execute(lock, {"kind": _APPEALS_LOCK, "decision": decision_id})
    query = (
        select(CASES.c.id, CASES.c.state)
        .join_from(CASES, ITEMS, ITEMS.c.case_id == CASES.c.id)
        .where(CASES.c.kind == CaseKind.APPEAL, ITEMS.c.decision_id == decision_id)
    )
    found = connection.execute(query).first()
    if found is not None:
        raise UsageError(f"{decision_id} is appealed already: case {found.id} is {found.state}")


def _all_permitted(judged: Sequence[tuple[int, list[str]]]) -> bool:
    return all(set(given) == {ReviewVerdict.PERMITTED.value} for _, given in judged)


def _permitted(judged: Sequence[tuple[int, list[str]]]) -> None:
    if not _all_permitted(judged):
        raise TrustError("overturning needs every verdict to say permitted")


def _third(connection: Connection, item: int) -> None:
    """Ask one person more where two disagree on whether something restricted was asked."""
    found = select(VERDICTS.c.verdict).where(VERDICTS.c.item == item)
    given = [verdict in RESTRICTED for verdict in connection.execute(found).scalars()]
    if len(given) == _TWO and given[0] != given[1]:
        connection.execute(update(ITEMS).where(ITEMS.c.id == item).values(needed=3))


def _free(connection: Connection, item: int) -> None:
    free = update(ITEMS).where(ITEMS.c.id == item)
    connection.execute(free.values(locked_by="", locked_until=0.0))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _working_days_after(now: float, days: int) -> float:
    moment = datetime.fromtimestamp(now, UTC)
    while days:
        moment += timedelta(days=1)
        days -= moment.weekday() < _SATURDAY
    return moment.timestamp()
