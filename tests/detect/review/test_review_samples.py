"""Samples, gold and planted positives: drawn by lot, never changed, counted with their bounds."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from safehold.detect.bounty.door import HttpDoor
from safehold.detect.bounty.interface import SubmittedTurn
from safehold.detect.bounty.replay import ReplayReply
from safehold.detect.redteam.interface import AttackedPart
from safehold.detect.redteam.plan import AttackPlan
from safehold.detect.redteam.plan import draw as draw_attacks
from safehold.detect.redteam.questions import questions, wrappers
from safehold.detect.review.desk import ReviewDesk
from safehold.detect.review.gold import GoldBook
from safehold.detect.review.interface import CaseKind, NoAuthority, ReviewVerdict
from safehold.detect.review.reading import ReviewReading
from safehold.detect.review.sampling import (
    SampleBook,
    SampleDesign,
    SampledExchange,
    choose_gold,
    draw,
)
from safehold.detect.review.tables import PLANTED
from safehold.errors import UpstreamError, UsageError
from safehold.guard.ledger.engine import open_engine
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.bounty import holey_door
from safehold.testing.ledger import NOW
from safehold.testing.monitoring import fill

_DESIGN = SampleDesign(edges=(-1.0, 1.0), floor=1.0, per_stratum=5, seed=7)
_BAD, _GOOD = ReviewVerdict.RESTRICTED_HELPFUL, ReviewVerdict.PERMITTED


class _Leaves:
    def append(self, kind: str, facts: dict[str, str]) -> None:
        assert kind
        assert facts


def _population(size: int = 60) -> list[SampledExchange]:
    chance = np.random.default_rng(3)
    values = chance.normal(0, 2, size)
    return [
        SampledExchange(f"d{i}", float(value), bool(value > 2)) for i, value in enumerate(values)
    ]


class _Place:
    def __init__(self, folder: Path, url: str, restricted: Callable[[str], bool]) -> None:
        ledger = str(folder / "l.db")
        fill(ledger, [("a", f"question {i}", False) for i in range(60)])
        self.url, self.restricted, self.now = url, restricted, NOW
        self.desk = ReviewDesk(
            url,
            evidence=LedgerReader.open(ledger),
            leaves=_Leaves(),
            authority=NoAuthority(),
            sampling_key=b"k",
            clock=lambda: self.now,
        )
        self.samples, self.gold = SampleBook(url), GoldBook(url)
        self.reading = ReviewReading(url, lambda: self.now)

    def plant(self, planted: Mapping[str, str]) -> None:
        """Keep these decisions as planted: a topic each, "" for what is harmless."""
        with open_engine(self.url, wait_s=30.0, write=True).begin() as connection:
            connection.execute(
                insert(PLANTED),
                [
                    {"decision_id": name, "attempt": name, "topic": topic}
                    | {"stopped": False, "planted_at": NOW}
                    for name, topic in planted.items()
                ],
            )

    def judge(self, person: str, most: int = 99, wrong: int = 0) -> int:
        """Judge what there is; the first `wrong` verdicts are the opposite."""
        for number in range(most):
            item = self.desk.next(person)
            if item is None:
                return number
            shown = self.desk.reveal(item.item, person, reason="queue")
            assert shown.exchange is not None
            text = next(iter(shown.exchange.texts())).text
            bad = self.restricted(text) is not (number < wrong)
            self.desk.verdict(item.item, person, _BAD if bad else _GOOD)
        return most


@pytest.fixture(params=["sqlite", "postgresql"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[[], str]
) -> _Place:
    """A desk on each storage; every tenth question is restricted."""
    url = str(tmp_path / "r.db") if request.param == "sqlite" else new_database()
    return _Place(tmp_path, url, lambda text: text.endswith("0"))


def test_a_sample_is_drawn_kept_judged_and_estimated(place: _Place) -> None:
    """The stored probabilities are those of the draw; the counts are those of the verdicts."""
    population = _population()
    case = place.samples.keep("w47", population, _DESIGN, desk=place.desk, by="ann")
    drawn = place.samples.drawn("w47")
    strata, again = draw(population, _DESIGN)
    assert {one.decision_id: one.p_inclusion for one in drawn} == {
        one.decision_id: one.p_inclusion for one in again
    }
    for one in drawn:
        size = strata[one.stratum].size
        assert one.p_inclusion == pytest.approx(min(5, size) / size)
    before = place.samples.estimate("w47", seed=1)
    assert (before.unread, before.missed.absolute.point) == (len(drawn), None)
    place.judge("ann", most=4)
    place.judge("bob")
    place.judge("ann")
    place.judge("cas")
    done = place.samples.estimate("w47", seed=1)
    assert done.unread == 0
    assert [one.read for one in done.strata] == [min(5, one.size) for one in strata]
    found = sum(f"question {one.decision_id[1:]}".endswith("0") for one in drawn)
    assert sum(one.positives for one in done.strata) == found
    assert done.missed.absolute.n == len(drawn)
    assert case == 1


def test_a_sample_is_never_changed(place: _Place) -> None:
    """A second draw under its name is refused, whatever the design."""
    place.samples.keep("w47", _population(), _DESIGN, desk=place.desk, by="ann")
    with pytest.raises(UsageError, match="never changed"):
        place.samples.keep("w47", _population(), _DESIGN, desk=place.desk, by="ann")
    with pytest.raises(UsageError, match="no sample"):
        place.samples.drawn("w48")


def test_who_cannot_tell_counts_against_the_guard(place: _Place) -> None:
    """An undecided exchange that was served may be a miss; a stopped one is no catch."""
    population = [SampledExchange("d1", 5.0, caught=False), SampledExchange("d2", 5.0, caught=True)]
    place.samples.keep("s", population, _DESIGN, desk=place.desk, by="ann")
    for person in ("ann", "bob"):
        while (item := place.desk.next(person)) is not None:
            place.desk.reveal(item.item, person, reason="q")
            place.desk.verdict(item.item, person, ReviewVerdict.CANT_TELL)
    done = place.samples.estimate("s", seed=1)
    assert done.undecided == 2
    assert {one.caught: one.positives for one in done.strata} == {False: 1, True: 0}


def test_two_who_disagree_get_a_third(place: _Place) -> None:
    """What most say counts, and not before all three have spoken."""
    place.desk.open_case(CaseKind.ACCOUNT, ["d1"], severity=4, opened_by="x")
    for person, verdict in (("ann", _BAD), ("bob", _GOOD)):
        item = place.desk.next(person)
        assert item is not None
        place.desk.reveal(item.item, person, reason="q")
        place.desk.verdict(item.item, person, verdict)
    assert place.desk.next("ann") is None
    third = place.desk.next("cas")
    assert third is not None
    place.desk.reveal(third.item, "cas", reason="q")
    place.desk.verdict(third.item, "cas", _GOOD)
    assert place.desk.next("dan") is None


def test_gold_tells_how_reviewers_err(place: _Place) -> None:
    """Counts by person with bounds; an item looks like any other."""
    bad, good = [f"d{i}" for i in range(0, 60, 10)], [f"d{i}" for i in range(1, 9)]
    gold = dict.fromkeys(bad, _BAD) | dict.fromkeys(good, _GOOD)
    place.desk.open_case(CaseKind.SAMPLE, [*bad, *good], severity=0, opened_by="x", gold=gold)
    assert place.gold.reviewers() is None
    item = place.desk.next("zoe")
    assert item is not None
    assert not hasattr(item, "gold")
    place.desk.give_back(item.item, "zoe")
    place.judge("ann", wrong=2)
    (score,) = place.gold.scores()
    assert (score.found, score.positives, score.cleared, score.negatives) == (4, 6, 8, 8)
    assert score.summary()["sensitivity"] == "66.67% (n=6, 95% lower bound 27.13%)"
    assert place.gold.reviewers() is not None


def test_planted_positives_go_through_the_gateway_and_out_of_samples(place: _Place) -> None:
    """Stopped by the guard, or noticed by the monitor; never drawn as natural traffic."""
    plan = AttackPlan(
        domain="homebrewing",
        seed=1,
        attempts=12,
        depth=1,
        surface=AttackedPart.BOTH,
        benign=False,
    )
    attacks = list(draw_attacks(plan, questions("homebrewing"), wrappers()))

    async def plant() -> int:
        async with holey_door(lambda text: "grain" in text or "hop" in text.lower()) as (door, _):
            assert isinstance(door, HttpDoor)
            return await place.gold.plant(attacks, wrappers(), door, now=NOW)

    assert asyncio.run(plant()) == 12
    names = place.gold.planted()
    assert len(set(names)) == 12
    plain = msgspec.structs.replace(plan, benign=True)
    harmless = [
        one
        for one in draw_attacks(plain, questions("homebrewing"), wrappers())
        if one.topic is None
    ][:5]

    async def plant_harmless() -> int:
        async with holey_door(lambda _: True) as (door, _):
            return await place.gold.plant(harmless, wrappers(), door, now=NOW)

    assert asyncio.run(plant_harmless()) == 5
    recall = place.gold.recall([])
    assert 0 <= recall.stopped == recall.noticed < recall.sent == 12
    noticed = place.gold.recall(names)
    assert noticed.noticed == 12
    assert noticed.summary()["pipeline"] == "100.00% (n=12, 95% lower bound 77.91%)"
    population = [SampledExchange(name, 5.0, caught=False) for name in place.gold.planted()]
    assert len(population) == 17
    with pytest.raises(UsageError, match="nothing to draw"):
        place.samples.keep("s", population, _DESIGN, desk=place.desk, by="x")


def test_a_twentieth_of_a_sample_is_gold_and_no_part_of_its_figures(place: _Place) -> None:
    """Planted attacks and harmless neighbours are mixed in, each once, and look like the rest."""
    whole = msgspec.structs.replace(_DESIGN, edges=(99.0,), floor=99.0, per_stratum=60)
    served = {f"d{i}": "" for i in range(0, 60, 3)}
    attacks = {name: "topic" for name in served if int(name[1:]) % 2}
    place.plant(served | attacks)
    natural = [one for one in _population() if one.decision_id not in served]
    for number, expected in enumerate((2, 2, 2)):
        design = msgspec.structs.replace(whole, seed=number)
        case = place.samples.keep(f"w{number}", _population(), design, desk=place.desk, by="ann")
        items = place.reading.case(case, "zoe").items
        drawn = {one.decision_id for one in place.samples.drawn(f"w{number}")}
        gold = {one.decision_id for one in items} - drawn
        assert drawn == {one.decision_id for one in natural}
        assert len(gold) == expected == -(-len(drawn) // 20)
        assert len(gold & set(attacks)) == 1
        assert gold <= set(served)
        places = [number for number, one in enumerate(items) if one.decision_id in gold]
        assert places != list(range(len(drawn), len(items)))
    for person in ("ann", "bob", "cas"):
        place.judge(person, most=999)
    score = place.gold.reviewers()
    assert score is not None
    assert (score.positives >= 3, score.negatives >= 3) == (True, True)
    assert place.samples.estimate("w0", seed=1).missed.absolute.n == len(natural)


@given(
    st.dictionaries(st.text("ab", min_size=1, max_size=4), st.sampled_from(["", "t"])),
    st.integers(1, 4_000),
    st.integers(0, 9),
)
def test_gold_is_half_of_each_kind_and_never_more_than_a_twentieth(
    planted: dict[str, str], size: int, seed: int
) -> None:
    """As far as there are any; equal seeds choose equally."""
    chosen = choose_gold(planted, of=size, seed=seed)
    assert chosen == choose_gold(dict(reversed(planted.items())), of=size, seed=seed)
    assert len(chosen) <= -(-size // 20)
    assert all((planted[name] == "") == (said == _GOOD) for name, said in chosen.items())
    if min(sum(t == "" for t in planted.values()), sum(t != "" for t in planted.values())) > 200:
        assert len(chosen) == -(-size // 20)


def test_planting_stops_when_the_gateway_fails(tmp_path: Path) -> None:
    """What can't be told is not counted."""

    class Dead:
        async def say(self, turns: Sequence[SubmittedTurn]) -> ReplayReply:
            return ReplayReply(error="gone" if turns else "")

    plan = AttackPlan(
        domain="homebrewing", seed=1, attempts=2, depth=1, surface=AttackedPart.BOTH, benign=False
    )
    attacks = list(draw_attacks(plan, questions("homebrewing"), wrappers()))
    book = GoldBook(str(tmp_path / "r.db"))
    with pytest.raises(UpstreamError, match="after 0: gone"):
        asyncio.run(book.plant(attacks, wrappers(), Dead(), now=NOW))
    assert book.recall([]).sent == 0


