"""Counters that outlive their store: what it forgot is told again, what it missed is owed."""

import time
from collections import OrderedDict
from collections.abc import Callable

from safehold.errors import LedgerError
from safehold.guard.gateway.access.store import Store
from safehold.guard.gateway.access.windows import windowed


class SteadyCounters:
    """Counters in a store that may restart empty or be away for a while.

    Each process remembers the highest sum it saw of a counter. A store that tells less has lost
    it, and gets the difference again; so a suspension lasts as long as one gateway remembers it.
    What is charged while the store is away is kept, and added when it is back. Both err on the
    side of the limit where several processes do it at once.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ticks = ticks
        self._seen: dict[int, OrderedDict[str, tuple[float, int]]] = {}
        self._owed: dict[tuple[str, int, str], int] = {}

    async def add(self, key: str, amount: int, window_s: int) -> int:
        """Add to a counter, and what is still owed to it; return its sum.

        Raises:
            LedgerError: The store can't be reached; nothing of this amount is owed.
        """
        name = windowed(key, window_s, self._clock())
        owed = self._owed.pop((key, window_s, name), 0)
        try:
            total = await self._store.add(key, amount + owed, window_s)
            expected = self._known(name, window_s) + amount + owed
            if total < expected and self._store.shared:
                total = await self._store.add(key, expected - total, window_s)
        except LedgerError:
            if owed:
                self._owed[key, window_s, name] = owed
            raise
        self._remember(name, window_s, total)
        return total

    async def charge(self, key: str, amount: int, window_s: int) -> None:
        """Add to a counter now, or when the store is back."""
        try:
            await self.add(key, amount, window_s)
        except LedgerError:
            name = windowed(key, window_s, self._clock())
            self._owed[key, window_s, name] = self._owed.get((key, window_s, name), 0) + amount

    async def settle(self) -> None:
        """Add what is owed; windows that are over are forgotten."""
        for key, window_s, name in list(self._owed):
            if name != windowed(key, window_s, self._clock()):
                self._owed.pop((key, window_s, name), None)
                continue
            try:
                await self.add(key, 0, window_s)
            except LedgerError:
                return

    def _known(self, name: str, window_s: int) -> int:
        seen = self._seen.get(window_s)
        return 0 if seen is None else seen.get(name, (0.0, 0))[1]

    def _remember(self, name: str, window_s: int, total: int) -> None:
        if not self._store.shared:  # it ends with this process, as this memory does
            return
        now = self._ticks()
        seen = self._seen.setdefault(window_s, OrderedDict())
        _, before = seen.pop(name, (0.0, 0))
        seen[name] = (now, max(before, total))
        while next(iter(seen.values()))[0] < now - 2 * window_s:
            seen.popitem(last=False)
