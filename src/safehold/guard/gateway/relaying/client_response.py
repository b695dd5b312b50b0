"""The way out: the only place where bytes of a response are handed to the client's socket."""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Headers = Sequence[tuple[bytes, bytes]]

SSE = b"text/event-stream; charset=utf-8"
JSON = b"application/json"
_STATUS_LINE = len(b"HTTP/1.1 200 OK\r\n")
_CHUNKED = len(b"transfer-encoding: chunked\r\n")
_LAST_CHUNK = len(b"0\r\n\r\n")
_SLICE = 65_536


class Outlet:
    """One response. `text_bytes` counts UTF-8 bytes of model text that were handed over.

    `sending_since` is the time (of `clock`) since which the client has not taken what it was sent,
    None while it keeps up; whoever watches may cut a client that stalls. `sent_bytes` counts what
    was written to the socket, HTTP framing included; for a client that is cut or hangs up it is
    exact to one slice and what the transport still held (64 KiB each).
    """

    def __init__(
        self,
        send: Send,
        clock: Callable[[], float],
        base: Headers = (),
        *,
        knows_chunks: bool = True,
    ) -> None:
        """Take the way out; a client that knows no chunks (HTTP/1.0) gets a known length."""
        self._send = send
        self._knows_chunks = knows_chunks
        self._held: tuple[list[tuple[bytes, bytes]], list[bytes]] | None = None
        self._clock = clock
        self._base = list(base)
        self.status: int | None = None
        self.sending_since: float | None = None
        self.text_bytes = 0
        self.finished = False
        self.first_byte_at: float | None = None
        self.sent_bytes = 0
        self.account = ""
        self.tokens: int | None = None
        self.gone = False
        self._claimed = 0
        self._chunked = False

    def unclaimed(self) -> int:
        """Return the bytes sent since the last call."""
        count, self._claimed = self.sent_bytes - self._claimed, self.sent_bytes
        return count

    def hang_up(self) -> None:
        """Count nothing more: the client is gone, so what is written goes nowhere."""
        self.gone = True

    def _count(self, size: int) -> None:
        if not self.gone:
            self.sent_bytes += size

    async def _body(self, frames: bytes, *, more: bool) -> None:
        """Send frames in slices; each is counted when the transport has taken it."""
        if self._held is not None:
            lines, parts = self._held
            parts.append(frames)
            if more:
                return
            self._held, frames = None, b"".join(parts)
            await self._head([*lines, (b"content-length", str(len(frames)).encode())])
        at, total = 0, len(frames)
        while True:
            part = frames if total <= _SLICE else frames[at : at + _SLICE]
            size = len(part)
            at += size
            self.sending_since = self._clock()
            await self._send(
                {"type": "http.response.body", "body": part, "more_body": more or at < total}
            )
            if not self.gone:  # with the lines that its chunk adds
                self.sent_bytes += size + (self._framing(size) if self._chunked else 0)
            if at >= total:
                break
        self.sending_since = None

    @staticmethod
    def _framing(size: int) -> int:
        """Return the bytes that HTTP puts around a chunk of a size; none around an empty one."""
        return (size.bit_length() + 3) // 4 + 4 if size else 0

    @property
    def started(self) -> bool:
        """Whether a status has been sent."""
        return self.status is not None

    def add_header(self, name: bytes, value: bytes) -> None:
        """Add a header to a response that has not started."""
        self._base.append((name, value))

    def promise(self, text_bytes: int) -> None:
        """Count model text of a whole body before its row is kept, which is before it is sent."""
        self.text_bytes += text_bytes

    async def start(self, status: int, content_type: bytes, headers: Headers = ()) -> None:
        """Send the status and headers."""
        self.status = status
        self.first_byte_at = self._clock()
        lines = [(b"content-type", content_type), *self._base, *headers]
        if not self._knows_chunks and all(name != b"content-length" for name, _ in lines):
            self._held = (lines, [])
        else:
            await self._head(lines)

    async def _head(self, lines: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.start", "status": self.status, "headers": lines})
        self._chunked = all(name != b"content-length" for name, _ in lines)
        size = sum(len(name) + len(value) + 4 for name, value in lines) + 2
        self._count(_STATUS_LINE + size + (_CHUNKED if self._chunked else 0))

    async def start_events(self) -> None:
        """Send the status of an event stream, once."""
        if self.status is None:
            await self.start(200, SSE, ((b"cache-control", b"no-cache, no-transform"),))

    async def write(self, frames: bytes, text_bytes: int) -> None:
        """Send frames that carry `text_bytes` bytes of model text; waits for a slow client."""
        if self.status is None:
            await self.start_events()
        self.text_bytes += text_bytes
        size = len(frames)
        if self._held is not None or not 0 < size <= _SLICE:
            await self._body(frames, more=True)
            return
        self.sending_since = self._clock()  # one piece, as `_body` sends it
        await self._send({"type": "http.response.body", "body": frames, "more_body": True})
        if not self.gone:
            self.sent_bytes += size + (self._framing(size) if self._chunked else 0)
        self.sending_since = None

    async def end(self, frames: bytes = b"") -> None:
        """Send the last frames and end the response."""
        if self.finished:
            return
        if self.status is None:
            await self.start_events()
        self.finished = True
        await self._body(frames, more=False)
        if self._chunked:
            self._count(_LAST_CHUNK)

    async def whole(
        self, status: int, body: bytes, *, text_bytes: int = 0, headers: Headers = ()
    ) -> None:
        """Send a complete JSON response."""
        length = (b"content-length", str(len(body)).encode())
        await self.start(status, JSON, (length, *headers))
        self.text_bytes += text_bytes
        await self.end(body)
