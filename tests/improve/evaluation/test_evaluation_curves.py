"""Curves and the figures read off them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.guard.interface import Stage
from safehold.improve.evaluation.curves import auc, auc_lower, rank, roc, tpr_at
from safehold.improve.evaluation.interface import Score

_VALUES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40)


@given(positives=_VALUES, negatives=_VALUES)
def test_auc_is_the_share_of_ordered_pairs(positives: list[float], negatives: list[float]) -> None:
    """The area equals the count of rightly ordered pairs, ties counting half."""
    pairs = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    assert auc(positives, negatives) == pytest.approx(sum(pairs) / len(pairs))


@given(positives=_VALUES, negatives=_VALUES)
def test_detection_rate_keeps_its_false_positive_rate(
    positives: list[float], negatives: list[float]
) -> None:
    """The threshold behind a detection rate flags no more of the others than it may."""
    found = tpr_at(positives, negatives, 0.1)
    if len(negatives) < 10:
        assert found is None
        return
    assert found is not None
    allowed = len(negatives) // 10
    threshold = sorted(negatives, reverse=True)[allowed]
    assert sum(value > threshold for value in negatives) <= allowed
    assert found.n == len(positives)


def test_too_few_others_give_no_rate() -> None:
    """A 0.1% false-positive rate can't be seen on 999 items."""
    assert tpr_at([1.0], [0.0] * 999, 0.001) is None
    assert tpr_at([1.0], [0.0] * 1000, 0.001) is not None


def test_roc_rises_to_one() -> None:
    """Both rates rise with a falling threshold and end at 1."""
    fpr, tpr = roc([1.0, 2.0, 2.0], [0.0, 1.0])
    assert np.all(np.diff(fpr) >= 0)
    assert np.all(np.diff(tpr) >= 0)
    assert fpr[-1] == tpr[-1] == 1.0
    assert tpr[0] == pytest.approx(2 / 3)
    assert fpr[0] == 0.0


def test_bound_of_a_perfect_area_is_not_above_it() -> None:
    """The bound is at most the area, and tightens with more items."""
    assert auc_lower(0.9, 50, 50) < auc_lower(0.9, 5000, 5000) < 0.9


def test_what_escalated_ranks_above_what_did_not() -> None:
    """A cool ensemble logit still stands above the hottest text that stage 1 let pass."""
    cool = Score(stage1=0.0, final=-30.0, blocked=False, escalations=1)
    hot = Score(stage1=9.0, final=None, blocked=False, escalations=0)
    rule = Score(stage1=None, final=None, blocked=True, escalations=0, stage=Stage.RULE)
    ranks = [rank(score, 1.0, two_stages=True) for score in (rule, cool, hot)]
    assert ranks == sorted(ranks, reverse=True)


@pytest.mark.parametrize("final", [3.9, 4.0, 4.1])
def test_zero_is_the_operating_point(final: float) -> None:
    """A rank of zero or above means blocked, below means let pass."""
    score = Score(stage1=1.0, final=final, blocked=final >= 4.0, escalations=1)
    assert (rank(score, 4.0, two_stages=True) >= 0) is score.blocked
