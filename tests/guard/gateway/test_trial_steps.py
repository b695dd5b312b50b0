"""A trial serves the same accounts, goes forward only when asked, and back by itself."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.guard.gateway.bundles.rollback_evidence import RollbackRules
from safehold.guard.gateway.bundles.trial_steps import Trial, TrialExchange, TrialStep

RULES = RollbackRules()
NEW, OLD = "b" * 64, "a" * 64
TRIAL = Trial(champion=OLD, challenger=NEW)
SECRET = b"a secret of this gateway"
STEPS = (TrialStep.SHADOW, TrialStep.FIVE, TrialStep.QUARTER, TrialStep.ALL)


def at(step: TrialStep) -> Trial:
    """Return the trial at a step."""
    return Trial(champion=OLD, challenger=NEW, step=step)


@given(st.text(max_size=40))
def test_an_account_keeps_its_bundle_as_the_trial_widens(account: str) -> None:
    """Once it is served by the challenger it stays so until the trial ends."""
    served = [at(step).serves(account, SECRET) for step in STEPS]
    assert served == sorted(served)
    assert served[0] == OLD
    assert served[-1] == NEW
    assert at(TrialStep.ROLLED_BACK).serves(account, SECRET) == OLD


@pytest.mark.parametrize(("step", "share"), [(TrialStep.FIVE, 0.05), (TrialStep.QUARTER, 0.25)])
def test_the_share_is_of_accounts_and_another_secret_draws_others(
    step: TrialStep, share: float
) -> None:
    """Of 20,000 accounts about the share is on trial; who it is depends on the secret."""
    on_trial = [at(step).serves(str(n), SECRET) == NEW for n in range(20_000)]
    assert abs(sum(on_trial) / 20_000 - share) < 0.01
    others = [at(step).serves(str(n), b"another") == NEW for n in range(20_000)]
    both = sum(a and b for a, b in zip(on_trial, others, strict=True))
    assert both < 1.5 * share * share * 20_000


def test_it_goes_forward_step_by_step_and_never_early() -> None:
    """Each step wants its exchanges; the last has no further one."""
    trial = TRIAL
    for step in STEPS[1:]:
        with pytest.raises(ValueError, match="needed"):
            trial.forward(10)
        for _ in range(10):
            trial = trial.after(TrialExchange(champion=False, challenger=False), RULES)
        trial = trial.forward(10)
        assert trial.step is step
    with pytest.raises(ValueError, match="no further"):
        trial.forward(0)


@pytest.mark.parametrize("benign", [True, None])
def test_false_alarms_of_its_own_roll_it_back(*, benign: bool | None) -> None:
    """Judged benign or not judged at all; then nothing brings it forward again."""
    rng = random.Random(1)
    trial = at(TrialStep.FIVE)
    for _ in range(2_000):
        trial = trial.after(TrialExchange(False, rng.random() < 0.006, benign), RULES)
    assert trial.step is TrialStep.ROLLED_BACK
    assert trial.reason
    with pytest.raises(ValueError, match="no further"):
        trial.forward(0)


def test_attacks_that_only_the_challenger_stops_are_no_reason_to_go_back() -> None:
    """The benign twin: a reviewer called them restricted."""
    trial = at(TrialStep.FIVE)
    for turn in range(2_000):
        trial = trial.after(TrialExchange(False, turn % 50 == 0, False), RULES)
    assert trial.step is TrialStep.FIVE


def test_a_failed_canary_ends_it_at_once() -> None:
    """Somebody's word or an alarm needs no statistics."""
    assert at(TrialStep.QUARTER).ended("canary").serves("anybody", SECRET) == OLD
