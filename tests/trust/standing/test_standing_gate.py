"""Standards: rule-outs, acts of several persons, expiry, and the gate over random histories."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.govern.standards.library import load_standards
from safehold.trust.standing.gate import GateAllowed, GatedAction, GateRefused, gate, standing_of
from safehold.trust.standing.interface import (
    Activation,
    Adjustment,
    CapabilityThreshold,
    Deactivation,
    Determination,
    DeterminationStatus,
    Elicitation,
    EvaluationPlan,
    EvaluationRun,
    SafeguardStandard,
    StandardKind,
    StandardsDocument,
    StandingRecord,
)
from safehold.trust.standing.rule_out import least_items, rate_bound, shortfalls
from safehold.trust.standing.state import StandingStatus, in_force, threshold_status

DAY = 86_400
BIG, SMALL = "a" * 64, "b" * 64
TWO = ("ada", "bob")
THREE = ("ada", "bob", "cyd")
FULL = Elicitation("fine-tuned, best of 10", 40, ("search",), guard_off=True)
LEVEL_3, LEVEL_4 = "uplift-basic", "uplift-state"


def document() -> StandardsDocument:
    """Return a document of two thresholds and two standards above a baseline."""
    return StandardsDocument(
        id="test",
        version="1",
        title="t",
        source="s",
        effective=0,
        thresholds=(
            CapabilityThreshold(LEVEL_3, "home-brewing", "t", 0.25, ("level-3",)),
            CapabilityThreshold(LEVEL_4, "home-brewing", "t", 0.25, ("level-4",)),
        ),
        standards=(
            SafeguardStandard("level-2", StandardKind.BOTH, "t", ()),
            SafeguardStandard("level-3", StandardKind.BOTH, "t", (), ("guard-on", "egress")),
            SafeguardStandard("level-4", StandardKind.BOTH, "t", (), ("air-gap",)),
        ),
        baseline=("level-2",),
    )


def plan(index: int, threshold: str, **changes: Any) -> EvaluationPlan:
    """Return a plan of one suite."""
    made = EvaluationPlan(index, index, f"plan-{threshold}", threshold, ("tasks",), 0.2, 20)
    return msgspec.structs.replace(made, **changes)


def run(index: int, model: str, threshold: str, **changes: Any) -> EvaluationRun:
    """Return a run of 60 items without a success."""
    made = EvaluationRun(
        index, index, f"plan-{threshold}", "tasks", model, index, 60, 0, 0, 0, 1e24, FULL,
        "c" * 64, 1000 * DAY,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def decide(
    index: int, model: str, threshold: str, status: str, *basis: int, **changes: Any
) -> Determination:
    """Return a determination by three persons."""
    made = Determination(
        index, index, model, threshold, DeterminationStatus(status), basis, "r", 500 * DAY, THREE
    )
    return msgspec.structs.replace(made, **changes)


def activate(index: int, standard: str, **changes: Any) -> Activation:
    """Return an activation as a precaution, provisionally, by two persons."""
    made = Activation(
        index, index, standard, precautionary=True, provisional=True, rationale="r", approvers=TWO
    )
    return msgspec.structs.replace(made, **changes)


def ruled_out() -> list[StandingRecord]:
    """Return a sound rule-out of the lower threshold for the big model."""
    return [plan(1, LEVEL_3), run(2, BIG, LEVEL_3), decide(3, BIG, LEVEL_3, "ruled_out", 2)]


def status_of(
    records: list[StandingRecord], *, at: int = 100, compute: float = 1e24
) -> StandingStatus:
    """Return the big model's status at the lower threshold."""
    threshold = document().thresholds[0]
    return threshold_status(
        document(), records, threshold, model=BIG, compute=compute, at=at
    ).status


def asked(
    records: list[StandingRecord], model: str = BIG, *, at: int = 100, **controls: int
) -> GateAllowed | GateRefused:
    """Ask the gate to serve a model."""
    held = {
        "guard-on": 10**9,
        "egress": 10**9,
        **{k.replace("_", "-"): v for k, v in controls.items()},
    }
    return gate(
        document(), records, GatedAction.SERVE, model=model, compute=1e24, at=at, controls=held
    )


