"""A challenger with more false alarms is rolled back in time; one without is left alone."""

import random
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.guard.gateway.bundles.rollback_evidence import (
    RollbackEvidence,
    RollbackRules,
    rollback_chance,
    until_rollback,
)

RULES = RollbackRules()
MOST = 2_000


def alarms(seed: int, *, champion: float, rise: float, apart: bool) -> Iterator[tuple[bool, bool]]:
    """Yield both bundles' false alarms: the champion's are the challenger's too, or all apart."""
    rng = random.Random(f"{seed}/{champion}/{rise}/{apart}")
    for _ in range(MOST):
        theirs = rng.random() < champion
        yield theirs, (rng.random() < champion if apart else theirs) or rng.random() < rise


@pytest.mark.parametrize("theirs", [0.0, 0.001])
def test_a_rise_from_one_to_five_in_a_thousand_is_rolled_back_in_time(theirs: float) -> None:
    """Within 2,000 exchanges with a chance of 95 % or more: all alarms in common, or none."""
    assert rollback_chance(theirs + 0.004, theirs, MOST, RULES) >= 0.95


@pytest.mark.parametrize("theirs", [0.0, 0.0001, 0.0005, 0.001])
def test_without_a_rise_hardly_any_is_rolled_back(theirs: float) -> None:
    """With a chance of 5 % at most, whatever the two have in common."""
    assert rollback_chance(theirs, theirs, MOST, RULES) <= 0.05


def test_a_small_rise_among_common_alarms_is_left_alone() -> None:
    """A third of the champion's rate more is no reason to go back."""
    assert rollback_chance(0.0003, 0.0, MOST, RULES) <= 0.05


@pytest.mark.parametrize("apart", [False, True])
def test_the_seeds_agree_with_the_recursion(*, apart: bool) -> None:
    """Of 200 played trials as many are rolled back as the chance says, within 4 deviations."""
    for rise in (0.0, 0.004):
        found = [
            until_rollback(alarms(seed, champion=0.001, rise=rise, apart=apart), RULES)
            for seed in range(200)
        ]
        theirs = 0.001 if apart else 0.0
        chance = rollback_chance(theirs + rise, theirs, MOST, RULES)
        spread = 4 * (200 * chance * (1 - chance)) ** 0.5 + 1
        assert abs(sum(one is not None for one in found) - 200 * chance) <= spread


def test_a_large_rise_is_rolled_back_at_once() -> None:
    """One refusal in ten is found within 100 exchanges, long before the planned number."""
    assert rollback_chance(0.1, 0.0, 100, RULES) >= 0.95


def test_looking_at_every_exchange_costs_two_in_a_hundred() -> None:
    """Without the planned look the odds are an e-process: 3,000 exchanges give 2 % at most."""
    never = msgspec.structs.replace(RULES, exchanges=10**9)
    assert 0 < rollback_chance(0.001, 0.001, 3_000, never) <= 0.02


@given(
    st.lists(st.sampled_from([(0, 0), (1, 0), (0, 1)]), max_size=60),
    st.integers(1, 80),
)
def test_the_evidence_does_not_depend_on_the_order(
    found: list[tuple[int, int]], planned: int
) -> None:
    """One by one or all at once, the counts at the end are the same."""
    rules = msgspec.structs.replace(RULES, exchanges=planned)
    one = RollbackEvidence()
    for own, theirs in found:
        one = one.many(1, own, rules, champions=theirs)
    own, theirs = (sum(part) for part in zip(*found, strict=True)) if found else (0, 0)
    many = RollbackEvidence().many(len(found), own, rules, champions=theirs)
    assert (one.exchanges, one.own_alarms, one.champions) == (len(found), own, theirs)
    assert many.exchanges == len(found)
    assert (many.own_alarms, many.champions) == (own, theirs)


@given(st.integers(0, 4_000), st.integers(0, 12), st.integers(0, 12))
def test_more_alarms_of_its_own_never_keep_a_challenger(
    exchanges: int, own: int, theirs: int
) -> None:
    """One more alarm of its own can roll it back; one more of the champion's own never does."""
    given_ = RollbackEvidence().many(exchanges, own, RULES, champions=theirs)
    if given_.rolled_back:
        assert RollbackEvidence().many(exchanges, own + 1, RULES, champions=theirs).rolled_back
    else:
        more = RollbackEvidence().many(exchanges, own, RULES, champions=theirs + 1)
        assert not more.rolled_back or own > theirs + 1


def test_what_was_enough_once_stays_enough() -> None:
    """A rolled-back challenger does not come back by waiting."""
    evidence = RollbackEvidence().many(20, 6, RULES)
    assert evidence.rolled_back
    assert evidence.many(100_000, 0, RULES, champions=1_000).rolled_back


def test_bundles_that_merely_differ_are_left_alone() -> None:
    """As many alarms of the champion's own are no reason to go back to it."""
    assert not RollbackEvidence().many(2_000, 6, RULES, champions=6).rolled_back
    assert RollbackEvidence().many(2_000, 6, RULES, champions=1).rolled_back
