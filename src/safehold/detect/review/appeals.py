"""Appeals: a client's way in, a date, an answer; never a score. An overturned block teaches.

A client names the decision id that the gateway gave it with the block. It gets a token, under which
it learns when an answer is due, and later the answer. Only a block can be appealed, and once.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from safehold.detect.review.desk import ReviewDesk
from safehold.detect.review.interface import CaseAction, CaseKind, ReviewLedger
from safehold.detect.review.permitted import permitted_example, write_permitted
from safehold.detect.review.tables import APPEALS, CASES, METADATA
from safehold.errors import DataError, TrustError, UsageError
from safehold.guard.ledger.engine import told
from safehold.guard.ledger.interface import FinalRow, LedgerVerdict, PromptRow
from safehold.guard.ledger.own_tables import open_tables

SEVERITY = 3
"""Two people judge an appeal."""
MOST_OPEN = 1_000
_DIED_S = 60.0


class Appealed(msgspec.Struct, frozen=True, kw_only=True):
    """What a client gets for an appeal: the token to ask with, and until when it is answered."""

    token: str
    due: str


class AppealBook:
    """Takes appeals and answers clients; people judge them at the review desk."""

    def __init__(
        self,
        url: str,
        *,
        desk: ReviewDesk,
        evidence: ReviewLedger,
        clock: Callable[[], float] = time.time,
        make: bool = True,
    ) -> None:
        """Open the desk's database for appeals.

        Without `make` its tables must be there.

        Raises:
            LedgerError: it can't be used.
        """
        self._engine = open_tables(url, METADATA, name="review", make=make)
        self._desk, self._evidence, self._clock = desk, evidence, clock

    def appeal(self, decision_id: str) -> Appealed:
        """Open a case for a blocked decision.

        Raises:
            UsageError: no such block is known (one answer for what never was, was not blocked, or
                is pruned), it is appealed already, or too many appeals are open.
        """
        rows = [entry.row for entry in self._evidence.decision(decision_id)]
        if not any(_blocked(row) for row in rows):
            raise UsageError("no block with this decision id is known")
        token = secrets.token_urlsafe(24)
        named = hashlib.sha256(token.encode()).hexdigest()
        account = next((row.key_id for row in rows if isinstance(row, PromptRow)), None)
        with told(self._engine), self._engine.begin() as connection:
            waiting = select(func.count()).where(
                CASES.c.kind == CaseKind.APPEAL, CASES.c.state == "open"
            )
            if connection.execute(waiting).scalar_one() >= MOST_OPEN:
                raise UsageError("too many appeals are open; try again tomorrow")
            # The decision's row is the lock: of two equal appeals one gets a case. A row without a
            # case is of a process that died in between; after a minute it gives way.
            now = self._clock()
            dead = (APPEALS.c.case_id == 0) & (APPEALS.c.asked_at < now - _DIED_S)
            mine = APPEALS.c.decision_id == decision_id
            connection.execute(delete(APPEALS).where(mine, dead))
            row = {"decision_id": decision_id, "token": named, "case_id": 0, "asked_at": now}
            try:
                with connection.begin_nested():
                    connection.execute(insert(APPEALS).values(**row))
            except IntegrityError:
                raise UsageError("this decision is appealed already") from None
        case = self._desk.open_case(
            CaseKind.APPEAL, [decision_id], severity=SEVERITY, opened_by="client", account=account
        )
        with told(self._engine), self._engine.begin() as connection:
            connection.execute(update(APPEALS).where(mine).values(case_id=case))
        return Appealed(token=token, due=self._desk.appeal_state(case)["due"])

    def state(self, token: str) -> dict[str, str]:
        """Return what a client may know: open and until when, or answered and how.

        Raises:
            UsageError: nobody was given this token.
        """
        named = hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
        query = select(APPEALS.c.case_id).where(APPEALS.c.token == named)
        with told(self._engine), self._engine.begin() as connection:
            case = connection.execute(query).scalar()
        if not case:
            raise UsageError("no appeal with this token is known")
        told_state = self._desk.appeal_state(case)
        if told_state.get("outcome") not in {None, CaseAction.OVERTURN}:
            return {"state": "answered", "outcome": CaseAction.UPHOLD.value}
        return told_state

    def permit(self, case: int, folder: Path) -> Path:
        """Write the permitted example of an overturned appeal and return its path.

        Raises:
            TrustError: the case is no appeal that was overturned.
            DataError: the ledger no longer holds the prompt.
        """
        query = select(CASES, APPEALS.c.decision_id).join_from(
            CASES, APPEALS, APPEALS.c.case_id == CASES.c.id
        )
        with told(self._engine), self._engine.begin() as connection:
            found = connection.execute(query.where(CASES.c.id == case)).one_or_none()
        if found is None or found.outcome != CaseAction.OVERTURN:
            raise TrustError(f"case {case} is no appeal that was overturned")
        example = permitted_example(
            self._evidence.decision(found.decision_id), case=case, decision_id=found.decision_id
        )
        if example is None:
            raise DataError(f"case {case}: the ledger no longer holds the prompt")
        return write_permitted(folder, example)


def _blocked(row: object) -> bool:
    return isinstance(row, PromptRow | FinalRow) and row.verdict is LedgerVerdict.BLOCK
