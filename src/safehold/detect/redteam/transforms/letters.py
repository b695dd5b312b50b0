"""Letters put in, left out, moved, or written in another alphabet or as words."""

import re
import string
from collections.abc import Callable

from safehold.detect.redteam.transforms.interface import Family, Transform

_F = Family.LETTERS
_LOWER = string.ascii_lowercase
_NAMES = [
    "apple", "bridge", "candle", "drum", "engine", "forest", "glove",
    "harbour", "island", "jacket", "kettle", "ladder", "mirror", "needle",
    "orchard", "pencil", "quilt", "river", "saddle", "tunnel", "umbrella",
    "valley", "window", "xylophone", "yard", "zipper",
]  # fmt: skip
_SYLLABLES = [first + second for first in "bdfgklm" for second in "aeio"][:26]


def _written(alphabet: str) -> Callable[[str], str]:
    table = str.maketrans(_LOWER, alphabet)
    return lambda text: text.lower().translate(table)


def _behind_letters(put: str) -> Callable[[str], str]:
    return lambda text: re.sub(r"[a-z]", lambda match: match[0] + put, text.lower())


def _before_vowels(put: str) -> Callable[[str], str]:
    return lambda text: re.sub(r"[aeiou]+", lambda match: put + match[0], text.lower())


def _as_words(words: list[str]) -> Callable[[str], str]:
    def encode(text: str) -> str:
        table = dict(zip(_LOWER, words, strict=True))
        return " ".join(table.get(mark, mark) for mark in text.lower() if not mark.isspace())

    return encode


def _unspaced(text: str) -> str:
    return "".join(text.split())


def _respaced(text: str) -> str:
    solid = _unspaced(text)
    return " ".join(solid[at : at + 4] for at in range(0, len(solid), 4))


def _line_a_letter(text: str) -> str:
    return "\n".join(_unspaced(text))


LETTERS: tuple[Transform, ...] = (
    Transform("filler-letter", _F, _behind_letters("q"), "a q behind every letter", growth=2),
    Transform("filler-syllable", _F, _behind_letters("ip"), "'ip' behind every letter", growth=3),
    Transform("ub-before-vowels", _F, _before_vowels("ub"), "'ub' before every vowel", growth=1.6),
    Transform("line-a-letter", _F, _line_a_letter, "one letter a line", growth=2),
    Transform("no-spaces", _F, _unspaced, "no spaces"),
    Transform("respaced", _F, _respaced, "spaces in the wrong places", growth=1.3),
    Transform("word-a-letter", _F, _as_words(_NAMES), "a word for each letter", growth=7),
    Transform("syllable-a-letter", _F, _as_words(_SYLLABLES), "a syllable a letter", growth=3),
    Transform(
        "georgian",
        _F,
        _written("".join(chr(0x10D0 + at) for at in range(26))),
        "Georgian letters in the order of the alphabet",
    ),
    Transform(
        "emoji-alphabet",
        _F,
        _written("".join(chr(0x1F400 + at) for at in range(26))),
        "animals in the order of the alphabet",
    ),
)
