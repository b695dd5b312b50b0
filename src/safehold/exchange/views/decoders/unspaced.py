"""English without its spaces, or with moved ones: letters cut into words again.

The words are the 40,000 most frequent of the list in wordninja 2.0.0 (Derek Anderson, MIT), in
order of frequency. The cheapest cut is taken, a word's cost being the logarithm of its rank.
"""

import functools
import gzip
import math
import re
from collections.abc import Iterator
from importlib import resources

from safehold.exchange.views.english_likeness import likeness
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
_SPACED = 1.0
_LEAST_ENGLISH = 0.3


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
    if letters.count < _LEAST_MOVED or not source.ascii or letters.mean() >= _SPACED:
        return
    run = _NOT_LETTERS.sub("", source.text[:_MOST]).lower()
    if likeness(run[:_SAMPLE]) < _LEAST_ENGLISH:
        return
    if not work.take(60 * len(run)):
        return
    words, cost = cut(run)
    if cost <= _PER_LETTER * len(run):
        yield Found(0, len(source.text), " ".join(words), "respaced")


def cut(run: str) -> tuple[list[str], float]:
    """Return the cheapest cut of a run of small letters into words, and its cost."""
    costs, longest = _costs(), _LONGEST
    best = [0.0]
    back = [0]
    for end in range(1, len(run) + 1):
        cheapest, start = best[end - 1] + _UNKNOWN, end - 1
        for begin in range(max(0, end - longest), end):
            cost = costs.get(run[begin:end])
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


@functools.cache
def _costs() -> dict[str, float]:
    file = resources.files("safehold.exchange.views.decoders") / "words.txt.gz"
    words = gzip.decompress(file.read_bytes()).decode("ascii").split()
    scale = math.log(len(words))
    return {word: math.log((rank + 1) * scale) for rank, word in enumerate(words)}
