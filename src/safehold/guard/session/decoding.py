"""Decoded views as a session uses them: texts to score beside the text itself."""

from collections.abc import Iterable, Sequence

from safehold.exchange.views import StreamingViews, View, ViewLimits, readable, views
from safehold.exchange.views.decoders.initials import InitialsStream
from safehold.exchange.views.decoders.unspaced import cut
from safehold.exchange.views.legibility import LegibleLane

_OVERLAP = 4096
"""Characters that two parts of a long text share."""


class ViewDecoder:
    """Shows a text with everything it decodes to, and decodes a growing text as it grows."""

    def __init__(self, limits: ViewLimits | None = None) -> None:
        """Take the bounds of one search."""
        self._limits = limits or ViewLimits()

    def views(self, text: str) -> Sequence[str]:
        """Return the normalised text first, then its other views, without repeats.

        The reader's form (without marks and fillers around words) is among them where it differs.
        A text longer than the limits of one search is read in overlapping parts, so that every
        character stands in some view.
        """
        room = self._limits.max_chars
        found: list[str] = []
        for start in range(0, max(len(text) - _OVERLAP, 1), room - _OVERLAP):
            part = text[start : start + room]
            found += [view.text for view in views(part, self._limits)]
            shown = readable(part)
            if shown is not None:
                found.append(shown)
        return tuple(dict.fromkeys(found)) or (text,)

    def growing(self) -> "GrowingText":
        """Start decoding a lane of a reply."""
        return GrowingText(StreamingViews())


class GrowingText:
    """The decoded texts of one lane, each once, and how much of the lane nobody can read."""

    __slots__ = ("_behind", "_found", "_initials", "_legible", "_views")

    def __init__(self, views: StreamingViews) -> None:
        self._views = views
        self._legible = LegibleLane()
        self._initials = InitialsStream()
        self._behind: list[str] = []
        self._found: list[View] = []

    @property
    def decodes(self) -> bool:
        """It does."""
        return True

    @property
    def pending(self) -> int:
        """Characters at the end that were not looked at yet; a session withholds them."""
        return max(self._views.pending, sum(map(len, self._behind)) + self._legible.pending)

    @property
    def unreadable(self) -> int:
        """Characters so far that neither a view nor their kind explains."""
        return self._legible.count

    def unknown(self, known: str) -> int:
        """Return how many of those stand in stretches that are not in `known` word for word."""
        return self._legible.unknown(known)

    def feed(self, text: str) -> Iterable[str]:
        """Return decoded texts that the new text made readable."""
        found = self._views.feed(text)
        self._behind.append(text)
        self._found += found
        if not self._views.pending:  # what is looked at is judged with the views of it
            self._legible.feed("".join(self._behind), self._found)
            self._behind.clear()
            self._found.clear()
        spelt = [" ".join(cut(letters)[0]) for letters in self._initials.feed(text)]
        return [*(view.text for view in found), *spelt]

    def finish(self) -> Iterable[str]:
        """Return decoded texts that only the end makes readable."""
        found = self._views.finish()
        self._legible.feed("".join(self._behind), [*self._found, *found])
        self._behind.clear()
        self._found.clear()
        self._legible.finish(())
        return [view.text for view in found]
