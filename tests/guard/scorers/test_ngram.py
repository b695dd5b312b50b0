"""The streaming n-gram scorer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.guard.scorers.ngram import NgramHead, NgramScorer
from safehold.testing.scorers import keyword_head

WORDS = st.lists(
    st.sampled_from(["malt", "hops", "a", "the", "<n2>", "é"]), min_size=1, max_size=90
)


def random_scorer() -> NgramScorer:
    """A scorer with random weights."""
    table = np.random.default_rng(7).normal(size=1 << 10).astype(np.float32)
    head = NgramHead(table=table, bias=0.1, mix=(0.7, 0.4), offset=-0.2, floor=6)
    return NgramScorer("random", head, head, "clause")


@given(WORDS, st.integers(1, 89))
def test_state_carries_over_any_cut(words: list[str], at: int) -> None:
    """Feeding a text in two parts gives the highest score of the whole."""
    scorer = random_scorer()
    whole = scorer.open_reply().feed(words)
    lane = scorer.open_reply()
    parts = [lane.feed(part) for part in (words[:at], words[at:]) if part]
    assert max(parts) == pytest.approx(whole, abs=1e-6)


def test_one_spike_is_not_enough() -> None:
    """A single hot token among cold ones stays under the bar that several pass."""
    scorer = NgramScorer("k", *[keyword_head("wort", weight=10.0)] * 2, clause="c")
    assert scorer.open_reply().feed(["wort", *["and"] * 30]) < 0
    assert scorer.open_reply().feed(["wort", "and", "wort", "and"]) > 0


def test_a_long_stream_keeps_constant_state() -> None:
    """A hundred thousand tokens leave the same score and size of state as the last windows."""
    scorer = random_scorer()
    lane = scorer.open_reply()
    for _ in range(1_000):
        lane.feed(["malt", "hops"] * 50)
    fresh = scorer.open_reply()
    fresh.feed(["malt", "hops"] * 50)
    assert lane.feed(["the"]) == pytest.approx(fresh.feed(["the"]), abs=1e-6)
    assert len(lane._long) == 64


def test_a_table_of_odd_size_is_refused() -> None:
    """A weight table that no mask fits is an error."""
    head = NgramHead(table=np.zeros(1000, np.float32), bias=0, mix=(1, 0), offset=0, floor=4)
    with pytest.raises(ValueError, match="power of two"):
        NgramScorer("x", head, head, "c")
