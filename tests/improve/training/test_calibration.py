"""Thresholds keep their promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.errors import DataError
from safehold.improve.training.calibration import fit_ensemble, umbrella_threshold, violation


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 59), (0.01, 299), (0.001, 2995)])
def test_the_least_sample_is_the_textbook_one(alpha: float, needed: int) -> None:
    """The rule works from exactly the sample size where zero events bound alpha."""
    assert umbrella_threshold(range(needed), alpha, 0.05).rank == needed
    with pytest.raises(DataError, match=str(needed)):
        umbrella_threshold(range(needed - 1), alpha, 0.05)


@given(st.integers(60, 600), st.sampled_from([0.05, 0.1]))
def test_the_rank_is_the_least_that_keeps_the_promise(n: int, alpha: float) -> None:
    """One rank lower would break the promise."""
    rank = umbrella_threshold(range(n), alpha, 0.05).rank
    assert violation(rank, n, alpha) <= 0.05
    assert rank == 1 or violation(rank - 1, n, alpha) > 0.05


def test_the_promise_holds_on_fresh_draws() -> None:
    """Over many calibration sets the true rate exceeds alpha in about delta of them at most."""
    generator = np.random.default_rng(3)
    alpha, broken = 0.05, 0
    for _ in range(400):
        threshold = umbrella_threshold(generator.uniform(size=120), alpha, 0.05)
        broken += 1 - threshold.value > alpha
    assert broken <= 33


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_the_ensemble_orders_what_both_scorers_see(seed: int) -> None:
    """The fitted ensemble separates at least about as well as the better of two noisy scorers."""
    generator = np.random.default_rng(seed)
    label = generator.uniform(size=300) < 0.4
    first = label * 1.0 + generator.normal(size=300)
    second = label * 2.0 + generator.normal(size=300)
    a, b, c = fit_ensemble(first.tolist(), second.tolist(), label.tolist())
    assert a >= 0
    assert b > 0
    both = a * first + b * second + c
    assert _auc(both, label) >= _auc(second, label) - 0.02


def _auc(score: np.ndarray, label: np.ndarray) -> float:
    return float((score[label][:, None] > score[~label][None, :]).mean())
