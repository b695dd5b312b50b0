"""One decoding of an exchange for several classes: each text and each lane is looked at once.

Whoever reads a lane second is given what the first reader was given, as long as it is fed the same
pieces. One that is fed others gets a decoder of its own, so sharing never changes what is found.
"""

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from safehold.guard.session.lanes import GrowingViews
from safehold.guard.session.session import TextDecoder


class _LaneLook(msgspec.Struct, frozen=True):
    """What one feeding of a lane gave; `text` is None for its end."""

    text: str | None
    found: tuple[str, ...]
    pending: int
    unreadable: int


class _SharedLane:
    """One decoded lane, and what each feeding of it gave since the slowest reader."""

    def __init__(self, views: GrowingViews, readers: int) -> None:
        self.views = views
        self._readers = readers
        self._looks: deque[_LaneLook] = deque()
        self._first = 0
        self._at = [0] * readers

    def look(self, reader: int, text: str | None) -> _LaneLook | None:
        """Return what a feeding gives; None where this reader is fed something else."""
        at = self._at[reader] - self._first
        if at == len(self._looks):
            found = tuple(self.views.finish() if text is None else self.views.feed(text))
            self._looks.append(_LaneLook(text, found, self.views.pending, self.views.unreadable))
        look = self._looks[at]
        if look.text != text:
            return None
        self._at[reader] += 1
        while self._looks and min(self._at) > self._first:
            self._looks.popleft()
            self._first += 1
        return look

    def leave(self, reader: int) -> None:
        """Wait for this reader no more."""
        self._at[reader] = 1 << 62


class _SharedReading:
    """A lane as one of its readers sees it (`GrowingViews`)."""

    def __init__(self, lane: _SharedLane, reader: int, fresh: TextDecoder) -> None:
        self._lane = lane
        self._reader = reader
        self._fresh = fresh
        self._own: GrowingViews | None = None
        self._fed: list[str] = []
        self._pending = self._unreadable = 0

    @property
    def decodes(self) -> bool:
        """Whether it decodes."""
        return self._lane.views.decodes

    @property
    def pending(self) -> int:
        """Characters at the end that were not looked at yet."""
        return self._pending

    @property
    def unreadable(self) -> int:
        """Characters that nobody can read."""
        return self._unreadable

    def unknown(self, known: str) -> int:
        """Return how many of those stand in stretches that are not in `known` word for word."""
        return (self._own or self._lane.views).unknown(known)

    def feed(self, text: str) -> Iterable[str]:
        """Return decoded texts that the new text made readable."""
        return self._look(text)

    def finish(self) -> Iterable[str]:
        """Return decoded texts that only the end makes readable."""
        return self._look(None)

    def _look(self, text: str | None) -> Iterable[str]:
        look = None
        if self._own is None:
            look = self._lane.look(self._reader, text)
            if look is None:
                self._part()
        if look is None:
            return self._alone(text)
        if text is not None:
            self._fed.append(text)
        self._pending, self._unreadable = look.pending, look.unreadable
        return look.found

    def _part(self) -> None:
        """Read alone from here on, after all that was read together."""
        self._lane.leave(self._reader)
        self._own = self._fresh.growing()
        self._own.feed("".join(self._fed))
        self._fed.clear()

    def _alone(self, text: str | None) -> Iterable[str]:
        own = self._own or self._fresh.growing()
        found = tuple(own.finish() if text is None else own.feed(text))
        self._pending, self._unreadable = own.pending, own.unreadable
        return found


class SharedViews:
    """The views of one exchange, for as many readers as it has classes."""

    def __init__(self, decoder: TextDecoder, readers: int) -> None:
        """Take the decoder that does the work, and how many read what it gives."""
        self._decoder = decoder
        self._readers = readers
        self._views: dict[str, Sequence[str]] = {}
        self._lanes: list[_SharedLane] = []
        self._opened = [0] * readers

    def reader(self, number: int) -> "ViewsOfOne":
        """Return the decoder that one of the classes uses (0 … readers - 1)."""
        return ViewsOfOne(self, number)

    def views(self, text: str) -> Sequence[str]:
        """Return the text and its decoded views, looked for once."""
        found = self._views.get(text)
        if found is None:
            found = self._views[text] = self._decoder.views(text)
        return found

    def growing(self, reader: int) -> GrowingViews:
        """Return a reader's next lane; readers open the lanes of an exchange in the same order."""
        number = self._opened[reader]
        self._opened[reader] += 1
        if number == len(self._lanes):
            self._lanes.append(_SharedLane(self._decoder.growing(), self._readers))
        return _SharedReading(self._lanes[number], reader, self._decoder)


class ViewsOfOne:
    """The shared views as one class's session is given them (`TextDecoder`)."""

    def __init__(self, shared: SharedViews, number: int) -> None:
        self._shared = shared
        self._number = number

    def views(self, text: str) -> Sequence[str]:
        """Return the text and its decoded views."""
        return self._shared.views(text)

    def growing(self) -> GrowingViews:
        """Start decoding a lane of a reply."""
        return self._shared.growing(self._number)
