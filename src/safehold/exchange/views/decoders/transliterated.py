"""English in Cyrillic or Greek letters: Latin letters again.

Each letter of these scripts has a Latin one by sound, some a choice of two or three: the word list
decides word by word. What comes out must be English words for the most part: Russian,
Serbian or Greek written so are no more English than any language is.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Final

from safehold.exchange.views.english_likeness import likeness
from safehold.exchange.views.english_words import costs, known
from safehold.exchange.views.interface import Found, ViewSource, Work

_LEAST: Final = 30
_SAMPLE: Final = 400
_ENGLISH: Final = 0.6
_WORDS: Final = 0.5
_CHOICES: Final = 4
"""Letters of a word that are tried in every reading; the rest are read in the first way."""
_CYRILLIC: Final = (
    "а a б b в v/w г g/h д d е e ё e/yo ж j/zh з z и i й j/y к k/c/q л l м m н n о o п p "
    "р r с s т t у u ф f х h/x ц c/ts ч ch ш sh щ sh ъ - ы y ь - э e ю u/yu я ya і i ї i "
    "ј j є e ґ g ў w ѕ s "
    "қ q ғ g ү u ұ u һ h ң ng ө o ә a"
)
_GREEK: Final = (
    "α a β b/v γ g δ d ε e ζ z η i/h θ t/th ι i κ k/c/q λ l μ m ν n ξ x ο o π p ρ r σ s ς s τ t "
    "υ u/y φ f χ h/ch ψ ps ω w/o ά a έ e ή i ί i ό o ύ u ώ o"
)


def _letters(line: str) -> dict[str, tuple[str, ...]]:
    pairs = line.split()
    return {
        letter: tuple(sound.strip("-") for sound in sounds.split("/"))
        for letter, sounds in zip(pairs[::2], pairs[1::2], strict=True)
    }


_SCRIPTS: Final = tuple(
    (
        re.compile(rf"[{letters}](?:[^{letters}A-Za-z]{{0,16}}[{letters}]){{{_LEAST - 1},}}"),
        table,
        str.maketrans({letter: sounds[0] for letter, sounds in table.items()}),
    )
    for letters, table in (
        ("\u0400-\u052f", _letters(_CYRILLIC)),
        ("\u0370-\u03ff", _letters(_GREEK)),
    )
)
_WORD: Final = re.compile(r"[^\W\d_]+")


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield stretches in one of the scripts that are English by the sound of their letters."""
    if source.ascii:
        return
    for run, table, first in _SCRIPTS:
        for match in run.finditer(source.text):
            if not work.take(40 * min(len(match[0]), _SAMPLE)):
                return
            lower = match[0].lower()
            if likeness(lower[:_SAMPLE].translate(first)) < _ENGLISH:
                continue
            if known(_latin(lower[:_SAMPLE], table)) < _WORDS or not work.take(20 * len(lower)):
                continue
            yield Found(match.start(), match.end(), _latin(lower, table), "transliterated")


def _latin(text: str, table: dict[str, tuple[str, ...]]) -> str:
    words = costs()

    def read(match: re.Match[str]) -> str:
        left = _CHOICES
        sounds: list[tuple[str, ...]] = []
        for letter in match[0]:
            choice = table.get(letter, (letter,))
            left -= len(choice) > 1
            sounds.append(choice if left >= 0 else choice[:1])
        readings = map("".join, itertools.product(*sounds))
        return min(readings, key=lambda word: words.get(word, float(len(words))))

    return _WORD.sub(read, text)