@pytest.mark.parametrize("action", [GatedAction.LOAD, GatedAction.EXPORT])
def test_weights_wait_for_security_and_serving_waits_for_both(action: GatedAction) -> None:
    """A standard of deployment alone binds who serves; one of security, or both, binds all."""
    records = [activate(1, "level-2")]
    for kind, waits in (
        (StandardKind.DEPLOYMENT, False),
        (StandardKind.SECURITY, True),
        (StandardKind.BOTH, True),
    ):
        there = document()
        first, second, third = there.standards
        kinds = (first, msgspec.structs.replace(second, kind=kind), third)
        there = msgspec.structs.replace(there, standards=kinds, thresholds=there.thresholds[:1])
        answers = {
            one: gate(there, records, one, model=BIG, compute=1e24, at=100, controls={})
            for one in (action, GatedAction.SERVE)
        }
        assert isinstance(answers[action], GateRefused) is waits, kind
        assert isinstance(answers[GatedAction.SERVE], GateRefused), kind


def test_sound_evaluation_rules_out() -> None:
    """A run without a success, planned before, by three persons, rules a threshold out."""
    assert status_of(ruled_out()) is StandingStatus.RULED_OUT


@pytest.mark.parametrize(
    ("at", "change"),
    [
        (0, {"index": 2, "time": 2}),
        (0, {"below": 0.9}),
        (1, {"started": 1}),
        (1, {"items": 19}),
        (1, {"successes": 8}),
        (1, {"unscorable": 8}),
        (1, {"errors": 8}),
        (1, {"model": SMALL}),
        (1, {"suite": "other"}),
        (1, {"plan": "other"}),
        (1, {"elicitation": msgspec.structs.replace(FULL, guard_off=False)}),
        (2, {"approvers": TWO}),
        (2, {"approvers": ("ada", "ada", "bob")}),
        (2, {"basis": ()}),
        (2, {"basis": (9,)}),
        (2, {"index": 1}),
    ],
)
def test_unsound_rule_out_is_no_rule_out(at: int, change: dict[str, Any]) -> None:
    """A plan after its runs, a weak run, too few persons or a foreign basis rules nothing out."""
    records = ruled_out()
    records[at] = msgspec.structs.replace(records[at], **change)
    if at == 0 and "index" in change:
        records[1] = msgspec.structs.replace(records[1], index=1, time=1)
    assert status_of(records) is not StandingStatus.RULED_OUT


def test_repeated_run_that_fails_counts() -> None:
    """Nobody repeats a run until it pleases: a worse run of the plan, before or after, counts."""
    worse = run(4, BIG, LEVEL_3, successes=20)
    before = [
        *ruled_out()[:2],
        msgspec.structs.replace(worse, index=3),
        decide(4, BIG, LEVEL_3, "ruled_out", 2),
    ]
    assert status_of(before) is StandingStatus.NOT_ASSESSED
    assert status_of([*ruled_out(), worse]) is StandingStatus.EXPIRED
    fine = run(4, BIG, LEVEL_3, successes=1)
    assert status_of([*ruled_out(), fine]) is StandingStatus.RULED_OUT


def test_plan_of_a_known_name_amends_nothing() -> None:
    """A second plan of the same name can't make a failed run pass."""
    records = [
        plan(1, LEVEL_3),
        plan(2, LEVEL_3, below=0.25, least_items=1),
        run(3, BIG, LEVEL_3, successes=7),
        decide(4, BIG, LEVEL_3, "ruled_out", 3),
    ]
    assert status_of(records) is StandingStatus.NOT_ASSESSED


def test_rule_out_ends_by_time_compute_and_plan() -> None:
    """A rule-out ends exactly at its review, at four times the compute, and by a newer plan."""
    records = ruled_out()
    assert status_of(records, at=500 * DAY - 1) is StandingStatus.RULED_OUT
    assert status_of(records, at=500 * DAY) is StandingStatus.EXPIRED
    assert status_of(records, compute=3.9e24) is StandingStatus.RULED_OUT
    assert status_of(records, compute=4e24) is StandingStatus.EXPIRED
    newer = plan(7, LEVEL_3, id="newer", supersedes=f"plan-{LEVEL_3}")
    assert status_of([*records, newer]) is StandingStatus.EXPIRED


