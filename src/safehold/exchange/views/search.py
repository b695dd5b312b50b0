"""Looking for decoded views, breadth first, within bounds."""

from collections import deque

import msgspec

from safehold.exchange.views.interface import Found, View, ViewLimits, ViewSource, Work
from safehold.exchange.views.normalise import normalise
from safehold.exchange.views.table import DECODERS, Decoder

_DEFAULT = ViewLimits()
_SHARES = 8


def views(text: str, limits: ViewLimits = _DEFAULT) -> tuple[View, ...]:
    """Return what a text says, first as it is (normalised), then under every encoding found.

    Encodings are looked for in the whole text and in parts of it, one on top of another as deep
    as the limits say. Each found part gives a view of itself, and the parts of one decoder a view
    of the text with them put back. Views are distinct and in a fixed order: shallow before deep,
    then in the decoders' order. Never raises, whatever the text holds.
    """
    cut = len(text) > limits.max_chars
    if cut:
        head = limits.max_chars * 3 // 4
        text = text[:head] + "\n" + text[head - limits.max_chars :]
    plain = normalise(text)
    found = _Views(limits)
    first = View(text=plain, chain=(), span=(0, len(plain)), cut=cut)
    found.add(first, text)
    work = Work(limits.max_work)
    starved = False
    waiting: deque[tuple[View, str]] = deque([(first, text)])
    while waiting and not found.full and work.left > 0:
        parent, raw = waiting.popleft()
        if len(parent.chain) >= limits.depth:
            continue
        source = ViewSource(parent.text)  # what is found out about it is shared where both are one
        sources = (source, source if raw == parent.text else ViewSource(raw))
        for decoder in DECODERS:
            # No decoder may use up what the others need: padding must not blind them.
            own = Work(min(work.left, limits.max_work // _SHARES))
            before = own.left
            for child, child_raw in _children(parent, sources, decoder, limits, own):
                if found.add(child, child_raw):
                    waiting.append((child, child_raw))
            starved = starved or own.left < 0
            work.take(before - max(own.left, 0))
    if starved or work.left <= 0 or found.full:
        found.views[0] = msgspec.structs.replace(first, cut=True)
    return tuple(found.views)


class _Views:
    """The views so far: distinct, and no more than the limits allow."""

    def __init__(self, limits: ViewLimits) -> None:
        self.views: list[View] = []
        self._seen: set[str] = set()
        self._texts: set[str] = set()
        self._limits = limits

    @property
    def full(self) -> bool:
        return len(self.views) >= self._limits.max_views

    def add(self, view: View, raw: str) -> bool:
        """Keep a view unless it is known, empty or too many; tell whether to look into it.

        A text of invisible characters alone is an empty view, and still worth looking into.
        """
        if self.full or raw in self._seen:
            return False
        self._seen.add(raw)
        if view.text.strip() or not view.chain:
            if view.text in self._texts:
                return False
            self._texts.add(view.text)
            self.views.append(view)
        return bool(raw)


def _children(
    parent: View,
    sources: tuple[ViewSource, ViewSource],
    decoder: Decoder,
    limits: ViewLimits,
    work: Work,
) -> list[tuple[View, str]]:
    source = sources[1] if decoder.raw else sources[0]
    if not work.take(len(source.text) // 8):
        return []
    parts: list[Found] = []
    for part in decoder.find(source, work):
        parts.append(part)
        if len(parts) >= limits.max_found:
            break
    if not parts:
        return []
    children = []
    room = limits.max_view_chars
    for part in parts:
        chain, span = (*parent.chain, part.how), (part.start, part.end)
        plain = normalise(part.text[:room])
        view = View(text=plain, chain=chain, span=span, cut=len(part.text) > room)
        children.append((view, part.text[:room]))
    whole = source.text
    parts = _apart(parts)
    if len(parts) > 1 or whole[: parts[0].start].strip() or whole[parts[-1].end :].strip():
        children.append(_spliced(parent, whole, parts, room))
    return children


def _apart(parts: list[Found]) -> list[Found]:
    """Return the parts that do not overlap an earlier found one, in the text's order."""
    kept: list[Found] = []
    for part in parts:
        if all(part.end <= other.start or part.start >= other.end for other in kept):
            kept.append(part)
    return sorted(kept, key=lambda part: part.start)


def _spliced(parent: View, whole: str, parts: list[Found], room: int) -> tuple[View, str]:
    """Return the text with decoded parts in place; of a long one, the surroundings of the parts."""
    pieces, at = [], 0
    for part in parts:
        pieces += [whole[at : part.start], part.text]
        at = part.end
    pieces.append(whole[at:])
    text = "".join(pieces)
    cut = len(text) > room
    if cut:
        start = max(0, parts[0].start - room // 4)
        text = text[start : start + room]
    chain = (*parent.chain, parts[0].how)
    span = (parts[0].start, parts[-1].end)
    return View(text=normalise(text), chain=chain, span=span, spliced=True, cut=cut), text
