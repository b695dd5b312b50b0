"""Items whose answer is known: how good reviewers are, and what the whole pipeline notices.

Known positives, and harmless neighbours of them, are sent through the real gateway as the use case
`planted`, and kept by decision id. Reviewers get some of them unmarked, as gold: one item in twenty
of each drawn sample.
"""

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import insert, select

from safehold.detect.bounty.interface import SubmittedTurn
from safehold.detect.bounty.replay import Door
from safehold.detect.monitoring.estimate import Reviewers
from safehold.detect.redteam.interface import Attempt, Wrapper
from safehold.detect.redteam.plan import rendered
from safehold.detect.redteam.transforms import survives
from safehold.detect.review.interface import RESTRICTED, ReviewVerdict
from safehold.detect.review.tables import ITEMS, METADATA, PLANTED, VERDICTS
from safehold.errors import UpstreamError
from safehold.exchange import Role
from safehold.guard.ledger.engine import told
from safehold.guard.ledger.own_tables import open_tables
from safehold.stats import Rate

HARMLESS = ""
"""Stands for the topic of an attempt that is no attack."""


class GoldScore(msgspec.Struct, frozen=True, kw_only=True):
    """One person's verdicts on gold items, or everybody's: counts, never a single item."""

    person: str
    found: int
    positives: int
    cleared: int
    negatives: int

    def summary(self) -> dict[str, object]:
        """Return both rates with n and their exact lower bounds."""
        return {
            "person": self.person,
            "sensitivity": Rate(self.found, self.positives).at_least(),
            "specificity": Rate(self.cleared, self.negatives).at_least(),
        }


class PlantedRecall(msgspec.Struct, frozen=True, kw_only=True):
    """Of the known positives that were sent: how many the guard stopped, how many were noticed.

    Noticed: stopped, or flagged by the monitor's scanner.
    """

    sent: int
    stopped: int
    noticed: int

    def summary(self) -> dict[str, object]:
        """Return both rates with n and their exact lower bounds."""
        return {
            "guard": Rate(self.stopped, self.sent).at_least(),
            "pipeline": Rate(self.noticed, self.sent).at_least(),
        }


class GoldBook:
    """Keeps planted exchanges and scores reviewers, in the desk's database."""

    def __init__(self, url: str, *, make: bool = True) -> None:
        """Open the desk's database.

        Without `make` its tables must be there.

        Raises:
            LedgerError: it can't be used.
        """
        self._engine = open_tables(url, METADATA, name="review", make=make)

    async def plant(
        self, attempts: Sequence[Attempt], wrappers: tuple[Wrapper, ...], door: Door, *, now: float
    ) -> int:
        """Send attempts through a gateway, keep which decisions they became, count them.

        Attempts with a topic are known positives, those without are known to be harmless. A
        transform that destroys its question makes neither: it is left out.

        Raises:
            UpstreamError: the gateway failed, or named no decision.
        """
        sent = 0
        for one in attempts:
            if not survives(one.question, one.chain):
                continue
            text = "\n".join(part.text for part in rendered(one, wrappers).texts(Role.USER))
            said = await door.say((SubmittedTurn(role="user", text=text),))
            if said.error or not said.decision_id:
                raise UpstreamError(
                    f"planting stopped after {sent}: {said.error or 'no decision id came'}"
                )
            row = {
                "decision_id": said.decision_id,
                "attempt": one.id,
                "topic": one.topic or HARMLESS,
            }
            with told(self._engine), self._engine.begin() as connection:
                connection.execute(
                    insert(PLANTED).values(**row, stopped=said.stopped, planted_at=now)
                )
            sent += 1
        return sent

    def planted(self) -> list[str]:
        """Return the decisions that were planted, oldest first."""
        query = select(PLANTED.c.decision_id).order_by(PLANTED.c.planted_at, PLANTED.c.attempt)
        with told(self._engine), self._engine.begin() as connection:
            return list(connection.execute(query).scalars())

    def recall(self, flagged: Collection[str]) -> PlantedRecall:
        """Return what became of the planted exchanges; `flagged` decisions the monitor marked."""
        with told(self._engine), self._engine.begin() as connection:
            query = select(PLANTED.c.decision_id, PLANTED.c.stopped)
            rows = connection.execute(query.where(PLANTED.c.topic != HARMLESS)).all()
        marked = set(flagged)
        return PlantedRecall(
            sent=len(rows),
            stopped=sum(bool(row.stopped) for row in rows),
            noticed=sum(bool(row.stopped) or row.decision_id in marked for row in rows),
        )

    def scores(self) -> list[GoldScore]:
        """Return each reviewer's score on gold items, by name."""
        query = (
            select(VERDICTS.c.person, VERDICTS.c.verdict, ITEMS.c.gold)
            .join_from(VERDICTS, ITEMS, VERDICTS.c.item == ITEMS.c.id)
            .where(ITEMS.c.gold.is_not(None))
        )
        with told(self._engine), self._engine.begin() as connection:
            rows = connection.execute(query).all()
        people = sorted({row.person for row in rows})
        return [
            _scored(name, [(row.gold, row.verdict) for row in rows if row.person == name])
            for name in people
        ]

    def reviewers(self) -> Reviewers | None:
        """Return all reviewers' errors together, for an estimate; None where none is measured."""
        scores = self.scores()
        total = Reviewers(
            found=sum(one.found for one in scores),
            positives=sum(one.positives for one in scores),
            cleared=sum(one.cleared for one in scores),
            negatives=sum(one.negatives for one in scores),
        )
        return total if total.positives and total.negatives else None


def _scored(person: str, pairs: Sequence[tuple[str, str]]) -> GoldScore:
    positives = [said for gold, said in pairs if gold in RESTRICTED]
    negatives = [said for gold, said in pairs if gold == ReviewVerdict.PERMITTED]
    return GoldScore(
        person=person,
        found=sum(said in RESTRICTED for said in positives),
        positives=len(positives),
        cleared=sum(said == ReviewVerdict.PERMITTED for said in negatives),
        negatives=len(negatives),
    )
