"""Decoded views as a session uses them: texts to score beside the text itself."""

from collections.abc import Iterable, Sequence

from safehold.exchange.views import StreamingViews, ViewLimits, readable, views

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
    """The decoded texts of one lane, each once."""

    __slots__ = ("_views",)

    def __init__(self, views: StreamingViews) -> None:
        self._views = views

    @property
    def pending(self) -> int:
        """Characters at the end that were not looked at yet; a session withholds them."""
        return self._views.pending

    def feed(self, text: str) -> Iterable[str]:
        """Return decoded texts that the new text made readable."""
        return [view.text for view in self._views.feed(text)]

    def finish(self) -> Iterable[str]:
        """Return decoded texts that only the end makes readable."""
        return [view.text for view in self._views.finish()]