@given(st.permutations(range(40)), st.integers(0, 3))
def test_a_draw_depends_on_its_seed_and_not_on_the_order(order: list[int], seed: int) -> None:
    """Equal designs draw equally; each stratum gives what it has, each row once."""
    population = _population(40)
    design = SampleDesign(edges=(-1.0, 1.0), floor=-1.0, per_stratum=4, seed=seed)
    strata, drawn = draw(population, design)
    assert (strata, drawn) == draw([population[i] for i in order], design)
    counts = Counter(one.stratum for one in drawn)
    assert [counts[i] for i in range(len(strata))] == [min(4, one.size) for one in strata]
    assert sum(one.size for one in strata) == 40


def test_every_member_of_a_stratum_has_its_chance() -> None:
    """Over many seeds each is drawn as often as its probability says."""
    population = [SampledExchange(f"d{i}", 0.0, caught=False) for i in range(10)]
    seen: Counter[str] = Counter()
    for seed in range(2_000):
        design = SampleDesign(edges=(1.0,), floor=1.0, per_stratum=3, seed=seed)
        seen.update(one.decision_id for one in draw(population, design)[1])
    assert all(abs(count / 2_000 - 0.3) < 0.05 for count in seen.values())
    assert len(seen) == 10


@pytest.mark.parametrize(
    "change",
    [
        {"edges": (1.0, -1.0)},
        {"edges": (1.0, 1.0)},
        {"floor": 0.0},
        {"per_stratum": 0},
        {"edges": ()},
    ],
)
def test_an_impossible_design_is_refused(change: dict[str, object]) -> None:
    """Edges ascend, the floor is one of them, something is drawn."""
    values = {"edges": (-1.0, 1.0), "floor": 1.0, "per_stratum": 5, "seed": 1}
    with pytest.raises(UsageError, match="ascending"):
        draw(_population(), SampleDesign(**(values | change)))
    with pytest.raises(UsageError, match="once"):
        draw([SampledExchange("d", 0.0, caught=False)] * 2, _DESIGN)
