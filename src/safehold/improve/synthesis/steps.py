"""What a run of a generator tells while it asks: calls and tokens, and what is left of them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from safehold.improve.synthesis.pace import Pace
from safehold.progress import Progress

_EVERY_S = 1.0


class AnsweredSteps:
    """Counts the calls of cells that are answered, each once however often it was repeated."""

    def __init__(self, progress: Progress, pace: Pace, each: int) -> None:
        """Take who is told, the pace of the calls, and how many calls a cell is."""
        self._progress = progress
        self._pace = pace
        self._each = each
        self._total = 0
        self._done: Counter[str] = Counter()

    def start(self, cells: int) -> None:
        """Begin a pass over so many cells."""
        self._done.clear()
        self._total = cells * self._each
        self._progress.start("calls to the generator", self._total)

    def step(self, cell: str) -> None:
        """Note that a call of a cell is answered, well or badly."""
        self._advance(cell, 1)

    def end(self, cell: str) -> None:
        """Note that a cell has no more calls; it may have needed fewer than planned."""
        self._advance(cell, self._each - self._done[cell])

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Tell every second where the calls stand, and once more at the end."""
        telling = asyncio.create_task(self._tell())
        try:
            yield
        finally:
            telling.cancel()
            self._note()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            self._note()

    def _note(self) -> None:
        self._progress.note(*self._pace.told(self._total - self._done.total()))

    def _advance(self, cell: str, steps: int) -> None:
        self._done[cell] += steps
        if steps:
            self._progress.advance(steps)
