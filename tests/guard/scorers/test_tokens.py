"""Tokens are the same however a text was split into deltas."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from safehold.guard.scorers.tokens import MAX_RUN, TokenStream, shape, tokens


@given(st.text(max_size=400), st.lists(st.integers(0, 400), max_size=20))
def test_any_split_gives_the_same_tokens(text: str, places: list[int]) -> None:
    """Tokens and characters do not depend on the deltas."""
    marks = sorted({min(place, len(text)) for place in places} | {0, len(text)})
    stream = TokenStream()
    found: list[str] = []
    chars = 0
    for start, end in itertools.pairwise(marks):
        words, count = stream.feed(text[start:end])
        found += words
        chars += count
        assert stream.pending <= MAX_RUN
    words, count = stream.finish()
    assert found + words == tokens(text)
    assert chars + count == len(text)


def test_tokens_keep_their_numbers() -> None:
    """A number reaches the scorers as it stands, with its separators."""
    assert tokens("5 kg at 67 or 1.050") == ["5", "kg", "at", "67", "or", "1.050"]


def test_shapes_fold_numbers() -> None:
    """By shape an amount counts as an amount, a gravity as a gravity."""
    assert [shape(token) for token in tokens("5 kg at 67 or 1.050, 1:10")] == [
        "<n1>",
        "kg",
        "at",
        "<n2>",
        "or",
        "<sg>",
        ",",
        "<ratio>",
    ]


def test_width_and_case_are_folded() -> None:
    """Full-width letters and capitals are the same word."""
    assert tokens("\uff37\uff2f\uff32\uff34 Wort") == ["wort", "wort"]


def test_cjk_characters_stand_alone() -> None:
    """A script without spaces still gives tokens."""
    assert tokens("麦芽と水") == ["麦", "芽", "と", "水"]
