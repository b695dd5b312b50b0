"""The overhead is learned from a vouched time, and its noise and bias are measured."""

import numpy as np
import pytest

from safehold.errors import EgressError
from safehold.secure.egress.explain.ledger import START, ExplainedRow
from safehold.secure.egress.watch.overhead_learning import Learned, as_toml, learn, words
from safehold.secure.egress.watch.timeline_rows import TimelineRow


def time_of(
    intervals: int, *, thief: float = 0.0, noise: float = 0.002
) -> tuple[list[TimelineRow], list[ExplainedRow]]:
    """A timeline of ten-second looks and the rows of its intervals of 100 s."""
    rng = np.random.default_rng(4)
    timeline, rows, passed = [], [], 0.0
    for number in range(intervals):
        size, items = int(rng.uniform(1e6, 1e7)), int(rng.uniform(10, 500))
        kernel = (size * 1.03 + items * 900) * (1 + noise * rng.standard_normal())
        kernel += thief * size if number > intervals // 2 else 0
        rows.append(
            ExplainedRow("g", "replies", number, START, 1, number * 100 + 50, size, items, "0")
        )
        for look in range(10):
            at = number * 100 + 10 * look
            timeline.append(TimelineRow(at, {"replies": int(passed)}, {}, {}, 0, 1))
            passed += kernel / 10
    return timeline, rows


def measured(**more: float) -> Learned:
    """What is learned from such a time."""
    return learn(*time_of(80, **more), "replies", 100.0)


def test_overhead_is_learned_and_judged_on_the_other_half() -> None:
    """Both parts are found, and the noise that was drawn is the noise that is told."""
    found = measured()
    assert found.overhead.per_byte == pytest.approx(0.03, abs=0.003)
    assert found.overhead.per_item == pytest.approx(900, rel=0.1)
    assert found.noise == pytest.approx(0.002, rel=0.6)
    assert abs(found.bias) < 4 * found.error
    assert "[overhead.replies]" in as_toml([found])
    assert " within the plan" in words(found, 0.01)


def test_thief_in_the_second_half_is_a_bias() -> None:
    """A time whose halves disagree is told of as outside the slack."""
    assert "NOT within" in words(measured(thief=0.01), 0.001)


def test_too_short_a_time_is_refused() -> None:
    """A few intervals teach nothing."""
    with pytest.raises(EgressError, match="at least"):
        learn(*time_of(10), "replies", 100.0)
    with pytest.raises(EgressError, match="empty"):
        learn([], [], "replies")
