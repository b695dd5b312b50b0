"""Stage 1 over the set of n-grams in a sliding window."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.guard.scorers.windowed import (
    WINDOW,
    WindowHead,
    WindowScorer,
    pair_row,
    word_rows,
)

_MASK = (1 << 12) - 1
WORDS = st.lists(
    st.sampled_from(["malt", "hops", "a", "the", "67", "麦", "-", "é"]), min_size=1, max_size=150
)


def scorer(floor: int = 1, seed: int = 7) -> WindowScorer:
    """A scorer with random weights."""
    table = np.random.default_rng(seed).normal(size=_MASK + 1).astype(np.float32)
    head = WindowHead(table=table, bias=0.1, floor=floor)
    return WindowScorer("random", head, head, "clause")


def by_definition(words: list[str], previous: str = "^") -> float:
    """The logit of one window, from its sets; `previous` is the word before it."""
    table = np.random.default_rng(7).normal(size=_MASK + 1).astype(np.float32)
    own: set[int] = set()
    grams: set[int] = set()
    for before, word in zip([previous, *words], words, strict=False):
        row, parts = word_rows(word, _MASK)
        own |= {row, pair_row(before, word, _MASK)}
        grams |= set(parts)
    return 0.1 + sum(
        sum(float(table[row]) for row in half) / math.sqrt(len(half) or 1) for half in (grams, own)
    )


@given(WORDS.filter(lambda words: len(words) <= WINDOW))
def test_a_short_prompt_scores_as_its_set(words: list[str]) -> None:
    """The running sums give what the definition gives."""
    assert scorer().open_prompt().feed(words) == pytest.approx(by_definition(words), abs=1e-5)


@given(st.lists(WORDS.map(tuple), min_size=1, max_size=4))
def test_a_long_prompt_scores_as_the_hottest_of_its_windows(parts: list[tuple[str, ...]]) -> None:
    """Every eighth full window and the last one of each part, however many are summed at once."""
    lane, words = scorer().open_prompt(), list[str]()
    for part in parts:
        before = len(words)
        words += part
        ends = {end for end in range(WINDOW, len(words), 8) if end > before} | {len(words)}
        expected = max(
            by_definition(words[start:end], words[start - 1] if start else "^")
            for end, start in ((end, max(0, end - WINDOW)) for end in ends)
        )
        assert lane.feed(part) == pytest.approx(expected, abs=1e-5)


@given(WORDS, st.integers(1, 149))
def test_a_reply_scores_the_same_however_it_is_cut(words: list[str], at: int) -> None:
    """Feeding a text in two parts gives the highest score of the whole, to the last bit."""
    whole = scorer().open_reply().feed(words)
    lane = scorer().open_reply()
    parts = [lane.feed(part) for part in (words[:at], words[at:]) if part]
    assert max(parts) == whole


@given(st.sampled_from(["---", "| a |", "0 1", "wort"]))
def test_repeating_adds_nothing(text: str) -> None:
    """A line said a thousand times scores as when it first filled the window: sets don't add."""
    words = text.split()
    few = scorer().open_prompt().feed(words * 100)
    assert scorer().open_prompt().feed(words * 1000) == pytest.approx(few, abs=1e-4)


def test_what_left_the_window_is_forgotten() -> None:
    """After a window of other words the score is theirs alone, also after many of them."""
    lane, fresh = scorer().open_reply(), scorer().open_reply()
    for _ in range(100):
        lane.feed(["malt", "hops"] * 50)
    others = ["the", "a"] * WINDOW
    lane.feed(others)
    fresh.feed(others)
    assert lane.feed(["the"]) == pytest.approx(fresh.feed(["the"]), abs=1e-5)


def test_a_reply_of_few_words_is_damped() -> None:
    """One hot word at the start of a reply counts less than the same word in a fuller window."""
    hot = WindowHead(np.ones(_MASK + 1, dtype=np.float32), bias=0.0, floor=24)
    lane = WindowScorer("hot", hot, hot, "clause").open_reply()
    assert lane.feed(["malt"]) < lane.feed([f"w{number}" for number in range(30)])
