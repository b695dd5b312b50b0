"""The spelling alphabet of NATO and ICAO."""

import re
from collections.abc import Iterator

from safehold.exchange.views.interface import Found, ViewSource, Work

_WORDS = (
    "alpha alfa bravo charlie delta echo foxtrot golf hotel india juliet juliett kilo lima mike "
    "november oscar papa quebec romeo sierra tango uniform victor whiskey whisky xray x-ray yankee "
    "zulu"
).split()
_DIGITS = "zero one two three four five six seven eight nine".split()
_PLAIN = {word: word[0] for word in _WORDS} | {w: str(n) for n, w in enumerate(_DIGITS)}
_PLAIN |= {"niner": "9", "tree": "3", "fife": "5", "dash": "-", "hyphen": "-", "space": " "}
_ANY = "|".join(sorted(_PLAIN, key=len, reverse=True))
_RUN = re.compile(rf"\b(?:{_ANY})\b(?:[\s,.;:/|()\-]{{1,5}}+(?:{_ANY})\b){{3,}}+", re.IGNORECASE)
_TOKEN = re.compile(rf"(?:{_ANY})\b", re.IGNORECASE)
_MIN_LETTERS = 4


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield runs of four and more spelled letters; a wide or marked gap ends a word."""
    lower = source.text.lower()
    if not any(word in lower for word in _WORDS):
        return
    for match in _RUN.finditer(source.text):
        part = match[0]
        if not work.take(2 * len(part)):
            return
        letters: list[str] = []
        at = 0
        for token in _TOKEN.finditer(part):
            gap = part[at : token.start()]
            if letters and (len(gap.strip(" ,.;:")) or "\n" in gap or "  " in gap):
                letters.append(" ")
            letters.append(_PLAIN[token[0].lower()])
            at = token.end()
        plain = "".join(letters)
        if sum(letter.isalpha() for letter in plain) >= _MIN_LETTERS:
            yield Found(match.start(), match.end(), plain, "nato")
