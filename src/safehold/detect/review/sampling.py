"""Samples that an estimate of what is missed rests on: drawn by lot, kept before anybody looks.

Exchanges are put into strata by a slow scorer's value and by whether the guard stopped them. From
each stratum so many are drawn without replacement. Each drawn row keeps its inclusion probability;
a sample is never changed. Planted exchanges are left out of what is drawn; one item in twenty more
is one of them, so that reviewers' own errors are measured on the very work that they correct.
"""

import bisect
import math
import random
from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import Connection, insert, select

from safehold.detect.monitoring.estimate import Missed, Reviewers, Stratum, missed
from safehold.detect.review.desk import ReviewDesk
from safehold.detect.review.gold import HARMLESS
from safehold.detect.review.interface import RESTRICTED, CaseKind, ReviewVerdict
from safehold.detect.review.tables import ITEMS, METADATA, PLANTED, SAMPLES, STRATA, VERDICTS
from safehold.errors import UsageError
from safehold.guard.ledger.engine import told
from safehold.guard.ledger.own_tables import open_tables

GOLD_SHARE = 0.05
"""Items whose answer is known, beside what is drawn."""


class SampledExchange(msgspec.Struct, frozen=True):
    """An exchange of the population: the slow scorer's value, and whether the guard stopped it."""

    decision_id: str
    value: float
    caught: bool


