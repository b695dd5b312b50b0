"""What the measurement of disguises plays is the text that it says it plays."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))
from bench.disguises import asks, chatter, cut, cut_over_parts, in_words

from safehold.exchange import TextPart


@pytest.mark.parametrize("way", [name for name, _ in cut_over_parts(asks()[0][1])])
def test_a_question_cut_over_parts_is_whole(way: str) -> None:
    """The parts together hold every letter of the question, in its order."""
    for _, ask in asks()[:10]:
        turns = dict(cut_over_parts(ask))[way]
        said = "".join(part.text for turn in turns for part in turn.parts
                       if isinstance(part, TextPart))  # fmt: skip
        assert "".join(said.split()).endswith("".join(ask.split()))


def test_digits_are_written_as_words() -> None:
    """No digit stays, and a text without digits is left alone (benign twin)."""
    assert " ".join(in_words("boil 65 minutes").split()) == "boil six five minutes"
    assert in_words("boil it") == "boil it"


def test_chatter_has_the_length_that_is_asked() -> None:
    """Padding is as long as it says, to a word, and equal seeds give equal chatter."""
    for size in (40, 300, 3_000):
        text = chatter(size, random.Random(1))
        assert size - 2 <= len(text) <= size + 40
        assert text == chatter(size, random.Random(1))


def test_a_cut_stream_is_the_text() -> None:
    """Pieces of a stream give the text back."""
    text = "stir, wait and taste. " * 40
    assert "".join(cut(text, random.Random(2))) == text
