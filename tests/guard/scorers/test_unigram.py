"""Unigram tokenisation."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.guard.scorers.encoder.unigram import SPACE, UNKNOWN, Unigram

PIECES = ["<s>", "<pad>", "</s>", "<unk>", SPACE, "a", "b", "c", "ab", "bc", f"{SPACE}a", "abc"]
SCORES = [0.0, 0.0, 0.0, 0.0, -3.0, -4.0, -4.1, -4.2, -5.0, -5.5, -5.2, -9.5]


def best_by_trying(word: str) -> float:
    """The highest sum of scores over all cuts of a word."""
    known = dict(zip(PIECES[4:], SCORES[4:], strict=True))
    text = SPACE + word
    best = -1e9
    for count in range(len(text)):
        for cuts in combinations(range(1, len(text)), count):
            ends = [0, *cuts, len(text)]
            parts = [text[a:b] for a, b in pairwise(ends)]
            if all(part in known for part in parts):
                best = max(best, sum(known[part] for part in parts))
    return best


@given(st.text("abc", min_size=1, max_size=7))
def test_the_cut_is_the_most_likely_one(word: str) -> None:
    """No other cut of the word has a higher sum."""
    ids = Unigram(PIECES, SCORES).encode(word)
    assert "".join(PIECES[number] for number in ids) == SPACE + word
    assert sum(SCORES[number] for number in ids) == pytest.approx(best_by_trying(word))


def test_what_no_piece_spells_is_one_unknown() -> None:
    """Characters outside the vocabulary don't break a text, and neighbours are one piece."""
    ids = Unigram(PIECES, SCORES).encode("a☃☃b")
    assert ids.count(UNKNOWN) == 1


def test_capitals_and_width_are_folded() -> None:
    """A disguise by width or capitals gives the same pieces."""
    unigram = Unigram(PIECES, SCORES)
    assert unigram.encode("\uff21\uff22\uff23 abC") == unigram.encode("abc abc")


def test_a_vocabulary_of_specials_is_refused() -> None:
    """Nothing to spell with is an error, not a tokenizer that knows nothing."""
    with pytest.raises(ValueError, match="no vocabulary"):
        Unigram(PIECES[:4], SCORES[:4])
