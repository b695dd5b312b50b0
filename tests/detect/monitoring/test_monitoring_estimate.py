"""The interval for recall covers the truth; no figure comes without its n."""

import numpy as np
import pytest

from safehold.detect.monitoring.estimate import Reviewers, Stratum, missed, plan
from safehold.errors import UsageError

_EDGES = np.array([-4, -2.5, -1, 0.5, 2.0])
_FLOOR = 3


@pytest.mark.parametrize(
    ("mu", "shift", "erring"),
    [(4.0, 0.0, False), (1.0, 0.0, False), (1.0, 2.0, False), (1.0, 2.0, True)],
)
def test_the_interval_covers_the_truth(mu: float, shift: float, *, erring: bool) -> None:
    """A good, a fair and a mis-calibrated slow scorer: at least 93 of 100 seeds each.

    So too where reviewers find nine of ten positives and clear 98 of 100 others, which is known
    from fifty gold items of each kind. `python -m bench --only recall` asks more.
    """
    chance = np.random.default_rng(5)
    size = 100_000
    positive = chance.random(size) < 2e-3
    score = np.where(positive, chance.normal(mu, 2.0, size), chance.normal(-6, 1.5, size))
    caught = np.where(positive, chance.random(size) > 0.1, score > chance.normal(0.5, 1, size))
    truth = (positive & caught).sum() / positive.sum()
    key = np.digitize(score - shift, _EDGES) * 2 + caught
    groups = {k: np.flatnonzero(key == k) for k in np.unique(key)}
    covered = unseen = 0
    served = (np.digitize(score - shift, _EDGES) < _FLOOR) & ~caught
    below = positive[served].mean()
    for seed in range(100):
        strata = []
        for k, members in groups.items():
            read = min(len(members), 150)
            found = positive[chance.choice(members, read, replace=False)].sum()
            if erring:
                found = chance.binomial(found, 0.9) + chance.binomial(read - found, 0.02)
            strata.append(
                Stratum(
                    caught=bool(k % 2),
                    above_floor=k // 2 >= _FLOOR,
                    size=len(members),
                    read=read,
                    positives=int(found),
                )
            )
        find, clear = (int(chance.binomial(50, share)) for share in (0.9, 0.98))
        gold = Reviewers(found=find, positives=50, cleared=clear, negatives=50)
        done = missed(strata, seed=seed, reviewers=gold if erring else None)
        covered += done.absolute.lower <= truth <= done.absolute.upper
        unseen += below <= done.unseen_at_most
    assert covered >= 93
    assert unseen >= 93


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


def test_what_reviewers_overlook_can_be_unseen() -> None:
    """None of 3,000 found by people who find 80 of 100: more than if they found all."""
    low = Stratum(caught=False, above_floor=False, size=10**6, read=3_000, positives=0)
    gold = Reviewers(found=80, positives=100, cleared=100, negatives=100)
    done = missed([low], seed=1, reviewers=gold)
    assert done.unseen_at_most == pytest.approx(3.69 / 3_000 / 0.7081, rel=0.01)
    blind = Reviewers(found=0, positives=100, cleared=100, negatives=100)
    assert missed([low], seed=1, reviewers=blind).unseen_at_most == 1.0


def test_false_alarms_of_reviewers_are_no_positives() -> None:
    """Of 1,000 read 20 are called restricted, by people who err so on 2 of 100: none stays."""
    gold = Reviewers(found=100, positives=100, cleared=98, negatives=100)
    strata = [
        _stratum(caught=True, positives=90, read=100, size=100),
        _stratum(caught=False, positives=20, read=1_000, size=100_000),
    ]
    plain, undone = missed(strata, seed=1), missed(strata, seed=1, reviewers=gold)
    assert plain.absolute.point == pytest.approx(90 / 2_090)
    assert undone.absolute.point == pytest.approx(1.0)
    assert undone.absolute.lower < 0.1


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
