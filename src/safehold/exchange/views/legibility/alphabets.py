"""Words used as letters: a text of few different words in the proportions that letters have.

A code that writes a word, a syllable or an emoji for each letter repeats at most some thirty
words, about as often as letters come. Ordinary text has far more; a list, a refrain or a table of
small whole numbers has fewer, or repeats them evenly, or in one order.
"""

import itertools
import re
from collections import Counter
from typing import Final

TOKENS: Final = 100
"""Words that are judged together."""
_STEP: Final = 25
_MOST: Final = 34
_LEAST: Final = 8
_EVENNESS: Final = (0.043, 0.12)
"""Bounds of the chance that two words are the same; English letters have 0.066."""
_FRESH: Final = 0.5
"""The least share of neighbouring pairs that come once; a refrain repeats its pairs."""
_TOKEN: Final = re.compile(r"[^\s,;:/|\-]+")
_NUMBER: Final = re.compile(r"[\d.+%()]+")
_NUMBERS: Final = 0.3


class Alphabets:
    """Looks at the words of a growing text."""

    __slots__ = ("_rest", "_since", "_words")

    def __init__(self) -> None:
        self._words: list[tuple[str, int, int]] = []
        self._since = 0
        self._rest = ""

    def feed(self, text: str, start: int) -> list[tuple[int, int]]:
        """Take the next characters, which begin at `start`; return the stretches found."""
        start -= len(self._rest)
        whole = self._rest + text
        found = []
        self._rest = ""
        for match in _TOKEN.finditer(whole):
            if match.end() == len(whole):
                self._rest = match[0] if len(match[0]) <= TOKENS else ""
                break
            self._words.append((match[0], start + match.start(), start + match.end()))
            self._since += 1
            if len(self._words) > TOKENS:
                del self._words[0]
            if len(self._words) == TOKENS and self._since >= _STEP:
                self._since = 0
                if _coded([word for word, _, _ in self._words]):
                    found.append((self._words[0][1], self._words[-1][2]))
        return found


def _coded(words: list[str]) -> bool:
    counts = Counter(words)
    if not _LEAST <= len(counts) <= _MOST:
        return False
    if sum(map(bool, map(_NUMBER.fullmatch, words))) > _NUMBERS * len(words):
        return False
    number = len(words)
    same = sum(n * (n - 1) for n in counts.values()) / (number * (number - 1))
    if not _EVENNESS[0] <= same <= _EVENNESS[1]:
        return False
    pairs = list(itertools.pairwise(words))
    return len(set(pairs)) >= _FRESH * len(pairs)
