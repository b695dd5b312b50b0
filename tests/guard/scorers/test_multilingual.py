"""The multilingual stage 2: a function of each text alone, the end of long ones, many scripts."""

import numpy as np
import pytest

from safehold.errors import BundleError
from safehold.guard.bundle.load import load_bundle
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.scorers.encoder.multilingual import (
    MOST_IDS,
    MultilingualScorer,
    encoded,
    unpacked,
)
from safehold.guard.scorers.encoder.unigram import BEGIN, END, Unigram
from safehold.guard.scorers.interface import ScoringInput

TEXTS = (
    "How long do I boil the wort?",
    "¿Cuánto cuesta un billete a Sevilla?",
    "麦芽を何度で何分保てばいい",
    "मटके में रखने के बाद कब छानना है?",
    "كم يوماً أتركه يتخمر؟",
    "",
)


@pytest.fixture(scope="module")
def scorer() -> MultilingualScorer:
    """Return the stock bundle's stage 2."""
    found = load_bundle(*stock_bundle()).stage2
    assert isinstance(found, MultilingualScorer)
    return found


def test_a_score_does_not_depend_on_the_neighbours(scorer: MultilingualScorer) -> None:
    """Alone, in a batch, in another order and again: the same bits."""
    inputs = [ScoringInput(prompt=text, reply="") for text in TEXTS]
    alone = [scorer.score([item])[0] for item in inputs]
    assert scorer.score(inputs) == alone
    assert scorer.score(inputs[::-1]) == alone[::-1]
    assert all(np.isfinite(one.logit) for one in alone)


def test_a_reply_is_judged_by_what_it_says(scorer: MultilingualScorer) -> None:
    """Whatever was asked before, a reply's score is its own, on an output of its own."""
    said = "Boil it for an hour with thirty grams of hops, then cool it and add the yeast."
    beside = [scorer.score([ScoringInput(text, said)])[0] for text in ("", "hello", TEXTS[2])]
    assert len(set(beside)) == 1
    assert beside[0].logit != scorer.score([ScoringInput(said, "")])[0].logit


def test_of_a_long_text_the_end_is_read(scorer: MultilingualScorer) -> None:
    """What stands before the last 256 ids is not seen; what stands in them is."""
    end = " ".join(f"word{number}" for number in range(MOST_IDS))
    first, second = (
        scorer.score([ScoringInput(f"{start} {end}", "")])[0] for start in ("mash", "museum")
    )
    assert first == second
    changed = scorer.score([ScoringInput(f"{end} How do I brew beer at home?", "")])[0]
    assert changed != first


def test_ids_have_a_mark_and_an_end_whatever_the_length() -> None:
    """The frame that the network was trained with stays around a cut text."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "\u2581a", "\u2581b"]
    unigram = Unigram(pieces, [0.0, 0.0, 0.0, 0.0, -1.0, -1.0])
    mark = unigram.encode("a")
    for count in (0, 1, 10, 1000):
        ids = encoded(unigram, mark, "b " * count, most=16)
        assert ids[: 1 + len(mark)] == [BEGIN, *mark]
        assert ids[-1] == END
        assert len(ids) == min(16, 3 + count)


def test_packed_rows_are_unpacked_as_they_were_packed() -> None:
    """A block is a float16 scale, then the low and the high halves of sixteen bytes less eight."""
    scale = np.array([0.5], dtype=np.float16).view(np.uint8)
    values = np.arange(16, dtype=np.uint8) | (np.arange(16, dtype=np.uint8)[::-1] << 4)
    row = np.concatenate([scale, values])[None]
    expected = np.concatenate([np.arange(16), np.arange(16)[::-1]]) - 8.0
    assert np.array_equal(unpacked(row), 0.5 * expected[None].astype(np.float32))


def test_rows_that_are_no_blocks_are_refused() -> None:
    """A damaged file is told of before anything is scored."""
    unigram = Unigram(["<s>", "<pad>", "</s>", "<unk>", "a"], [0.0] * 5)
    with pytest.raises(BundleError, match="4-bit"):
        MultilingualScorer("e5", b"", np.zeros((5, 17), dtype=np.uint8), unigram, ("one",))
