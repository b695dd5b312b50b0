"""Decoded views of a reply while it streams, in bounded memory and amortised constant work."""

import math

from safehold.exchange.views.interface import View, ViewLimits
from safehold.exchange.views.search import views


class StreamingSettings(ViewLimits, frozen=True, kw_only=True):
    """How much of a stream is looked at, and how often; in characters.

    Every `step_chars` new characters the window is looked at. While nothing is found it keeps
    only `overlap_chars`, so that an encoding cut in two is seen whole. While something is found
    it grows, and is looked at again each time it is `growth` times as long, up to
    `window_chars`: each character is looked at about growth / (growth - 1) times.
    """

    step_chars: int = 64
    overlap_chars: int = 192
    window_chars: int = 4096
    growth: float = 1.5


class StreamingViews:
    """Feed it the text of one lane; it gives back the decoded views that are new or longer.

    A growing encoding yields growing views: each holds all that its window decodes to so far and
    takes the place of the earlier, shorter one. What is not looked at yet is `pending` characters
    long: at most `step_chars`, or while an encoding grows a third of the window.
    """

    def __init__(self, settings: StreamingSettings | None = None) -> None:
        self._settings = settings or StreamingSettings()
        self._pieces: list[str] = []
        self._window = ""
        self._start = 0
        self._new = 0
        self._due = self._settings.step_chars
        self._given: set[str] = set()

    @property
    def pending(self) -> int:
        """The number of characters that were fed and not looked at yet."""
        return self._new

    def feed(self, text: str) -> tuple[View, ...]:
        """Take the next text of the lane; return what became decodable, spans in the stream.

        The normalised text itself is not among the views; the caller scores the text as it is.
        """
        found: list[View] = []
        room = self._settings.window_chars
        for begin in range(0, len(text), room):
            piece = text[begin : begin + room]
            self._pieces.append(piece)
            self._new += len(piece)
            if self._new >= self._due:
                found += self._look()
        return tuple(found)

    def finish(self) -> tuple[View, ...]:
        """Look at what is left when the lane ends."""
        return tuple(self._look()) if self._new else ()

    def _look(self) -> list[View]:
        settings = self._settings
        self._window += "".join(self._pieces)
        self._pieces.clear()
        self._new = 0
        plain, *decoded = views(self._window, settings)
        reach = max((view.span[1] for view in decoded if len(view.chain) == 1), default=0)
        # A normalised window may be shorter than the window: take the end of either as the end.
        is_open = bool(decoded) and reach > len(plain.text) - settings.overlap_chars
        shift = self._start
        if is_open and len(self._window) < settings.window_chars:
            self._due = max(
                settings.step_chars, math.ceil(len(self._window) * (settings.growth - 1))
            )
        else:
            self._keep(settings.overlap_chars)
            self._due = settings.step_chars
        return [view for view in (self._placed(v, shift) for v in decoded) if self._is_new(view)]

    def _keep(self, chars: int) -> None:
        dropped = max(0, len(self._window) - chars)
        self._window = self._window[dropped:]
        self._start += dropped

    @staticmethod
    def _placed(view: View, shift: int) -> View:
        if len(view.chain) != 1:
            return view
        return View(
            text=view.text,
            chain=view.chain,
            span=(view.span[0] + shift, view.span[1] + shift),
            spliced=view.spliced,
            cut=view.cut,
        )

    def _is_new(self, view: View) -> bool:
        if view.text in self._given:
            return False
        if len(self._given) >= self._settings.max_views * 4:
            self._given.clear()
        self._given.add(view.text)
        return True
