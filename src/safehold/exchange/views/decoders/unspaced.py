"""English without its spaces, or with moved ones: letters cut into words again.

The cheapest cut is taken, a word's cost being the logarithm of its rank.
"""

import re
from collections.abc import Iterator

from safehold.exchange.views.english_likeness import likeness
from safehold.exchange.views.english_words import costs, known, trigrams, various
from safehold.exchange.views.interface import Found, ViewSource, Work

_RUN = re.compile(r"[A-Za-z]{22,}")
_LONGEST = 22
_ENGLISH = 0.45
_PER_LETTER = 2.45
"""The most that a letter may cost: English costs about 1.9, random letters over 4."""
_UNKNOWN = 12.0
_SAMPLE = 400
_MOST = 8192
_NOT_LETTERS = re.compile(r"[^A-Za-z]+")
_LEAST_MOVED = 60
_SPACED = 1.28
"""Letter pairs of English have about 1.4 bits, those of English with moved spaces 0.9."""
_TRIGRAM = 34
"""Letters of English to one of its trigrams, at most; median 15."""
_BROKEN = 0.55
"""The share of words below which a text is broken; English has 0.83 and more."""
_GLANCE = 48
_PER_GLANCED = 3.4
_PER_MOVED = 2.9
"""The most for letters whose words are few of the list: foreign text costs 3.1 and more."""


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield runs of letters that read as English once they are cut into words."""
    yield from _moved(source, work)
    for match in _RUN.finditer(source.text):
        run = match[0][:_MOST].lower()
        if likeness(run[:_SAMPLE]) < _ENGLISH:
            continue
        if not work.take(60 * len(run)):
            return
        words, cost = cut(run)
        if cost <= _PER_LETTER * len(run) and len(words) > 3:
            yield Found(match.start(), match.end(), " ".join(words), "unspaced")


def _moved(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield a text whose spaces stand in the wrong places, with them in the right ones."""
    letters = source.letters
    if letters.count < _LEAST_MOVED or letters.mean() >= _SPACED or not source.broken:
        return
    text = source.text[:_MOST]
    if not work.take(len(text)) or trigrams(text) * _TRIGRAM < letters.count:
        return
    if known(text[:_SAMPLE]) >= _BROKEN:
        return
    run = _NOT_LETTERS.sub("", text).lower()
    if not work.take(60 * len(run)) or cut(run[:_GLANCE])[1] > _PER_GLANCED * len(run[:_GLANCE]):
        return
    words, cost = cut(run)
    if cost <= _PER_MOVED * len(run) and various(words):
        yield Found(0, len(text), " ".join(words), "respaced")


def cut(run: str) -> tuple[list[str], float]:
    """Return the cheapest cut of a run of small letters into words, and its cost."""
    prices, longest = costs(), _LONGEST
    best = [0.0]
    back = [0]
    for end in range(1, len(run) + 1):
        cheapest, start = best[end - 1] + _UNKNOWN, end - 1
        for begin in range(max(0, end - longest), end):
            cost = prices.get(run[begin:end])
            if cost is not None and best[begin] + cost < cheapest:
                cheapest, start = best[begin] + cost, begin
        best.append(cheapest)
        back.append(start)
    words: list[str] = []
    end = len(run)
    while end > 0:
        words.append(run[back[end] : end])
        end = back[end]
    return words[::-1], best[-1]
