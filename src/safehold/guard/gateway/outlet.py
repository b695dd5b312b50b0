"""The way out: the only place where bytes of a response are handed to the client's socket."""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Headers = Sequence[tuple[bytes, bytes]]

SSE = b"text/event-stream; charset=utf-8"
JSON = b"application/json"


class Outlet:
    """One response. `text_bytes` counts UTF-8 bytes of model text that were handed over.

    `sending_since` is the time (of `clock`) since which the client has not taken what it was sent,
    None while it keeps up; whoever watches may cut a client that stalls.
    """

    def __init__(self, send: Send, clock: Callable[[], float], base: Headers = ()) -> None:
        self._send = send
        self._clock = clock
        self._base = list(base)
        self.status: int | None = None
        self.sending_since: float | None = None
        self.text_bytes = 0
        self.finished = False
        self.first_byte_at: float | None = None

    @property
    def started(self) -> bool:
        """Whether a status has been sent."""
        return self.status is not None

    def add_header(self, name: bytes, value: bytes) -> None:
        """Add a header to a response that has not started."""
        self._base.append((name, value))

    async def start(self, status: int, content_type: bytes, headers: Headers = ()) -> None:
        """Send the status and headers."""
        self.status = status
        self.first_byte_at = self._clock()
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", content_type), *self._base, *headers],
            }
        )

    async def start_events(self) -> None:
        """Send the status of an event stream, once."""
        if self.status is None:
            await self.start(200, SSE, ((b"cache-control", b"no-cache, no-transform"),))

    async def write(self, frames: bytes, text_bytes: int) -> None:
        """Send frames that carry `text_bytes` bytes of model text; waits for a slow client."""
        if self.status is None:
            await self.start_events()
        self.text_bytes += text_bytes
        self.sending_since = self._clock()
        await self._send({"type": "http.response.body", "body": frames, "more_body": True})
        self.sending_since = None

    async def end(self, frames: bytes = b"") -> None:
        """Send the last frames and end the response."""
        if self.finished:
            return
        if self.status is None:
            await self.start_events()
        self.finished = True
        self.sending_since = self._clock()
        await self._send({"type": "http.response.body", "body": frames, "more_body": False})
        self.sending_since = None

    async def whole(
        self, status: int, body: bytes, *, text_bytes: int = 0, headers: Headers = ()
    ) -> None:
        """Send a complete JSON response."""
        length = (b"content-length", str(len(body)).encode())
        await self.start(status, JSON, (length, *headers))
        self.text_bytes += text_bytes
        await self.end(body)
