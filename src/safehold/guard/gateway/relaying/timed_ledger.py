"""A ledger that says how long its rows took to be durable."""

import time
from collections.abc import Callable

from safehold.guard.ledger.interface import Row, RowSink


class TimedLedger:
    """Passes rows on; tells the seconds of each append, whether it was kept or not."""

    def __init__(self, inner: RowSink, took: Callable[[float], None]) -> None:
        """Take the ledger and whom to tell."""
        self._inner, self._took = inner, took

    async def append(self, row: Row, *more: Row) -> int:
        """Keep rows, as the ledger does."""
        began = time.perf_counter()
        try:
            return await self._inner.append(row, *more)
        finally:
            self._took(time.perf_counter() - began)

    async def close(self) -> None:
        """Close the ledger."""
        await self._inner.close()

    @property
    def trouble(self) -> str | None:
        """What is wrong with the storage."""
        return self._inner.trouble
