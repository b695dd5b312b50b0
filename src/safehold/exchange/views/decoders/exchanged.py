"""Spoonerisms: neighbouring words that have exchanged their beginnings.

Each word keeps its place and stays as it is or exchanges its first letter, or all consonants before
its first vowel, with the next word or the one after that. The cheapest reading is taken, a word's
cost being the logarithm of its rank; it counts where it turns a text of hardly any English words
into one of hardly any others.
"""

import re
from collections.abc import Iterator
from typing import Final

from safehold.exchange.views.english_likeness import Letters
from safehold.exchange.views.english_words import costs, known, various
from safehold.exchange.views.interface import Found, ViewSource, Work

_LEAST: Final = 40
_ENDINGS: Final = 1.28
_APART: Final = 0.9
_ONSETS: Final = 1.0
_SAMPLE: Final = 400
_GLANCE: Final = 96
_GLANCED: Final = 0.6
_BROKEN: Final = 0.65
_MENDED: Final = 0.75
_MOST: Final = 8192
_UNKNOWN: Final = 14.0
_EXCHANGE: Final = 3.0
"""What an exchange costs, so that a rare word does not start one."""
_PART: Final = re.compile(r"(\S+)(\s*)")
_ONSET: Final = re.compile(r"(?i)(?=[a-z])(?:[b-df-hj-np-tv-xz]*u(?<=qu)|[b-df-hj-np-tv-xz]*)")
_BARE: Final = re.compile(r"[^a-z]")
_REACH: Final = (1, 2)


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield a text of broken words with the beginnings exchanged that make them English."""
    letters = source.letters
    if letters.count < _LEAST or not source.broken or not _odd(letters):
        return
    text = source.text[:_MOST]
    if not work.take(2 * len(text)) or known(text[:_SAMPLE]) >= _BROKEN:
        return
    if not work.take(60 * len(text)) or known(mended(text[:_GLANCE])) < _GLANCED:
        return
    plain = mended(text)
    if known(plain) >= _MENDED and various(plain.lower().split()):
        yield Found(0, len(text), plain, "exchanged-beginnings")


def _odd(letters: Letters) -> bool:
    """Tell cheaply whether words can have wrong beginnings: they end as English words do.

    Where first letters alone are exchanged, hardly any pair of first and second letter is right;
    whole onsets leave all pairs right, and too few of the words.
    """
    first, others = letters.beginnings()
    return others >= _ENDINGS and (others - first >= _APART or letters.mean() >= _ONSETS)


def mended(text: str) -> str:
    """Return the text with the exchanges that make its words cheapest."""
    parts = _PART.findall(text)
    words = [word for word, _ in parts]
    best: list[float] = [0.0]
    back: list[tuple[str, ...]] = [()]
    for end in range(1, len(words) + 1):
        cheapest, said = best[end - 1] + _cost(words[end - 1]), (words[end - 1],)
        for reach in _REACH:
            start = end - 1 - reach
            if start < 0:
                break
            middle = tuple(words[start + 1 : end - 1])
            before = best[start] + sum(map(_cost, middle))
            if before >= cheapest:
                continue
            for one, two in _exchanged(words[start], words[end - 1]):
                cost = before + _cost(one) + _cost(two) + _EXCHANGE
                if cost < cheapest:
                    cheapest, said = cost, (one, *middle, two)
        best.append(cheapest)
        back.append(said)
    found: list[str] = []
    end = len(words)
    while end > 0:
        found += reversed(back[end])
        end -= len(back[end])
    return "".join(word + gap for word, (_, gap) in zip(reversed(found), parts, strict=True))


def _exchanged(one: str, two: str) -> Iterator[tuple[str, str]]:
    """Yield two words with their first letters exchanged, and with their onsets."""
    yield two[0] + one[1:], one[0] + two[1:]
    first, second = _onset(one), _onset(two)
    if (first, second) != (1, 1) and first < len(one) and second < len(two):
        yield two[:second] + one[first:], one[:first] + two[second:]


def _onset(word: str) -> int:
    match = _ONSET.match(word)
    return match.end() if match else 0


def _cost(word: str) -> float:
    bare = _BARE.sub("", word.lower())
    return costs().get(bare, _UNKNOWN) if bare else 0.0
