"""Explained-bytes accounting: no credit is saved up, no unexplained byte is forgotten."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.errors import EgressError
from safehold.secure.egress.explain.accounting import Residual, learn_overhead
from safehold.secure.egress.interface import ExplainedRowError
from safehold.secure.egress.simulation.simulate import odometer


def test_overhead_is_learned_per_byte_and_per_item() -> None:
    """The fit finds both parts in spite of a tenth of wild intervals."""
    rng = np.random.default_rng(1)
    explained = rng.uniform(1e6, 1e7, 200)
    items = rng.uniform(10, 500, 200).round()
    kernel = explained * 1.04 + items * 1_800
    kernel[:20] *= 3
    found = learn_overhead(list(kernel), list(explained), list(items))
    assert found.per_byte == pytest.approx(0.04, abs=0.002)
    assert found.per_item == pytest.approx(1_800, rel=0.1)


def test_replies_of_one_size_teach_an_overhead_by_item() -> None:
    """When every reply is alike the two parts can't be told apart, and nothing is negative."""
    rng = np.random.default_rng(2)
    items = rng.integers(5, 60, 40).astype(float)
    explained = items * 10_114.0 + 58
    kernel = explained + items * 170 + rng.normal(0, 300, 40)
    found = learn_overhead(list(kernel), list(explained), list(items))
    assert found.per_byte >= 0
    assert found.expected(1e6, 1e6 / 10_114) == pytest.approx(1e6 * (1 + 170 / 10_114), rel=0.003)


def test_overhead_with_a_thief_in_it_is_refused() -> None:
    """A learning time with more than half again unexplained teaches nothing."""
    explained = [1e6] * 50
    with pytest.raises(EgressError, match="do not explain"):
        learn_overhead([2e6] * 50, explained, [1.0] * 50)
    with pytest.raises(EgressError, match="at least"):
        learn_overhead([1.0], [1.0], [1.0])


def step(residual: Residual, kernel: float, expected: float, now: float) -> Residual:
    """Advance with a lag of 60 seconds and a bank of 1,000 bytes."""
    return residual.advance(kernel=kernel, expected=expected, now=now, lag_s=60, bank=1_000)


def test_late_rows_within_the_lag_explain() -> None:
    """Bytes wait a minute for their row before they count as unexplained."""
    residual = step(Residual(), 5_000, 0, 0)
    assert residual.odometer == 0
    assert step(residual, 0, 5_000, 50).odometer == 0
    assert step(residual, 0, 0, 60).odometer == 5_000


def test_rows_after_the_lag_do_not_take_back() -> None:
    """A row that comes too late leaves the odometer where it is."""
    late = step(step(Residual(), 5_000, 0, 0), 0, 0, 61)
    assert step(late, 0, 5_000, 70).odometer == 5_000


def test_over_explaining_saves_no_credit() -> None:
    """A sender that explains what it never sent can't spend it later."""
    rich = step(Residual(), 0, 10**9, 0)
    assert rich.over_explained == 10**9 - 1_000
    assert step(step(rich, 50_000, 0, 10), 0, 0, 80).odometer == 49_000


def test_backward_bytes_are_refused() -> None:
    """Negative bytes are an error, never a refund."""
    with pytest.raises(ExplainedRowError):
        step(Residual(), -1, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=1, max_size=40))
def test_odometer_is_at_least_what_rows_can_not_cover(flow: list[tuple[int, int]]) -> None:
    """The odometer never falls, and with all waits over it is at least kernel minus explained."""
    residual, before = Residual(), 0.0
    for second, (kernel, expected) in enumerate(flow):
        residual = step(residual, kernel, expected, float(second * 100))
        assert residual.odometer >= before
        before = residual.odometer
    final = step(residual, 0, 0, 10_000.0)
    kernel = sum(k for k, _ in flow)
    explained = sum(e for _, e in flow)
    assert final.odometer >= kernel - explained - 1e-6


@given(st.lists(st.integers(-5_000, 5_000), min_size=1, max_size=30))
def test_simulated_odometer_is_the_real_one_without_lag(net: list[int]) -> None:
    """The simulator's vector form agrees with the accounting that runs."""
    residual = Residual()
    for second, value in enumerate(net):
        residual = residual.advance(
            kernel=max(0, value), expected=max(0, -value), now=float(second), lag_s=0, bank=1_000
        )
    path = odometer(np.array([net], dtype=float), 1_000.0)
    assert path[0, -1] == pytest.approx(residual.odometer)
