"""Rates and their exact one-sided bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from safehold.stats import Rate, lower_bound, upper_bound


@pytest.mark.parametrize(("n", "bound"), [(59, 0.05), (299, 0.01), (2995, 0.001)])
def test_zero_events_need_the_textbook_number_of_trials(n: int, bound: float) -> None:
    """With no event, the known sample sizes just reach the bound and one trial less does not."""
    assert upper_bound(0, n) <= bound < upper_bound(0, n - 1)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_bounds_equal_the_beta_quantiles(case: tuple[int, int]) -> None:
    """Both bounds equal Clopper and Pearson's, computed by SciPy."""
    events, n = case
    high = 1.0 if events == n else float(beta.ppf(0.95, events + 1, n - events))
    low = 0.0 if events == 0 else float(beta.ppf(0.05, events, n - events + 1))
    assert upper_bound(events, n) == pytest.approx(high, abs=1e-7)
    assert lower_bound(events, n) == pytest.approx(low, abs=1e-7)


def test_a_rate_of_nothing_is_undefined() -> None:
    """No trials give no rate."""
    assert "undefined" in Rate(0, 0).at_most()
    assert upper_bound(0, 0) == 1.0


def test_impossible_counts_are_refused() -> None:
    """More events than trials is an error."""
    with pytest.raises(ValueError, match="0 <= events <= n"):
        upper_bound(3, 2)


def test_a_rate_prints_its_n_and_bound() -> None:
    """The printed rate carries n and the bound on the unfavourable side."""
    assert Rate(0, 2995).at_most() == "0.000% (n=2995, 95% upper bound 0.100%)"
    assert "lower bound" in Rate(95, 100).at_least()