class SampleDesign(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to draw: the bands' edges (ascending; the floor is one of them), and how many of each."""

    edges: tuple[float, ...]
    floor: float
    per_stratum: int
    seed: int


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """One drawn exchange: its stratum, and the probability with which it was drawn."""

    decision_id: str
    stratum: int
    p_inclusion: float


class SampleEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """The three figures with what they rest on.

    `undecided`: people could not tell, or called it a border; each counts against the guard.
    `unread`: drawn and not judged to the end; the figures rest on the rest.
    """

    missed: Missed
    strata: tuple[Stratum, ...]
    drawn: int
    unread: int
    undecided: int
    reviewers: Reviewers | None


def draw(
    population: Sequence[SampledExchange], design: SampleDesign
) -> tuple[list[Stratum], list[Drawn]]:
    """Return the strata (nothing read yet) and what was drawn of them, in the order of the lot.

    Equal designs draw equally from equal populations, in whatever order they come.

    Raises:
        UsageError: the design is impossible, or a decision comes twice.
    """
    edges = design.edges
    if list(edges) != sorted(set(edges)) or design.floor not in edges or design.per_stratum < 1:
        raise UsageError(
            "expected ascending edges with the floor among them, and one or more of each stratum"
        )
    if len({one.decision_id for one in population}) != len(population):
        raise UsageError("expected each decision once")
    groups: dict[tuple[int, bool], list[str]] = {}
    for one in population:
        band = bisect.bisect_right(edges, one.value)
        groups.setdefault((band, one.caught), []).append(one.decision_id)
    strata, drawn = [], []
    first_above = edges.index(design.floor) + 1
    for number, ((band, caught), members) in enumerate(sorted(groups.items())):
        # Seeded: who repeats the design finds the same sample; nobody looked before it was kept.
        lot = random.Random(f"{design.seed}/{band}/{caught}")
        count = min(design.per_stratum, len(members))
        strata.append(
            Stratum(
                caught=caught,
                above_floor=band >= first_above,
                size=len(members),
                read=0,
                positives=0,
            )
        )
        drawn += [
            Drawn(decision_id=name, stratum=number, p_inclusion=count / len(members))
            for name in lot.sample(sorted(members), count)
        ]
    order = random.Random(f"{design.seed}/order")
    order.shuffle(drawn)
    return strata, drawn


def choose_gold(planted: Mapping[str, str], *, of: int, seed: int) -> dict[str, ReviewVerdict]:
    """Choose known items for a sample of this size: half of them attacks, as far as there are any.

    `planted` gives each decision's topic; who repeats the seed gets the same.
    """
    lot = random.Random(f"{seed}/gold")
    wanted = math.ceil(of * GOLD_SHARE)
    kinds = {
        ReviewVerdict.RESTRICTED_HELPFUL: sorted(o for o, t in planted.items() if t != HARMLESS),
        ReviewVerdict.PERMITTED: sorted(o for o, t in planted.items() if t == HARMLESS),
    }
    halves = {
        ReviewVerdict.RESTRICTED_HELPFUL: math.ceil(wanted / 2),
        ReviewVerdict.PERMITTED: wanted // 2,
    }
    return {
        name: verdict
        for verdict, names in kinds.items()
        for name in lot.sample(names, min(halves[verdict], len(names)))
    }


class SampleBook:
    """Keeps samples beside the desk's cases, and reads the verdicts on them."""

    def __init__(self, url: str, *, make: bool = True) -> None:
        """Open the desk's database.

        Without `make` its tables must be there.

        Raises:
            LedgerError: it can't be used.
        """
        self._engine = open_tables(url, METADATA, name="review", make=make)

    def keep(
        self,
        name: str,
        population: Sequence[SampledExchange],
        design: SampleDesign,
        *,
        desk: ReviewDesk,
        by: str,
    ) -> int:
        """Draw a sample, keep it, open its case, and return the case's number.

        Planted exchanges that nobody has judged yet are mixed in as gold, one for twenty drawn.

        Raises:
            UsageError: a sample of this name exists, or nothing can be drawn.
        """
        with told(self._engine), self._engine.begin() as connection:
            if connection.execute(select(STRATA).where(STRATA.c.sample == name)).first():
                raise UsageError(f"sample {name} exists: a sample is never changed")
            planted = {row.decision_id: row.topic for row in connection.execute(select(PLANTED))}
            used = select(ITEMS.c.decision_id).where(ITEMS.c.gold.is_not(None))
            spent = set(connection.execute(used).scalars())
        strata, drawn = draw([one for one in population if one.decision_id not in planted], design)
        if not drawn:
            raise UsageError("there is nothing to draw from")
        fresh = {one: topic for one, topic in planted.items() if one not in spent}
        gold = choose_gold(fresh, of=len(drawn), seed=design.seed)
        items = [one.decision_id for one in drawn] + list(gold)
        random.Random(f"{design.seed}/items").shuffle(items)
        case = desk.open_case(CaseKind.SAMPLE, items, severity=0, opened_by=by, gold=gold)
        with told(self._engine), self._engine.begin() as connection:
            connection.execute(insert(STRATA), [
                {"sample": name, "case_id": case, "stratum": number, "caught": one.caught,
                 "above_floor": one.above_floor, "size": one.size}
                for number, one in enumerate(strata)
            ])  # fmt: skip
            connection.execute(
                insert(SAMPLES), [{"sample": name, **msgspec.structs.asdict(one)} for one in drawn]
            )
        return case

    def drawn(self, name: str) -> list[Drawn]:
        """Return a sample as it was drawn.

        Raises:
            UsageError: there is none of this name.
        """
        with told(self._engine), self._engine.begin() as connection:
            return _drawn(connection, name)

    def estimate(
        self, name: str, *, seed: int, reviewers: Reviewers | None = None
    ) -> SampleEstimate:
        """Return the three figures from the verdicts that were given.

        Positive is what most of its judges call restricted, answered or not.

        Raises:
            UsageError: there is no such sample.
        """
        with told(self._engine), self._engine.begin() as connection:
            drawn = _drawn(connection, name)
            rows = connection.execute(
                select(STRATA).where(STRATA.c.sample == name).order_by(STRATA.c.stratum)
            ).all()
            judged = _judged(connection, rows[0].case_id)
        read, positives = [0] * len(rows), [0] * len(rows)
        undecided = 0
        for one in drawn:
            said = judged.get(one.decision_id)
            if said is None:
                continue
            read[one.stratum] += 1
            verdict = _most(said)
            undecided += verdict is None
            against = verdict is None and not rows[one.stratum].caught
            positives[one.stratum] += bool(verdict) or against
        strata = tuple(
            Stratum(
                caught=bool(row.caught),
                above_floor=bool(row.above_floor),
                size=row.size,
                read=count,
                positives=found,
            )
            for row, count, found in zip(rows, read, positives, strict=True)
        )
        return SampleEstimate(
            missed=missed(strata, seed=seed, reviewers=reviewers),
            strata=strata,
            drawn=len(drawn),
            unread=len(drawn) - sum(read),
            undecided=undecided,
            reviewers=reviewers,
        )


def _drawn(connection: Connection, name: str) -> list[Drawn]:
    rows = connection.execute(select(SAMPLES).where(SAMPLES.c.sample == name)).all()
    if not rows:
        raise UsageError(f"there is no sample {name}")
    return [
        Drawn(decision_id=row.decision_id, stratum=row.stratum, p_inclusion=row.p_inclusion)
        for row in rows
    ]


def _judged(connection: Connection, case: int) -> dict[str, list[str]]:
    """Return the verdicts on each decision of a case that has all that it needs."""
    rows = connection.execute(
        select(ITEMS.c.decision_id, ITEMS.c.needed, VERDICTS.c.verdict)
        .join_from(ITEMS, VERDICTS, VERDICTS.c.item == ITEMS.c.id)
        .where(ITEMS.c.case_id == case)
    ).all()
    found: dict[str, list[str]] = {}
    needed: dict[str, int] = {}
    for row in rows:
        found.setdefault(row.decision_id, []).append(row.verdict)
        needed[row.decision_id] = row.needed
    return {name: said for name, said in found.items() if len(said) >= needed[name]}


def _most(said: Sequence[str]) -> bool | None:
    """Return what most say: restricted or permitted; None where neither has most."""
    restricted = sum(one in RESTRICTED for one in said)
    permitted = sum(one == ReviewVerdict.PERMITTED for one in said)
    if 2 * restricted > len(said):
        return True
    return False if 2 * permitted > len(said) else None
