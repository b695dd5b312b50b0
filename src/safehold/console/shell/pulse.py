"""Live updates: one watcher a process, a stream for each page, and where each stream left off.

An event is the ledger's newest row number. A browser that comes back says which it saw last
(`Last-Event-ID`) and hears at once if there is news; nothing is lost, since an event only says
"ask again".
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool

from safehold.errors import SafeholdError

MOST_STREAMS = 64
_EVERY_S = 2.0
_KEEPALIVE_S = 20.0


class PagePulse:
    """Watches one number for all open pages of a process."""

    def __init__(self, newest: Callable[[], int], *, every_s: float = _EVERY_S) -> None:
        """Take the function that reads the number; it may block and may fail."""
        self._newest, self._every_s = newest, every_s
        self._changed: asyncio.Condition | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.value = 0
        self.open = 0

    async def stream(self, last_seen: int) -> AsyncIterator[bytes]:
        """Yield events for one page, from the one after `last_seen` on."""
        self.open += 1
        if self._changed is None:
            self._changed = asyncio.Condition()
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch(self._changed))
        try:
            yield b"retry: 5000\n\n"
            # A number ahead of ours is another ledger's: then everything is news.
            sent = last_seen if last_seen <= self.value or not self.value else 0
            while True:
                if self.value > sent:
                    sent = self.value
                    yield f"id: {sent}\nevent: news\ndata: {sent}\n\n".encode()
                try:
                    async with asyncio.timeout(_KEEPALIVE_S), self._changed:
                        await self._changed.wait()
                except TimeoutError:
                    yield b": here\n\n"
        finally:
            self.open -= 1

    async def _watch(self, changed: asyncio.Condition) -> None:
        while self.open:
            try:
                now = await run_in_threadpool(self._newest)
            except SafeholdError:
                now = self.value  # the pages themselves tell what is wrong
            if now != self.value:
                self.value = now
                async with changed:
                    changed.notify_all()
            await asyncio.sleep(self._every_s)
