"""Pig Latin: the first consonants of a word at its end, then `ay`."""

import re
from collections.abc import Iterator

from safehold.exchange.views.english_likeness import likeness
from safehold.exchange.views.interface import Found, ViewSource, Work

_RUN = re.compile(r"\b[A-Za-z']{1,30}+(?<=ay)(?:[^A-Za-z\n]{1,4}+[A-Za-z']{1,30}+(?<=ay)){3,}+")
_WORD = re.compile(r"[A-Za-z']+")
_CONSONANTS = re.compile(r"[^aeiouAEIOU']+$")
_VOWELS = frozenset("aeiou")
_ONSETS = frozenset(
    "bl br ch cl cr dr dw fl fr gh gl gn gr kn ph pl pr ps rh sc sch scr sh shr sk sl sm sn sp sph "
    "spl spr st str sw th thr tr tw wh wr".split()
)
_COMMON = frozenset(
    "a about all an and any are as at be but by can could did do for from get give good grain has "
    "have he her him his how i if in into is it its just know like long look make many me more my "
    "need new no not now of on one or other our out over please right see she should show so some "
    "step take takes tell than that the their them then there these they this time to two up use "
    "want was way we were what when where which while who why will with would you your".split()
)
_COMMON_WORD = 1.5
_DROPPED = 0.8
_MAX_MOVED = 4
_MIN_WORDS = 4
_MIN_ENGLISH = 0.2


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield runs of four and more words in Pig Latin."""
    if source.text.lower().count("ay") < _MIN_WORDS:
        return
    for match in _RUN.finditer(source.text):
        if not work.take(200 * len(match[0])):
            return
        plain = _WORD.sub(_unpigged, match[0])
        if likeness(plain) >= _MIN_ENGLISH:
            yield Found(match.start(), match.end(), plain, "pig-latin")


def _unpigged(match: re.Match[str]) -> str:
    stem = match[0][:-2]
    readings: dict[str, float] = {}
    if stem[-1:].lower() in ("w", "y", "h") and stem[:1].lower() in _VOWELS and len(stem) > 1:
        readings[stem[:-1]] = _DROPPED
    tail = _CONSONANTS.search(stem)
    for moved in range(1, min(len(tail[0]) if tail else 0, _MAX_MOVED) + 1):
        onset = stem[-moved:].lower()
        if moved == 1 or onset in _ONSETS or moved == len(stem):
            readings[stem[-moved:] + stem[:-moved]] = 0.0
    if stem.lower().endswith("qu"):
        readings[stem[-2:] + stem[:-2]] = 0.0
    return max(readings, key=lambda word: _worth(word) + readings[word], default=stem)


def _worth(word: str) -> float:
    return likeness(word) + (_COMMON_WORD if word.lower() in _COMMON else 0.0)
