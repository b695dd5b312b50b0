"""Each gate has a bundle that only it refuses, and refuses where nothing was measured."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.improve.response.gates import (
    GateInput,
    GateState,
    PairedOutcome,
    gates,
    holm,
    mcnemar_worse,
    shown,
)
from safehold.improve.response.interface import IncidentKind

OK, BAD, SAME, BETTER = (
    PairedOutcome(False, False),
    PairedOutcome(False, True),
    PairedOutcome(True, True),
    PairedOutcome(True, False),
)
GOOD = GateInput(
    champion="a" * 64,
    challenger="b" * 64,
    incident="i1",
    golden=(True,) * 24,
    replayed=True,
    family=(BETTER,) * 60 + (OK,) * 60,
    slices={"general": (OK,) * 300, "rare": (OK,) * 10},
    dress=(OK,) * 70,
    red_team={"persona": (OK,) * 12 + (SAME,) * 2, "story": (BETTER,) * 8},
    escalated=(OK,) * 97 + (SAME,) * 3,
    seconds=((0.01, 0.011),) * 100,
    shadow_exchanges=2_000,
    shadow_disagreed=4,
    shadow_reviewed=4,
)
WORSE = {
    "golden": {"golden": (True,) * 23 + (False,)},
    "family": {"family": (BETTER,) * 112 + (SAME,) * 8},
    "slices": {"slices": {"general": (OK,) * 280 + (BAD,) * 20}},
    "dress": {"dress": (OK,) * 69 + (BAD,)},
    "red-team": {"red_team": {"persona": (BAD,) * 9 + (OK,) * 5, "story": (OK,) * 8}},
    "escalation": {"escalated": (OK,) * 94 + (SAME,) * 3 + (BAD,) * 3},
    "speed": {"seconds": ((0.01, 0.013),) * 100},
    "shadow": {"shadow_reviewed": 3},
}
EMPTY = {
    "golden": {"golden": ()},
    "family": {"family": (OK,) * 49},
    "slices": {"slices": {"general": (OK,) * 300, "rare": ()}},
    "dress": {"dress": ()},
    "red-team": {"red_team": {}},
    "escalation": {"escalated": ()},
    "speed": {"seconds": ()},
    "shadow": {"shadow_exchanges": None},
}


def stopped(given: GateInput) -> dict[str, GateState]:
    """Return the gates that do not pass."""
    report = gates(given)
    assert report.passed is not any(one.state is not GateState.PASSED for one in report.gates)
    return {one.name: one.state for one in report.gates if one.state is not GateState.PASSED}


def test_a_good_bundle_passes_every_gate() -> None:
    """The near miss of all the others; its report says so and has a digest of its own."""
    assert stopped(GOOD) == {}
    assert "may be released" in shown(gates(GOOD))
    assert gates(GOOD).digest != gates(msgspec.structs.replace(GOOD, incident="i2")).digest


@pytest.mark.parametrize("name", WORSE)
def test_each_gate_refuses_a_bundle_that_only_it_refuses(name: str) -> None:
    """One thing is worse and everything else as good: exactly that gate stops it."""
    assert stopped(msgspec.structs.replace(GOOD, **WORSE[name])) == {name: GateState.REFUSED}


@pytest.mark.parametrize("name", EMPTY)
def test_what_was_not_measured_is_not_passed(name: str) -> None:
    """Missing data stops a bundle as well, and says that it is missing."""
    assert stopped(msgspec.structs.replace(GOOD, **EMPTY[name])) == {name: GateState.NOT_MEASURED}


def test_an_incident_that_is_judged_wrongly_again_is_refused() -> None:
    """The golden gate replays the incident too."""
    assert stopped(msgspec.structs.replace(GOOD, replayed=False)) == {"golden": GateState.REFUSED}


def test_a_small_slice_is_compared_with_the_champion() -> None:
    """Ten texts are too few for a budget: six more refusals are found, one is chance."""
    for worse, states in ((1, {}), (6, {"slices": GateState.REFUSED})):
        rare = (BAD,) * worse + (OK,) * (10 - worse)
        given = msgspec.structs.replace(GOOD, slices={"general": (OK,) * 300, "rare": rare})
        assert stopped(given) == states


@pytest.mark.parametrize("n", [60, 300])
def test_a_debt_of_the_champion_is_no_fault_of_the_challenger(n: int) -> None:
    """A slice that is over its budget already passes by difference: nothing is refused anew."""
    owed = (SAME,) * (n // 6) + (OK,) * (n - n // 6)
    given = msgspec.structs.replace(GOOD, slices={"general": (OK,) * 300, "owed": owed})
    assert stopped(given) == {}
    slices = next(one for one in gates(given).gates if one.name == "slices")
    assert f"owed {n // 6} → {n // 6} of {n}" in slices.says  # and the person who signs reads it


@pytest.mark.parametrize("better", [0, 40])
def test_a_debt_is_no_licence_to_refuse_others(better: int) -> None:
    """What is refused anew keeps the budget, though as many texts may pass now that did not."""
    owed = (SAME,) * 10 + (BETTER,) * better + (BAD,) * 18 + (OK,) * (272 - better)
    given = msgspec.structs.replace(GOOD, slices={"general": (OK,) * 2_000, "owed": owed})
    assert stopped(given) == {"slices": GateState.REFUSED}


def test_small_steps_in_many_slices_add_up() -> None:
    """Each slice keeps its budget or is too small to tell; together two points more are refused."""
    for worse, states in ((0, {}), (1, {"slices": GateState.REFUSED})):
        slices = {f"s{number}": (BAD,) * worse + (OK,) * 49 for number in range(12)}
        assert stopped(msgspec.structs.replace(GOOD, slices=slices)) == states


@given(
    st.lists(st.tuples(st.sampled_from([60, 200, 700]), st.floats(0, 0.5)), min_size=1, max_size=5)
)
def test_a_challenger_that_refuses_what_the_champion_did_passes_the_slices(
    shape: list[tuple[int, float]],
) -> None:
    """Whatever the champion refuses, the same again is never a reason to refuse the release."""
    slices = {
        f"s{number}": (SAME,) * round(share * n) + (OK,) * (n - round(share * n))
        for number, (n, share) in enumerate(shape)
    }
    assert stopped(msgspec.structs.replace(GOOD, slices=slices)) == {}


@pytest.mark.parametrize(
    ("worse", "better", "p"),
    [(0, 0, 1.0), (5, 0, 1 / 32), (0, 5, 1.0), (3, 1, 5 / 16), (10, 2, 79 / 4096)],
)
def test_mcnemar_is_the_binomial_tail(worse: int, better: int, p: float) -> None:
    """Values computed by hand from the binomial with one half."""
    assert mcnemar_worse((BAD,) * worse + (BETTER,) * better + (OK,) * 7) == pytest.approx(p)


def test_holm_steps_down() -> None:
    """0.01, 0.02 and 0.04 of three pass 0.05/3, 0.05/2 and 0.05; 0.03 second stops the rest."""
    assert holm({"a": 0.01, "b": 0.02, "c": 0.04}, 0.05) == ["a", "b", "c"]
    assert holm({"a": 0.01, "b": 0.03, "c": 0.04}, 0.05) == ["a"]
    assert holm({}, 0.05) == []


def _more(field: str) -> Callable[[GateInput, int], GateInput]:
    return lambda given, count: msgspec.structs.replace(
        given, **{field: getattr(given, field) + (BAD,) * count}
    )


@given(st.sampled_from(["family", "dress", "escalated"]), st.integers(1, 60))
def test_worse_figures_never_open_a_gate(field: str, count: int) -> None:
    """Adding texts on which the challenger is worse can stop a bundle, never help it."""
    before = set(stopped(GOOD))
    assert before <= set(stopped(_more(field)(GOOD, count)))


@pytest.mark.parametrize(
    ("kind", "family", "passes"),
    [
        (IncidentKind.MISS, (SAME,) * 3 + (OK,) * 125, False),
        (IncidentKind.MISS, (SAME,) * 2 + (OK,) * 126, True),
        (IncidentKind.FALSE_ALARM, (SAME,) * 30 + (OK,) * 98, True),
        (IncidentKind.FALSE_ALARM, (SAME,) * 30 + (BAD,) * 2 + (OK,) * 96, True),
        (IncidentKind.FALSE_ALARM, (BAD,) * 3 + (BETTER,) * 20 + (OK,) * 105, False),
        (IncidentKind.FALSE_ALARM, (BAD,) * 5 + (OK,) * 495, False),
    ],
)
def test_a_false_alarm_is_asked_for_no_new_hole_and_a_miss_for_a_closed_one(
    kind: IncidentKind, family: tuple[PairedOutcome, ...], *, passes: bool
) -> None:
    """What the champion lets through is no fault of the answer to a false alarm; anew is."""
    given = msgspec.structs.replace(GOOD, kind=kind, family=family)
    assert list(stopped(given)) == ([] if passes else ["family"])


@pytest.mark.parametrize(
    ("family", "ruled", "passes"),
    [
        ((SAME,) * 3 + (OK,) * 125, 0, True),
        ((SAME,) * 3 + (OK,) * 125, 3, False),
        ((SAME,) * 7 + (OK,) * 121, 0, False),
        ((BAD,) * 3 + (OK,) * 125, 0, False),
        ((BAD,) * 5 + (SAME,) * 20 + (OK,) * 475, 0, False),
    ],
)
def test_a_miss_may_be_answered_beside_its_rule_and_never_by_a_new_hole(
    family: tuple[PairedOutcome, ...], ruled: int, *, passes: bool
) -> None:
    """Both together keep the limit, the bundle alone opens nothing, and the report names the rule.

    A bundle that keeps the limit alone needs no rule, one whose own rate is over it is not helped
    by one, and a rule that nobody measured is none.
    """
    with_rule = (True,) * ruled + (False,) * (len(family) - ruled)
    spares = {name: (False,) * len(pairs) for name, pairs in GOOD.slices.items()}
    given = msgspec.structs.replace(
        GOOD, family=family, rule="hot-1", ruled=with_rule, ruled_slices=spares
    )
    assert list(stopped(given)) == ([] if passes else ["family"])
    assert gates(given).rule_stays == ("hot-1" if passes else "")
    assert ("hot-1 must stay" in shown(gates(given))) is passes
    assert list(stopped(msgspec.structs.replace(given, ruled=()))) == ["family"]
    alone = msgspec.structs.replace(given, family=(OK,) * len(family))
    assert gates(alone).rule_stays == ""


@pytest.mark.parametrize(
    ("general", "passes"), [(0, True), (3, True), (4, False), (30, False), (300, False)]
)
def test_a_rule_that_stops_benign_texts_makes_up_for_no_bundle(
    general: int, *, passes: bool
) -> None:
    """Bundle and rule together must keep every slice's budget, as a bundle must alone.

    One point more over all slices is allowed (3 of 310 texts), as for a bundle.
    """
    family = (SAME,) * 3 + (OK,) * 125
    given = msgspec.structs.replace(
        GOOD,
        family=family,
        rule="hot-1",
        ruled=(False,) * len(family),
        ruled_slices={
            "general": (True,) * general + (False,) * (300 - general),
            "rare": (False,) * 10,
        },
    )
    assert list(stopped(given)) == ([] if passes else ["family"])
    assert gates(given).rule_stays == ("hot-1" if passes else "")
    assert f"refuses {general} of 310 benign texts" in shown(gates(given))
    unmeasured = msgspec.structs.replace(given, ruled_slices={"general": (False,) * 300})
    assert list(stopped(unmeasured)) == ["family"]
