"""Stretches of a text that are no language, code or data that the model knows.

A window is unreadable if its mean bits exceed the threshold of its script at its scale: long
windows tell ciphers of ordinary text, short ones also what stands between readable words, at a
higher threshold. Windows with few letters are numbers and signs, of which other rules tell.
Thresholds lie at or above the 99.8 % quantile of windows of ordinary text in that script.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from safehold.exchange.views.legibility.model import Codes, Floats, codes, stock_model
from safehold.exchange.views.legibility.scripts import NAMES, NONE, scripts
from safehold.exchange.views.legibility.spans import Spans, covered, merged

LETTERS: Final = 0.4
"""The least share of a window that must be letters."""
_SAMPLE: Final = 4096
_NEVER: Final = 99.0
_WORDY: Final = 0.6
_ODD: Final = 0.25


class Scale(msgspec.Struct, frozen=True):
    """Windows of one length, one every `stride` characters, with thresholds by script."""

    window: int
    stride: int
    thresholds: dict[str, float]

    def limits(self) -> Floats:
        """Return the thresholds in the order of the scripts."""
        return np.array([self.thresholds.get(name, _NEVER) for name in NAMES])


SCALES: Final = (
    Scale(
        40,
        10,
        {
            "latin": 7.1, "cyrillic": 6.6, "greek": 6.7, "hebrew": 6.9, "arabic": 6.8,
            "indic": 6.8, "thai": 6.5, "georgian": 6.5, "armenian": 6.5, "ethiopic": 7.5,
            "kana": 8.4, "han": 10.8, "hangul": 8.4, "marks": 8.0, "pictures": 9.8, "other": 7.0,
        },
    ),
    Scale(
        160,
        20,
        {
            "latin": 5.8, "cyrillic": 5.7, "greek": 5.7, "hebrew": 5.6, "arabic": 5.9,
            "indic": 6.0, "thai": 5.8, "georgian": 5.7, "armenian": 5.7, "ethiopic": 6.5,
            "kana": 6.9, "han": 9.6, "hangul": 7.0, "marks": 7.0, "pictures": 8.5, "other": 6.0,
        },
    ),
)  # fmt: skip


class Windows:
    """The windows of one scale over a growing text; each is judged once, when it is whole."""

    __slots__ = ("_bits", "_done", "_limits", "_lowest", "_points", "_scale")

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._limits = scale.limits()
        self._lowest = min(scale.thresholds.values())
        self._bits: Floats = np.zeros(0)
        self._points: Codes = np.zeros(0, np.uint64)
        self._done = 0

    def feed(self, bits: Floats, points: Codes) -> Spans:
        """Take the next characters; return the windows found unreadable."""
        scale = self._scale
        self._bits = np.concatenate([self._bits, bits])
        self._points = np.concatenate([self._points, points])
        count = (len(self._bits) - scale.window) // scale.stride + 1
        if count <= 0:
            return []
        starts = np.arange(count) * scale.stride
        means = _sums(self._bits, starts, scale.window) / scale.window
        if means.max() <= self._lowest:  # nearly always: no script has so low a threshold
            return self._judged(count, ())
        limits = _limits(self._points, starts, scale.window, self._limits)
        return self._judged(count, np.flatnonzero(means > limits).tolist())

    def _judged(self, count: int, odd: Sequence[int]) -> Spans:
        """Drop what was judged; return the odd windows' spans."""
        first, stride = self._done, self._scale.stride
        self._bits, self._points = self._bits[count * stride :], self._points[count * stride :]
        self._done += count * stride
        return [(first + at * stride, first + at * stride + self._scale.window) for at in odd]


def _sums(values: Floats, starts: npt.NDArray[np.int64], window: int) -> Floats:
    running = np.concatenate(([0.0], np.cumsum(values)))
    found: Floats = running[starts + window] - running[starts]
    return found


def _limits(points: Codes, starts: npt.NDArray[np.int64], window: int, limits: Floats) -> Floats:
    """Return each window's threshold: its scripts' own, by their shares; none for few letters."""
    kinds = scripts(points)
    letters = np.zeros(len(starts))
    total = np.zeros(len(starts))
    for kind in np.unique(kinds):
        if kind != NONE:
            inside = _sums((kinds == kind).astype(np.float64), starts, window)
            letters += inside
            total += inside * limits[kind]
    found: Floats = np.where(letters >= LETTERS * window, total / np.maximum(letters, 1), _NEVER)
    return found


def unreadable(text: str) -> Spans:
    """Return the stretches of a whole text that the model finds implausible.

    A text shorter than a window is judged as if it went on as it is.
    """
    if not text.strip():
        return []
    bits, points = stock_model().bits(text), codes(text)
    found: Spans = []
    for scale in SCALES:
        size = max(len(text), scale.window)
        spans = Windows(scale).feed(np.resize(bits, size), np.resize(points, size))
        found += [(start, min(end, len(text))) for start, end in spans if start < len(text)]
    return merged(found)


def plausible(text: str) -> bool:
    """Tell whether a decoded text can be what was meant: words, and hardly anything unreadable."""
    sample = text[:_SAMPLE]
    wordy = sum(map(str.isalnum, sample)) + sum(map(str.isspace, sample))
    return wordy >= _WORDY * len(sample) and covered(unreadable(sample)) <= _ODD * len(sample)
