"""Letters written as numbers, taps or two letters are read; ordinary numbers stay numbers."""

import random
from collections.abc import Callable

import pytest

from safehold.detect.redteam.transforms import transform
from safehold.exchange.views import views

TEXT = "warm the milk to fifty degrees and stir in the live culture then wait for seven hours"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
KEYS = {c: k * (i + 1) for k, cs in zip("23456789", "abc def ghi jkl mno pqrs tuv wxyz".split(), strict=True) for i, c in enumerate(cs)}  # fmt: skip  # noqa: E501, SIM905


def _words(text: str, letter: Callable[[str], str], between: str = " ", gap: str = " / ") -> str:
    return gap.join(between.join(letter(c) for c in word) for word in text.split())


def _tap(letter: str) -> str:
    at = LETTERS.replace("k", "").index("c" if letter == "k" else letter)
    return "." * (at // 5 + 1) + " " + "." * (at % 5 + 1)


CODES = {"letter-numbers", "multitap", "polybius", "bacon", "tap-code"}
WRITTEN = {
    "places": _words(TEXT, lambda c: str(LETTERS.index(c) + 1)),
    "places-dashed": _words(TEXT, lambda c: str(LETTERS.index(c) + 1), "-", " "),
    "multitap": _words(TEXT, KEYS.__getitem__),
    "polybius": transform("polybius").encode(TEXT),
    "bacon": transform("bacon").encode(TEXT),
    "tap": _words(TEXT, _tap),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_letters_as_codes_are_read(name: str) -> None:
    """A view spells the words, whole, however they were coded."""
    spelled = {"".join(view.text.split()) for view in views("So: " + WRITTEN[name])}
    letters = "".join(TEXT.split())
    if name == "tap":
        letters = letters.replace("k", "c")
    assert any(letters in one for one in spelled)


def test_numbers_that_spell_nothing_have_one_view() -> None:
    """Scores, dates, lottery draws, grids and rests of taps stay as they are (benign twin)."""
    chance = random.Random(7)
    texts = [
        "The draws: " + " ".join(str(chance.randint(1, high)) for _ in range(size))
        for high in (5, 26, 55, 999)
        for size in (8, 30, 200)
    ]
    texts += [
        "1. one ... 2. two ... 3. three\n. .. ... .... .....",
        "2024-11-02 10:15:22, 2024-11-03 11:16:23, 2024-11-04 12:17:24",
    ]
    for text in texts:
        assert not CODES & {how for view in views(text) for how in view.chain}
