"""The bounty book: what came in, how far it is, who did what, and what is due.

1. What comes in is kept sealed; opening it takes triage's key, a reason, and a leaf in the log.
2. A state is changed only along the table of states, each step with a leaf before it.
3. Reproduced means that a replay cleared a question; the incident and the regression test are
   written before the state says so.
4. Who rated a submission does not pay it.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from safehold.canonical import canonical
from safehold.detect.bounty.duplicates import Likeness, Prints, likenesses, prints
from safehold.detect.bounty.interface import (
    NEXT,
    Band,
    BountyProgramme,
    BountyState,
    FixCheck,
    FrozenQuestions,
    Submission,
)
from safehold.detect.bounty.programme import programme_digest
from safehold.detect.bounty.proof import write_proof
from safehold.detect.bounty.replay import Universality, fix_check
from safehold.detect.bounty.sealing import SealedSubmission, opened, read_sealed, read_submission
from safehold.detect.bounty.severity import Rating, rate
from safehold.detect.bounty.tables import (
    EVENTS,
    METADATA,
    REPLAYS,
    STEPS_OF_TABLES,
    SUBMISSIONS,
    TERMS,
)
from safehold.detect.leaf_sink import LeafSink
from safehold.errors import ConfigError, DataError, TrustError, UsageError
from safehold.guard.ledger.engine import told
from safehold.guard.ledger.own_tables import open_tables

_DAY_S = 86_400.0
_REPRODUCED = frozenset(
    {
        BountyState.REPRODUCED,
        BountyState.RATED,
        BountyState.FIX_LINKED,
        BountyState.FIX_VERIFIED,
        BountyState.DISCLOSED,
    }
)
_ENDED = frozenset({BountyState.REJECTED, BountyState.DUPLICATE})


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """One promise of the programme: what, until when (epoch seconds), and when it was kept."""

    what: str
    until: float
    kept_at: float | None
    overdue: bool


class BountyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A submission as everybody in the team may see it: no content, no submitter."""

    id: int
    received_at: float
    state: BountyState
    duplicate_of: int | None
    rating: Rating | None
    fix: str | None
    fix_check: str | None
    paid: bool
    due: tuple[Due, ...]


