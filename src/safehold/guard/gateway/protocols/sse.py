"""Server-sent events: an incremental reader with limits, and the two shapes that are written.

Source: WHATWG HTML, "Server-sent events", 9.2.5 and 9.2.6. A reader keeps at most one unfinished
event; whatever is longer than the limit is a broken reply, and an unknown field is ignored.
"""

import codecs

from safehold.guard.gateway.interface import BrokenReplyError


class EventReader:
    """Cuts a byte stream into the data of its events.

    `max_event_bytes` bounds what is kept between two calls.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._rest = bytearray()
        self._scanned = 0
        self._cr = False
        self._max = max_event_bytes
        self._first = True

    @property
    def unfinished(self) -> bool:
        """Whether an event has begun that has not ended."""
        return bool(self._rest.strip())

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the data of every event that they complete.

        Raises:
            BrokenReplyError: An event passes the size limit.
        """
        if b"\r" in data or self._cr:
            data = self._newlines(data)
        if (
            data.find(b"\n") == len(data) - 2
            and data.startswith(b"data: ")
            and data.endswith(b"\n\n")
            and not (self._rest or self._first or len(data) > self._max)
        ):
            return (
                [data[6:-2]] if len(data) > len(b"data: \n\n") else []
            )  # a model at its pace: one event comes at a time
        if not self._rest and data.endswith(b"\n\n") and not self._first:
            blocks = data[:-2].split(b"\n\n")  # the common case: whole events, nothing kept
        else:
            blocks = self._split(data)
        events = []
        for block in blocks:
            if len(block) > self._max:
                raise BrokenReplyError(f"expected events of at most {self._max} bytes, came more")
            if block.startswith(b"data: ") and b"\n" not in block:
                if len(block) > len(b"data: "):
                    events.append(block[6:])
            elif block:
                payload = self._fields(block)
                if payload is not None:
                    events.append(payload)
        return events

    def _newlines(self, data: bytes) -> bytes:
        """Turn CR LF and CR into LF, also where a CR LF is cut in two."""
        if not data:
            return data  # nothing came, so a CR before it may still be half of a CR LF
        if self._cr and data.startswith(b"\n"):
            data = data[1:]
        self._cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _split(self, data: bytes) -> list[bytes]:
        """Join `data` to what was kept and take the finished events off, in O(new bytes)."""
        rest = self._rest
        rest += data
        if self._first and len(rest) >= len(codecs.BOM_UTF8):
            if rest.startswith(codecs.BOM_UTF8):
                del rest[: len(codecs.BOM_UTF8)]
            self._first = False
        end = rest.rfind(b"\n\n", max(0, self._scanned - 1))
        if end < 0:
            self._scanned = len(rest)
            if len(rest) > self._max:
                raise BrokenReplyError(f"expected events of at most {self._max} bytes, came more")
            return []
        blocks = bytes(rest[:end]).split(b"\n\n")
        del rest[: end + 2]
        self._scanned = len(rest)
        return blocks

    def _fields(self, block: bytes) -> bytes | None:
        """Return the joined data lines of one event, or None if it has none."""
        data = []
        for line in block.split(b"\n"):
            if not line or line.startswith(b":"):
                continue
            name, _, value = line.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
        return b"\n".join(data) or None


def frame(payload: bytes) -> bytes:
    """Return one unnamed event."""
    return b"data: " + payload + b"\n\n"


def named(event: str, payload: bytes) -> bytes:
    """Return one named event."""
    return b"event: " + event.encode() + b"\ndata: " + payload + b"\n\n"
