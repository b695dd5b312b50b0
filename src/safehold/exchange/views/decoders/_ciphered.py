"""Where a text's letters stop being English: what letter ciphers have in common."""

from collections.abc import Iterator

import numpy as np

from safehold.exchange.views.english_likeness import GAP, Floats, Letters, lowest_window
from safehold.exchange.views.interface import ViewSource

MIN_LETTERS = 10
_WINDOW = 18
_SUSPECT = 0.1
_ORDINARY = 0.5
_ENOUGH = 8.0
_FALL = 9.0
_NEAR = 300
_STOPS = (". ", "\n", ": ", '"', "“", "”", "? ", "! ")


def suspect(source: ViewSource) -> bool:
    """Tell cheaply whether any stretch of a text is unlike English."""
    return lowest_window(source.letters.bits, _WINDOW) < _SUSPECT


def stretches(source: ViewSource) -> Iterator[tuple[int, int]]:
    """Yield spans of words that are together much less English than English is, in O(words)."""
    if source.letters.count >= MIN_LETTERS and suspect(source):
        yield from runs(source.letters, _ORDINARY - source.letters.bits)


def runs(letters: Letters, oddness: Floats) -> Iterator[tuple[int, int]]:
    """Yield spans of words in which the oddness of letter pairs adds up; ordinary words end them.

    A run ends where its sum has fallen by a word or two from its peak, and reaches to that peak.
    """
    sums = running(oddness)
    gaps = np.flatnonzero(letters.codes == GAP)
    words = np.diff(sums[gaps]).tolist()
    run, best, first, end = 0.0, 0.0, 0, 0
    for number, oddity in enumerate(words):
        if run <= 0.0:
            run, best, first = 0.0, 0.0, number
        run += oddity
        if run > best:
            best, end = run, number
        if run <= 0.0 or run < best - _FALL:
            if best >= _ENOUGH:
                yield _span(letters, int(gaps[first]), int(gaps[end + 1]))
            run = 0.0
    if run > 0.0 and best >= _ENOUGH:
        yield _span(letters, int(gaps[first]), int(gaps[end + 1]))


def _span(letters: Letters, left: int, right: int) -> tuple[int, int]:
    return int(letters.at[left + 1]), int(letters.at[right - 1]) + 1


def widened(source: ViewSource, sums: Floats, start: int, end: int) -> tuple[int, int]:
    """Return a span with the words that belong to it up to a stop, quote, colon or line end.

    Some ciphered words look English by chance, and a run would begin or end one too late or early.
    `sums` are the running sums of the gain per letter pair, with a zero before.
    """
    text, at = source.text, source.letters.at
    far, near = max(0, start - _NEAR), min(len(text), end + _NEAR)
    left = max((text.rfind(stop, far, start) for stop in _STOPS), default=-1) + 1
    right = min(
        (i for i in (text.find(stop, end, near) for stop in _STOPS) if i >= 0), default=near
    )
    left = max(left, far)

    def worth(begin: int, stop: int) -> float:
        first, last = np.searchsorted(at, (begin, stop))
        return float(sums[min(last, len(sums) - 1)] - sums[min(first, len(sums) - 1)])

    if worth(left, start) > -_FALL:
        start = left + len(text[left:start]) - len(text[left:start].lstrip())
    if worth(end, right) > -_FALL:
        end = right
    return start, end


def running(values: Floats) -> Floats:
    """Return the running sums of values, beginning with zero."""
    return np.concatenate(([0.0], np.cumsum(values)))