def test_passed_stays_until_a_later_plan() -> None:
    """Passed is not undone by an older plan's runs nor by a milder word."""
    passed = decide(4, BIG, LEVEL_3, "passed", approvers=TWO)
    records = [*ruled_out(), passed]
    assert status_of(records) is StandingStatus.PASSED
    assert (
        status_of([*records, decide(5, BIG, LEVEL_3, "cannot_rule_out")]) is StandingStatus.PASSED
    )
    assert status_of([*records, decide(5, BIG, LEVEL_3, "ruled_out", 2)]) is StandingStatus.PASSED
    later = [
        plan(5, LEVEL_3, id="later"),
        run(6, BIG, LEVEL_3, plan="later"),
        decide(7, BIG, LEVEL_3, "ruled_out", 6),
    ]
    assert status_of([*records, *later]) is StandingStatus.RULED_OUT


def test_golden_case_of_the_published_post() -> None:
    """Cannot rule out, activated as a precaution and provisionally; later ruled out and ended."""
    records: list[StandingRecord] = [
        plan(1, LEVEL_3),
        plan(2, LEVEL_4),
        run(3, BIG, LEVEL_3, successes=9),
        run(4, BIG, LEVEL_4),
        run(5, SMALL, LEVEL_3),
        run(6, SMALL, LEVEL_4),
        decide(7, BIG, LEVEL_3, "cannot_rule_out", 3, approvers=TWO),
        decide(8, BIG, LEVEL_4, "ruled_out", 4),
        decide(9, SMALL, LEVEL_3, "ruled_out", 5),
        decide(10, SMALL, LEVEL_4, "ruled_out", 6),
        activate(11, "level-2"),
    ]
    assert isinstance(asked(records, SMALL), GateAllowed)
    refused = asked(records)
    assert isinstance(refused, GateRefused)
    assert refused.reasons == (
        "level-3 is required (uplift-basic: cannot rule out) and not active",
    )
    records.append(activate(12, "level-3"))
    allowed = asked(records)
    assert isinstance(allowed, GateAllowed)
    force = next(one for one in allowed.standards if one.standard == "level-3")
    assert (force.precautionary, force.provisional) == (True, True)
    assert standing_of(document(), records, model=BIG, compute=1e24, at=100).required == (
        "level-2",
        "level-3",
    )
    # A control fails, and is taken out of the standard by three persons.
    assert isinstance(asked(records, egress=50), GateRefused)
    adjusted = Adjustment(13, 13, "level-3", ("egress",), "r", THREE)
    assert isinstance(asked([*records, adjusted], egress=50), GateAllowed)
    # Later evidence rules the threshold out, and the standard ends.
    later: list[StandingRecord] = [
        plan(14, LEVEL_3, id="second", supersedes=f"plan-{LEVEL_3}"),
        run(15, BIG, LEVEL_3, plan="second"),
        decide(16, BIG, LEVEL_3, "ruled_out", 15),
        Deactivation(17, 17, "level-3", "r", THREE),
    ]
    assert isinstance(asked([*records, *later]), GateAllowed)
    # Under another name that supersedes nothing, the first plan's runs still count.
    escaped = [plan(14, LEVEL_3, id="second"), *later[1:]]
    assert isinstance(asked([*records, *escaped]), GateRefused)
    assert in_force([*records, *later], "level-3", at=100) is None


def test_two_persons_do_not_deactivate() -> None:
    """Activation takes two persons, taking away takes three; one person does nothing."""
    records: list[StandingRecord] = [activate(1, "level-3")]
    ended = Deactivation(2, 2, "level-3", "r", TWO)
    assert in_force([*records, ended], "level-3", at=9) is not None
    assert in_force([activate(1, "level-3", approvers=("ada", "ada"))], "level-3", at=9) is None
    adjusted = Adjustment(2, 2, "level-3", ("egress",), "r", TWO)
    force = in_force([*records, adjusted], "level-3", at=9)
    assert force is not None
    assert force.without == frozenset()


