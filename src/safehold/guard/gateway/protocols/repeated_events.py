"""Events that differ in their text alone: read by their frame, which was read in full once.

A server writes the same bytes around each piece of text. Once an event was read, the next one with
the same bytes before and after one JSON string can only mean the same with another text: the text
is then all that is read of it. Any other event is read in full.
"""

import msgspec

from safehold.exchange import Lane
from safehold.guard.gateway.protocols.json_border import encode

_read_text = msgspec.json.Decoder(str).decode
TRIES = 8
"""How often in a row an answer's events are tried for a frame that comes again."""
PROBE = "\x01repeated\x02"
"""The text that a candidate frame is tried with."""


class Repeated:
    """The frame of an event that brings text of one lane."""

    __slots__ = ("_after", "_before", "_end", "_least", "_start", "lane")

    def __init__(self, lane: Lane, before: bytes, after: bytes) -> None:
        """Take the bytes around the text; the caller has tried them."""
        self.lane = lane
        self._before, self._after = before, after
        self._start, self._end = len(before), len(after)
        self._least = len(before) + len(after)

    def text(self, event: bytes) -> str:
        """Return the text of an event that has this frame; nothing for any other event."""
        size = len(event)
        if size <= self._least or not event.startswith(self._before):
            return ""
        if not event.endswith(self._after):
            return ""
        try:
            return _read_text(event[self._start : size - self._end])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return ""


def around(event: bytes, text: str, name: bytes) -> tuple[bytes, bytes] | None:
    """Return what stands before and after the text in the last field of a name; None if unsure."""
    at = event.rfind(b'"' + name + b'":')
    if at < 0:
        return None
    at += len(name) + 3
    while event[at : at + 1] == b" ":
        at += 1
    literal = encode(text)
    if not event.startswith(literal, at):
        return None
    return event[:at], event[at + len(literal) :]
