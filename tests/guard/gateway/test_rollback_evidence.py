"""A challenger with more false alarms is rolled back in time; one without is left alone."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.guard.gateway.bundles.rollback_evidence import (
    RollbackEvidence,
    RollbackRules,
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


@pytest.mark.parametrize("apart", [False, True])
def test_a_rise_from_one_to_five_in_a_thousand_is_rolled_back_in_time(*, apart: bool) -> None:
    """Within 2,000 exchanges in at least 95 of 100 seeds, whatever the two have in common."""
    found = [
        until_rollback(alarms(seed, champion=0.001, rise=0.004, apart=apart), RULES)
        for seed in range(100)
    ]
    assert sum(one is not None for one in found) >= 95


@pytest.mark.parametrize("rise", [0.0, 0.0001, 0.0003])
def test_without_a_rise_hardly_any_is_rolled_back(rise: float) -> None:
    """At most 5 of 100 seeds, up to the rise that is tolerated."""
    found = [
        until_rollback(alarms(seed, champion=0.001, rise=rise, apart=False), RULES)
        for seed in range(100)
    ]
    assert sum(one is not None for one in found) <= 5


def test_looking_at_every_exchange_costs_nothing() -> None:
    """The bound holds at any time: of 100 seeds of 4,000 exchanges at most 5 % are ever hit."""
    rng = random.Random(7)
    hit = 0
    for _ in range(100):
        own = ((False, rng.random() < RULES.tolerated) for _ in range(4_000))
        hit += until_rollback(own, RULES) is not None
    assert hit <= 5


@given(st.lists(st.booleans(), max_size=60))
def test_the_wealth_does_not_depend_on_the_order(own: list[bool]) -> None:
    """One by one or all at once, the bets at the end are the same."""
    one = RollbackEvidence()
    for alarm in own:
        one = one.many(1, int(alarm), RULES)
    many = RollbackEvidence().many(len(own), sum(own), RULES)
    assert all(abs(a - b) < 1e-9 for a, b in zip(one.logs, many.logs, strict=True))
    assert one.exchanges == many.exchanges == len(own)


def test_what_was_enough_once_stays_enough() -> None:
    """A rolled-back challenger does not come back by waiting."""
    evidence = RollbackEvidence().many(20, 6, RULES)
    assert evidence.rolled_back
    assert evidence.many(100_000, 0, RULES, champions=1_000).rolled_back


def test_bundles_that_merely_differ_are_left_alone() -> None:
    """As many alarms of the champion's own are no reason to go back to it."""
    assert not RollbackEvidence().many(2_000, 6, RULES, champions=6).rolled_back
    assert RollbackEvidence().many(2_000, 6, RULES, champions=1).rolled_back