def _random_history(rng: random.Random) -> list[StandingRecord]:
    records: list[StandingRecord] = []
    for index in range(1, rng.randint(2, 12)):
        threshold = rng.choice((LEVEL_3, LEVEL_4))
        model = rng.choice((BIG, SMALL))
        persons = rng.choice((("ada",), TWO, THREE))
        at = max(0, index + rng.choice((-3, 0, 0, 0, 2)))
        review = rng.choice((5, 20, 500))
        k, ends = rng.choice((0, 0, 3, 30)), rng.choice((6, 500))
        word, basis = rng.choice(list(DeterminationStatus)), rng.sample(range(1, 13), 2)
        more = {"approvers": persons, "next_review": review}
        made: list[StandingRecord] = [
            plan(index, threshold, time=at),
            run(index, model, threshold, successes=k, started=at, expires=ends),
            decide(index, model, threshold, word, *basis, **more),
            decide(index, model, threshold, "ruled_out", max(1, index - 1), **more),
            activate(index, rng.choice(("level-2", "level-3", "level-4")), approvers=persons),
            Deactivation(index, at, rng.choice(("level-2", "level-3")), "r", persons),
        ]
        records.append(rng.choice(made))
    return records


def _oracle(records: list[StandingRecord], threshold: str, at: int) -> bool:
    """Whether a determination can rule a threshold out: a second, plainer writing of the rule."""
    plans = [r for r in records if isinstance(r, EvaluationPlan) and r.threshold == threshold]
    runs = {r.index: r for r in records if isinstance(r, EvaluationRun) and r.model == BIG}
    for one in records:
        if not isinstance(one, Determination) or one.status != "ruled_out":
            continue
        mine = one.model == BIG and one.threshold == threshold and one.time <= at
        if not mine or at >= one.next_review or len(set(one.approvers)) < 3:
            continue
        for index in one.basis:
            found = runs.get(index)
            if found is None or found.index > one.index or found.successes >= 30:
                continue
            first = any(p.index < found.index and p.time < found.started for p in plans)
            if first and found.plan == f"plan-{threshold}" and at < found.expires:
                return True
    return False


def _active(records: list[StandingRecord], standard: str, at: int) -> bool:
    ons = [r for r in records if isinstance(r, Activation) and r.standard == standard]
    return any(len(set(on.approvers)) >= 2 and on.time <= at for on in ons)


@pytest.mark.parametrize("seed", range(4))
def test_random_histories_never_open_the_gate(seed: int) -> None:
    """In 25,000 histories a seed, nothing unruled passes the gate without its standard."""
    rng = random.Random(seed)
    opened = 0
    for _ in range(25_000):
        records = _random_history(rng)
        at = rng.randint(0, 30)
        verdict = asked(records, at=at, air_gap=10**9)
        if isinstance(verdict, GateRefused):
            continue
        opened += 1
        assert _active(records, "level-2", at)
        for threshold, standard in ((LEVEL_3, "level-3"), (LEVEL_4, "level-4")):
            assert _oracle(records, threshold, at) or _active(records, standard, at)
    assert opened > 0


@given(st.integers(1, 200), st.floats(0.01, 0.6), st.randoms())
def test_bound_is_never_below_the_rate(n: int, rate: float, rng: random.Random) -> None:
    """The bound of a suite lies above the rate that was seen, and grows with the suites."""
    seen = sum(rng.random() < rate for _ in range(n))
    one = plan(1, LEVEL_3)
    two = plan(1, LEVEL_3, suites=("tasks", "more"))
    made = run(2, BIG, LEVEL_3, items=n, successes=seen)
    assert seen / n <= rate_bound(one, made) <= rate_bound(two, made)


def test_bound_covers_in_simulation() -> None:
    """In 2,000 simulated evaluations at the limit, at most one in twenty rules out wrongly."""
    rng = random.Random(7)
    fixed = plan(1, LEVEL_3)
    wrong = 0
    for _ in range(2000):
        successes = sum(rng.random() < fixed.below for _ in range(60))
        wrong += not shortfalls(fixed, run(2, BIG, LEVEL_3, started=2, successes=successes))
    assert 0 < wrong <= 100


def test_least_items() -> None:
    """Fifty-nine items without a success are the least that show a rate below 5 %."""
    assert least_items(0.05, 0.95) == 59


@pytest.mark.parametrize("name", ["rsp", "preparedness", "frontier-safety"])
def test_stock_documents_load(name: str) -> None:
    """Each stock document loads, and every threshold demands standards that it defines."""
    there = load_standards(name)
    known = {one.id for one in there.standards}
    assert {need for one in there.thresholds for need in one.requires} | set(
        there.baseline
    ) <= known
