"""The interval for recall covers the truth; no figure comes without its n."""

import numpy as np
import pytest

from safehold.detect.monitoring.estimate import Reviewers, Stratum, missed, plan
from safehold.errors import UsageError

_EDGES = np.array([-4, -2.5, -1, 0.5, 2.0])
_FLOOR = 3


@pytest.mark.parametrize(("mu", "shift"), [(4.0, 0.0), (1.0, 0.0), (1.0, 2.0)])
def test_the_interval_covers_the_truth(mu: float, shift: float) -> None:
    """A good, a fair and a mis-calibrated slow scorer: at least 93 of 100 seeds each."""
    chance = np.random.default_rng(5)
    size = 100_000
    positive = chance.random(size) < 2e-3
    score = np.where(positive, chance.normal(mu, 2.0, size), chance.normal(-6, 1.5, size))
    caught = np.where(positive, chance.random(size) > 0.1, score > chance.normal(0.5, 1, size))
    truth = (positive & caught).sum() / positive.sum()
    key = np.digitize(score - shift, _EDGES) * 2 + caught
    groups = {k: np.flatnonzero(key == k) for k in np.unique(key)}
    covered = 0
    for seed in range(100):
        strata = []
        for k, members in groups.items():
            read = min(len(members), 150)
            found = positive[chance.choice(members, read, replace=False)].sum()
            strata.append(
                Stratum(
                    caught=bool(k % 2),
                    above_floor=k // 2 >= _FLOOR,
                    size=len(members),
                    read=read,
                    positives=int(found),
                )
            )
        one = missed(strata, seed=seed).absolute
        covered += one.lower <= truth <= one.upper
    assert covered >= 93


def _stratum(*, caught: bool, positives: int, read: int = 100, size: int = 1000) -> Stratum:
    return Stratum(caught=caught, above_floor=True, size=size, read=read, positives=positives)


def test_nothing_seen_is_undefined_and_nothing_is_claimed() -> None:
    """Without a positive there is no point and the interval is everything."""
    done = missed([_stratum(caught=True, positives=0)], seed=1).absolute
    assert (done.point, done.lower, done.upper, done.n) == (None, 0.0, 1.0, 100)


def test_a_stratum_read_whole_leaves_no_doubt() -> None:
    """Nine of ten positives caught, everything read: 0.9 exactly."""
    strata = [
        _stratum(caught=True, positives=90, read=1000),
        _stratum(caught=False, positives=10, read=1000),
    ]
    done = missed(strata, seed=1).absolute
    assert (done.point, done.lower, done.upper) == pytest.approx((0.9, 0.9, 0.9))


def test_reviewers_who_err_widen_the_interval() -> None:
    """Reviewers' own errors are carried into the interval."""
    strata = [_stratum(caught=True, positives=60), _stratum(caught=False, positives=10)]
    sure = missed(strata, seed=1).absolute
    gold = Reviewers(found=40, positives=50, cleared=95, negatives=100)
    unsure = missed(strata, seed=1, reviewers=gold).absolute
    assert unsure.upper - unsure.lower > sure.upper - sure.lower


def test_the_most_that_can_be_unseen_follows_the_rule_of_three() -> None:
    """None of 3,000 read: at most one in a thousand."""
    low = Stratum(caught=False, above_floor=False, size=10**6, read=3_000, positives=0)
    done = missed([low], seed=1)
    assert done.unseen_at_most == pytest.approx(1e-3, rel=0.01)
    assert (done.unseen_read, done.unseen_found) == (3_000, 0)


def test_the_planner_and_impossible_counts() -> None:
    """Half of one in five thousand: 15,000 to read; nonsense is refused."""
    assert plan(prevalence=2e-4, recall=0.5) == 15_000
    with pytest.raises(UsageError):
        plan(prevalence=0.0, recall=0.5)
    with pytest.raises(UsageError):
        missed([_stratum(caught=True, positives=101)], seed=1)
