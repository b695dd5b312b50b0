"""The linear probe: window means, a running state, and no other width."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.errors import ScorerError
from safehold.guard.scorers.probe import WINDOW, LinearProbe, ProbeHead

LOGITS = st.lists(st.floats(-20, 20), min_size=1, max_size=70)
PROBE = LinearProbe("p", ProbeHead(np.ones(3, np.float32), 0.5, -0.25, floor=8), (1,), "c")


@given(LOGITS, st.integers(0, 70))
def test_any_cut_gives_the_window_means_of_the_definition(logits: list[float], at: int) -> None:
    """The score is the highest mean of 16 logits, divided by at least 8, plus the bias."""
    windows = [logits[max(0, end - WINDOW) : end] for end in range(1, len(logits) + 1)]
    expected = max(sum(one) / max(len(one), 8) for one in windows) - 0.25
    lane = PROBE.open_reply()
    parts = [lane.feed(part) for part in (logits[:at], logits[at:]) if part]
    assert max(parts) == pytest.approx(expected, abs=1e-6)


def test_one_spike_is_not_enough() -> None:
    """A hot token among cold ones, or at the very beginning, stays under the bar of several."""
    assert PROBE.open_reply().feed([9.0, *[-2.0] * 20]) < 9.0 / 8
    assert PROBE.open_reply().feed([-2.0] * 20 + [9.0] + [-2.0] * 20) < 0
    assert PROBE.open_reply().feed([9.0] * 8) > 8


def test_a_logit_is_the_dot_product() -> None:
    """Rows times weights plus the shift, one number for each token."""
    assert PROBE.logits(np.array([[1, 2, 3], [0, 0, 0]], np.float32)) == (6.5, 0.5)


@pytest.mark.parametrize("shape", [(2, 4), (2, 2), (3,)])
def test_another_width_is_an_error(shape: tuple[int, ...]) -> None:
    """Activations that the probe was not trained on are refused."""
    with pytest.raises(ScorerError):
        PROBE.logits(np.zeros(shape, np.float32))


def test_the_id_stands_for_all_that_gives_a_logit() -> None:
    """Other weights, another shift or other layers are another probe."""
    head = PROBE.head
    others = [
        LinearProbe("p", ProbeHead(2 * head.weights, 0.5, -0.25, 8), (1,), "c"),
        LinearProbe("p", ProbeHead(head.weights, 0.6, -0.25, 8), (1,), "c"),
        LinearProbe("p", head, (2,), "c"),
    ]
    assert len({PROBE.id, *(one.id for one in others)}) == 4
