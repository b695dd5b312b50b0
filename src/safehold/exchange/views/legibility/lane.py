"""A growing text and how much of it nobody can read, in bounded memory."""

from collections.abc import Iterable
from typing import Final

from safehold.exchange.views.interface import View
from safehold.exchange.views.legibility.alphabets import Alphabets
from safehold.exchange.views.legibility.hexadecimal import Hexadecimal
from safehold.exchange.views.legibility.kinds import typed
from safehold.exchange.views.legibility.model import CONTEXT, codes, stock_model
from safehold.exchange.views.legibility.spans import Spans, covered, merged, without
from safehold.exchange.views.legibility.stretches import SCALES, Windows, plausible, unreadable
from safehold.exchange.views.normalise import normalise

STEP: Final = 64
"""Characters after which the text is looked at again."""
_KEPT: Final = 65_536
_SLACK: Final = 16
"""Windows reach over the ends of what they find."""
_SHORT, _LONG = SCALES[0].window, SCALES[-1].window
_WORTH: Final = 100
"""Unreadable characters from which parsing blobs pays."""


class LegibleLane:
    """Feed it what a lane says and the views found meanwhile; `count` is what stays unreadable.

    Counted are the characters of stretches that the model finds implausible, that use words as
    letters or are text under a key in hexadecimal, without those that a view explains and those of
    blobs whose kind was parsed (each kind up to its allowance). It is a function of the text and of
    where `feed` was called.
    """

    __slots__ = (
        "_alphabets",
        "_credit",
        "_explained",
        "_hexadecimal",
        "_start",
        "_stretches",
        "_text",
        "_waiting",
        "_windows",
        "count",
    )

    def __init__(self) -> None:
        self._waiting = ""
        self._text = ""
        self._start = 0
        self._windows = [Windows(scale) for scale in SCALES]
        self._alphabets = Alphabets()
        self._hexadecimal = Hexadecimal()
        self._stretches: Spans = []
        self._explained: Spans = []
        self._credit = 0
        self.count = 0

    @property
    def pending(self) -> int:
        """Characters at the end that were not looked at yet."""
        return len(self._waiting)

    def feed(self, text: str, views: Iterable[View]) -> None:
        """Take the next characters of the lane, and the views that were found with them."""
        self._explain(views)
        self._waiting += text
        if len(self._waiting) >= STEP:
            self._look()

    def finish(self, views: Iterable[View]) -> None:
        """Look at what is left when the lane ends."""
        self._explain(views)
        self._look()
        if not self._start and _SHORT <= len(self._text) < _LONG:  # no long window was whole
            self._stretches = merged([*self._stretches, *unreadable(self._text)])
            self._count()

    def unknown(self, known: str) -> int:
        """Return the count without stretches that stand in `known` word for word."""
        left = self.count
        for start, end in without(self._stretches, self._explained):
            piece = self._text[max(0, start - self._start) : max(0, end - self._start)].strip()
            if piece and piece in known:
                left -= end - start
        return max(0, left)

    def _explain(self, views: Iterable[View]) -> None:
        found = [view for view in views if not view.spliced]
        outer: dict[str, Spans] = {}
        for view in found:
            if len(view.chain) == 1:
                outer.setdefault(view.chain[0], []).append(view.span)
        read: Spans = []
        for view in found:
            if plausible(view.text):
                read += [view.span] if len(view.chain) == 1 else outer.get(view.chain[0], [])
        if read:
            wide = [(start - _SLACK, end + _SLACK) for start, end in read]
            self._explained = merged([*self._explained, *wide])
            self._count()

    def _look(self) -> None:
        text, self._waiting = self._waiting, ""
        if not text:
            return
        text = _aligned(text)
        at = self._start + len(self._text)
        bits, points = stock_model().bits(text, self._text[-CONTEXT:]), codes(text)
        fresh = [span for windows in self._windows for span in windows.feed(bits, points)]
        fresh += self._alphabets.feed(text, at) + self._hexadecimal.feed(text, at)
        self._text += text
        if fresh:
            self._stretches = merged([*self._stretches, *fresh])
        if len(self._text) > _KEPT:
            dropped = len(self._text) - _KEPT // 2
            self._text, self._start = self._text[dropped:], self._start + dropped
        if self._stretches:
            self._count()

    def _count(self) -> None:
        left = without(self._stretches, self._explained)
        raw = covered(left)
        if raw - self._credit > _WORTH:
            kept = [
                (start - self._start, end - self._start) for start, end in left if end > self._start
            ]
            self._credit = max(self._credit, typed(self._text, kept))
        self.count = max(0, raw - self._credit)


def _aligned(text: str) -> str:
    """Return the text normalised, each character at its place: views' spans stay true."""
    if text.isascii():
        return text
    plain = normalise(text)
    return plain if len(plain) == len(text) else plain.ljust(len(text))[: len(text)]
