"""Pig Latin: the first consonants of a word at its end, then `ay`."""

import re
from collections.abc import Iterator

from safehold.exchange.views.interface import Found, Source, Work
from safehold.exchange.views.likeness import likeness

_RUN = re.compile(r"\b[A-Za-z']{1,30}+(?<=ay)(?:[^A-Za-z\n]{1,4}+[A-Za-z']{1,30}+(?<=ay)){2,}+")
_WORD = re.compile(r"[A-Za-z']+")
_CONSONANTS = re.compile(r"[^aeiouAEIOU']+$")
_MAX_MOVED = 4
_MIN_WORDS = 3
_MIN_ENGLISH = 0.2


def find(source: Source, work: Work) -> Iterator[Found]:
    """Yield runs of three and more words in Pig Latin."""
    if source.text.lower().count("ay") < _MIN_WORDS:
        return
    for match in _RUN.finditer(source.text):
        if not work.take(40 * len(match[0])):
            return
        plain = _WORD.sub(_unpigged, match[0])
        if likeness(plain) >= _MIN_ENGLISH:
            yield Found(match.start(), match.end(), plain, "pig-latin")


def _unpigged(match: re.Match[str]) -> str:
    stem = match[0][:-2]
    readings = [stem[:-1]] if stem[-1:] in ("w", "y", "h", "W", "Y") and len(stem) > 1 else []
    tail = _CONSONANTS.search(stem)
    for moved in range(1, min(len(tail[0]) if tail else 0, _MAX_MOVED) + 1):
        readings.append(stem[-moved:] + stem[:-moved])
        if stem.lower().endswith("u") or stem[:-moved] == "":
            break
    if stem.lower().endswith("qu"):
        readings.append(stem[-2:] + stem[:-2])
    return max(readings, key=likeness, default=stem)