class BountyBook:
    """Keeps submissions in a database (path, SQLite or PostgreSQL URL)."""

    def __init__(
        self,
        url: str,
        *,
        programme: BountyProgramme,
        leaves: LeafSink,
        clock: Callable[[], float] = time.time,
        make: bool = True,
    ) -> None:
        """Open the book and make its tables; without `make` they must be there.

        Raises:
            LedgerError: the database can't be used.
        """
        self._engine = open_tables(url, METADATA, name="bounty", steps=STEPS_OF_TABLES, make=make)
        self._programme, self._terms = programme, programme_digest(programme)
        self._others: dict[str, BountyProgramme] = {}
        self._leaves, self._clock = leaves, clock

    def receive(self, data: bytes) -> int:
        """Keep a sealed submission and return its number.

        Raises:
            DataError: it is no envelope for these terms, or the same one is here already.
            ConfigError: the programme was changed and has no new version, or is an older one.
        """
        read_sealed(data, to=self._programme.triage_key, programme=self._terms)
        digest = hashlib.sha256(data).hexdigest()
        values = {"received_at": self._clock(), "programme": self._terms, "sealed": data}
        with told(self._engine), self._engine.begin() as connection:
            self._keep_terms(connection)
            same = select(SUBMISSIONS.c.id).where(SUBMISSIONS.c.digest == digest)
            try:
                with connection.begin_nested():
                    made = connection.execute(
                        insert(SUBMISSIONS).values(**values, digest=digest, state=BountyState.NEW)
                    ).inserted_primary_key
            except IntegrityError:
                number = connection.execute(same).scalar_one()
                raise DataError(f"this submission is here already, as {number}") from None
            return int(made[0]) if made else 0

    def terms(self, number: int) -> BountyProgramme:
        """Return the programme under which something was submitted; later ones change nothing.

        Raises:
            UsageError: there is no submission of this number.
            TrustError: it is another programme than the one at hand, and was not kept.
        """
        with told(self._engine), self._engine.begin() as connection:
            return self._terms_of(connection, _found(connection, number))

    def _terms_of(self, connection: Connection, row: "Row[Any]") -> BountyProgramme:
        found = self._kept_terms(connection, row.programme)
        if found is None:
            raise TrustError(
                f"submission {row.id} was sent under the terms {row.programme[:12]}, this "
                f"programme's are {self._terms[:12]}: give the programme's file of then"
            )
        return found

    def _kept_terms(self, connection: Connection, digest: str) -> BountyProgramme | None:
        if digest == self._terms:
            return self._programme
        if digest not in self._others:
            query = select(TERMS.c.content).where(TERMS.c.digest == digest)
            kept = connection.execute(query).scalar()
            if kept is None:
                return None
            self._others[digest] = msgspec.json.decode(kept, type=BountyProgramme)
        return self._others[digest]

    def _keep_terms(self, connection: Connection) -> None:
        """Keep the programme beside the first submission under it."""
        version = self._programme.version
        kept = {
            row.digest: row.version
            for row in connection.execute(select(TERMS.c.digest, TERMS.c.version))
        }
        newest = max(kept.values(), default=0)
        if version < newest:
            raise ConfigError(
                f"programme version {version}: version {newest} is in force, under which "
                "something was submitted"
            )
        if self._terms in kept:
            return
        if version == newest:
            raise ConfigError(
                f"programme version {version} was changed, and something was submitted under it: "
                "give the changed terms a new version; what is here keeps its own"
            )
        row = {"digest": self._terms, "version": version}
        content = canonical(self._programme).decode()
        try:
            with connection.begin_nested():
                connection.execute(insert(TERMS).values(**row, content=content))
        except IntegrityError:  # somebody else's submission came at the same moment
            self._keep_terms(connection)

    def entries(self) -> list[BountyEntry]:
        """Return all submissions, oldest first."""
        with told(self._engine), self._engine.begin() as connection:
            rows = connection.execute(select(SUBMISSIONS).order_by(SUBMISSIONS.c.id)).all()
            return [self._entry(connection, row) for row in rows]

    def entry(self, number: int) -> BountyEntry:
        """Return one submission.

        Raises:
            UsageError: there is none of this number.
        """
        with told(self._engine), self._engine.begin() as connection:
            return self._entry(connection, _found(connection, number))

    def history(self, number: int) -> list[dict[str, object]]:
        """Return who did what, oldest first."""
        query = select(EVENTS).where(EVENTS.c.submission == number).order_by(EVENTS.c.id)
        with told(self._engine), self._engine.begin() as connection:
            return [
                {"at": row.happened_at, "by": row.person, "what": row.what, "detail": row.detail}
                for row in connection.execute(query)
            ]

    def reports(self, number: int) -> list[Universality]:
        """Return the replays of a submission, oldest first."""
        query = select(REPLAYS.c.report).where(REPLAYS.c.submission == number)
        with told(self._engine), self._engine.begin() as connection:
            found = connection.execute(query.order_by(REPLAYS.c.id)).scalars()
            return [msgspec.json.decode(one, type=Universality) for one in found]

    def open(
        self,
        number: int,
        person: str,
        *,
        reason: str,
        key: X25519PrivateKey,
        questions: FrozenQuestions,
    ) -> tuple[Submission, list[Likeness]]:
        """Return what was submitted, and earlier submissions like it, once a leaf is in the log.

        Raises:
            TrustError: no reason is given, the log took no leaf, or the key does not open it.
            DataError: what was sealed is no submission; it is rejected with the reason.
        """
        if not reason.strip():
            raise TrustError("opening needs a reason: say in a few words why you look")
        with told(self._engine), self._engine.begin() as connection:
            row = _found(connection, number, lock=True)
            facts = {"person": person, "item": f"bounty-{number}", "case": f"bounty-{number}"}
            self._leaves.append("review-open", {**facts, "decision": row.digest})
            _tell(connection, number, self._clock(), person, "opened", reason)
            sealed = msgspec.json.decode(row.sealed, type=SealedSubmission)
            data = opened(sealed, key)
            state = BountyState(row.state)
            if state is BountyState.NEW:
                self._move(connection, row, BountyState.TRIAGE, person, triaged_at=self._clock())
                row = _found(connection, number)
            try:
                submission, wrong = read_submission(data), ""
            except DataError as error:
                submission, wrong = None, str(error)
                if state in {BountyState.NEW, BountyState.TRIAGE}:
                    self._move(connection, row, BountyState.REJECTED, person, detail=wrong)
            if submission is not None:
                mine = prints(submission, questions, key)
                alike = self._alike(connection, number, mine)
                kept = {"prints": msgspec.json.encode(mine)}
                where = SUBMISSIONS.c.id == number
                connection.execute(update(SUBMISSIONS).where(where).values(**kept))
                return submission, alike
        raise DataError(f"submission {number} is rejected: {wrong}")

    def sealed(self, number: int) -> SealedSubmission:
        """Return the envelope of a submission."""
        with told(self._engine), self._engine.begin() as connection:
            return msgspec.json.decode(_found(connection, number).sealed, type=SealedSubmission)

    def reject(self, number: int, person: str, *, why: str) -> None:
        """End a submission that is none: out of scope, not understood, or not reproduced."""
        with told(self._engine), self._engine.begin() as connection:
            row = _found(connection, number, lock=True)
            self._move(connection, row, BountyState.REJECTED, person, detail=why)

    def duplicate(self, number: int, person: str, *, of: int) -> None:
        """Say that a submission is another one's duplicate: the first full reproduction wins.

        Raises:
            TrustError: the other one is itself, or was not reproduced.
        """
        with told(self._engine), self._engine.begin() as connection:
            row = _found(connection, number, lock=True)
            first = _found(connection, of)
            if of == number or BountyState(first.state) not in _REPRODUCED:
                raise TrustError(f"{number} can be a duplicate only of one that was reproduced")
            self._move(
                connection, row, BountyState.DUPLICATE, person, detail=f"of {of}", duplicate_of=of
            )

    def replayed(
        self,
        number: int,
        person: str,
        report: Universality,
        *,
        submission: Submission,
        mended: Path,
    ) -> BountyState:
        """Take a replay; `mended` is the folder that gets the incident and the regression test.

        Raises:
            TrustError: nothing can be told: every run failed, or the submission is not in triage.
        """
        if report.errors == sum(len(one.facts) + one.errors for one in report.scores):
            raise TrustError("the replay says nothing: every run failed")
        cleared = any(one.cleared for one in report.scores)
        state = BountyState.REPRODUCED if cleared else BountyState.NOT_REPRODUCED
        with told(self._engine), self._engine.begin() as connection:
            row = _found(connection, number, lock=True)
            now, terms = self._clock(), self._terms_of(connection, row)
            values = {"happened_at": now, "person": person, "report": msgspec.json.encode(report)}
            connection.execute(insert(REPLAYS).values(submission=number, **values))
            if state is BountyState(row.state):
                return state
            if state not in NEXT[BountyState(row.state)]:
                raise TrustError(f"submission {number} is {row.state}: open it first")
            if cleared:
                write_proof(
                    mended,
                    f"bounty-{number}",
                    submission=submission,
                    sealed=msgspec.json.decode(row.sealed, type=SealedSubmission),
                    report=report,
                    questions=terms.questions,
                    mark=terms.pass_mark,
                    clean_chat=terms.clean_chat,
                    now=now,
                )
            self._move(connection, row, state, person, detail=report.cleared.at_least())
        return state

    def rated(
        self,
        number: int,
        person: str,
        *,
        submission: Submission,
        gain: float,
        discoverability: float,
        raised_to: Band | None = None,
    ) -> Rating:
        """Rate a reproduced submission by its last replay that cleared a question.

        Raises:
            TrustError: it is not reproduced.
            UsageError: an axis is out of range.
        """
        reports = [
            one for one in self.reports(number) if any(score.cleared for score in one.scores)
        ]
        if not reports:
            raise TrustError(f"submission {number} is not reproduced")
        rating = rate(
            submission,
            reports[-1],
            self.terms(number),
            gain=gain,
            discoverability=discoverability,
            raised_to=raised_to,
        )
        with told(self._engine), self._engine.begin() as connection:
            row = _found(connection, number, lock=True)
            kept = {"rating": msgspec.json.encode(rating), "rated_by": person}
            self._move(
                connection,
                row,
                BountyState.RATED,
                person,
                detail=rating.band,
                rated_at=self._clock(),
                **kept,
            )
        return rating

    def link_fix(self, number: int, person: str, *, fix: str) -> None:
        """Name the bundle or rules file (its digest) that shall mend it."""
        with told(self._engine), self._engine.begin() as connection:
            row = _found(connection, number, lock=True)
            self._move(
                connection, row, BountyState.FIX_LINKED, person, detail=fix, fix=fix, fix_check=None
            )

    def check_fix(self, number: int, person: str, report: Universality) -> tuple[FixCheck, str]:
        """Say by a replay whether the linked fix works; only `yes` moves the state.

        Raises:
            TrustError: no fix is linked.
        """
        before = [one for one in self.reports(number) if any(score.cleared for score in one.scores)]
        with told(self._engine), self._engine.begin() as connection:
            row = _found(connection, number, lock=True)
            if row.fix is None or not before:
                raise TrustError(f"submission {number}: link a fix first")
            values = {"happened_at": self._clock(), "person": person}
            kept = msgspec.json.encode(report)
            connection.execute(insert(REPLAYS).values(submission=number, report=kept, **values))
            if report.bundle == row.fix:
                mark = self._terms_of(connection, row).pass_mark
                found, why = fix_check(before[0], report, mark=mark)
            else:
                found, why = FixCheck.BLOCKED, "another bundle than the linked fix was asked"
            where = SUBMISSIONS.c.id == number
            connection.execute(update(SUBMISSIONS).where(where).values(fix_check=found.value))
            if found is FixCheck.YES:
                self._move(connection, row, BountyState.FIX_VERIFIED, person, detail=why)
            else:
                _tell(connection, number, self._clock(), person, f"fix {found}", why)
        return found, why

    def pay(self, number: int, person: str) -> int:
        """Record the payment of the rated amount and return it.

        Raises:
            TrustError: it is not rated, is paid, or the same person rated it.
        """
        with told(self._engine), self._engine.begin() as connection:
            row = _found(connection, number, lock=True)
            if row.rating is None or BountyState(row.state) in _ENDED:
                raise TrustError(f"submission {number} is not rated")
            if row.paid_at is not None:
                raise TrustError(f"submission {number} is paid already")
            if row.rated_by == person:
                raise TrustError(f"{person} rated submission {number}: another person pays it")
            amount = msgspec.json.decode(row.rating, type=Rating).amount
            now = self._clock()
            self._leaf(row, "paid", person)
            where = SUBMISSIONS.c.id == number
            connection.execute(update(SUBMISSIONS).where(where).values(paid_at=now, paid_by=person))
            currency = self._terms_of(connection, row).currency
            _tell(connection, number, now, person, "paid", f"{amount} {currency}")
        return amount

    def disclose(self, number: int, person: str) -> None:
        """Record the disclosure: once the fix is verified, or when the embargo has ended.

        Raises:
            TrustError: neither is so, or it is not paid.
        """
        now = self._clock()
        with told(self._engine), self._engine.begin() as connection:
            row = _found(connection, number, lock=True)
            days = self._terms_of(connection, row).clocks.disclose_days
            ends = row.received_at + days * _DAY_S
            if row.state != BountyState.FIX_VERIFIED and now < ends:
                raise TrustError(f"submission {number} is under embargo: no fix is verified yet")
            if row.paid_at is None:
                raise TrustError(f"submission {number} is not paid yet")
            self._move(connection, row, BountyState.DISCLOSED, person, disclosed_at=now)

    def _entry(self, connection: Connection, row: "Row[Any]") -> BountyEntry:
        return BountyEntry(
            id=row.id,
            received_at=row.received_at,
            state=BountyState(row.state),
            duplicate_of=row.duplicate_of,
            rating=None if row.rating is None else msgspec.json.decode(row.rating, type=Rating),
            fix=row.fix,
            fix_check=row.fix_check,
            paid=row.paid_at is not None,
            due=tuple(self._dues(row, self._kept_terms(connection, row.programme))),
        )

    def _dues(self, row: "Row[Any]", terms: BountyProgramme | None) -> list[Due]:
        """Return the promises about a submission that is not ended, by its own terms.

        Where an earlier release kept none of them, today's stand for them: none is left out.
        """
        clocks, now = (terms or self._programme).clocks, self._clock()
        promised = [("triage", row.received_at, clocks.triage_days, row.triaged_at)]
        if BountyState(row.state) not in _ENDED:
            if row.rated_at is not None:
                promised.append(("pay", row.rated_at, clocks.pay_days, row.paid_at))
            if BountyState(row.state) in _REPRODUCED:
                days = clocks.disclose_days
                promised.append(("disclose", row.received_at, days, row.disclosed_at))
        return [
            Due(
                what=what,
                until=since + days * _DAY_S,
                kept_at=kept,
                overdue=(now if kept is None else kept) > since + days * _DAY_S,
            )
            for what, since, days, kept in promised
        ]

    def _alike(self, connection: Connection, number: int, mine: Prints) -> list[Likeness]:
        query = select(SUBMISSIONS.c.id, SUBMISSIONS.c.prints).where(
            SUBMISSIONS.c.prints.is_not(None), SUBMISSIONS.c.id != number
        )
        earlier = [
            (row.id, msgspec.json.decode(row.prints, type=Prints))
            for row in connection.execute(query)
        ]
        return likenesses(mine, earlier)

    def _move(
        self,
        connection: Connection,
        row: "Row[Any]",
        state: BountyState,
        person: str,
        *,
        detail: str = "",
        **columns: object,
    ) -> None:
        """Change the state along the table, after its leaf."""
        before = BountyState(row.state)
        if state not in NEXT[before]:
            ways = ", ".join(sorted(NEXT[before])) or "nowhere: it has ended"
            raise TrustError(f"submission {row.id} is {before}; from there it goes to {ways}")
        self._leaf(row, state.value, person)
        where = SUBMISSIONS.c.id == row.id
        connection.execute(update(SUBMISSIONS).where(where).values(state=state.value, **columns))
        _tell(connection, row.id, self._clock(), person, state.value, detail)

    def _leaf(self, row: "Row[Any]", state: str, person: str) -> None:
        facts = {"person": person, "submission": str(row.id), "state": state}
        self._leaves.append("bounty-state", {**facts, "decision": row.digest})


def _found(connection: Connection, number: int, *, lock: bool = False) -> "Row[Any]":
    query = select(SUBMISSIONS).where(SUBMISSIONS.c.id == number)
    if lock and connection.dialect.name == "postgresql":
        query = query.with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UsageError(f"there is no submission {number}")
    return row


def _tell(
    connection: Connection, number: int, at: float, person: str, what: str, detail: str
) -> None:
    values = {"submission": number, "happened_at": at, "person": person}
    connection.execute(insert(EVENTS).values(**values, what=what, detail=detail))
