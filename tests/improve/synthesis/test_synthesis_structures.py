"""Words spread over structures: nothing is lost or moved, and many forms come up."""

import random

import pytest

from safehold.improve.synthesis.structures import MOST_WORDS, structured

TEXTS = {
    "english": "How long should bread rest, 40 minutes or 1.5 hours, and how warm?",
    "chinese": "发面要多久才能蒸馒头三十分钟够吗",
    "marks": "it's 5'9\" & <b> {x} [y] \\z",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_each_word_stands_in_its_order(text: str) -> None:
    """Every word of the text follows the one before it, whatever form was drawn."""
    for seed in range(60):
        found, _ = structured(text, random.Random(seed))
        at = 0
        for piece in "".join(found.split()):
            at += at < len(whole := "".join(text.split())) and piece == whole[at]
        assert at == len(whole), found


def test_the_form_is_drawn() -> None:
    """Of two hundred draws more than a hundred differ, of eleven kinds; a seed has one form."""
    drawn = [structured(TEXTS["english"], random.Random(seed)) for seed in range(200)]
    assert len({text for text, _ in drawn}) > 100
    assert len({name for _, name in drawn}) == 11
    assert drawn[7] == structured(TEXTS["english"], random.Random(7))


def test_a_long_text_is_cut() -> None:
    """What is made stays bounded."""
    text, _ = structured("word " * 10_000, random.Random(1))
    assert text.count("word") <= 2 * MOST_WORDS
