"""Decoded views as a session uses them: texts to score beside the text itself."""

from collections.abc import Iterable, Sequence

from safehold.exchange.views import StreamingViews, ViewLimits, views


class ViewDecoder:
    """Shows a text with everything it decodes to, and decodes a growing text as it grows."""

    def __init__(self, limits: ViewLimits | None = None) -> None:
        """Take the bounds of one search."""
        self._limits = limits or ViewLimits()

    def views(self, text: str) -> Sequence[str]:
        """Return the normalised text first, then its decoded views, without repeats."""
        found = [view.text for view in views(text, self._limits)]
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
