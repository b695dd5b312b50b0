"""A ledger without a disk, for tests of what writes to one."""

from safehold.errors import LedgerError
from safehold.guard.ledger.interface import Row


class MemoryLedger:
    """Keeps rows in a list; `fail` makes every later append raise, as a full disk would."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.fail: str | None = None
        self.closed = False

    async def append(self, row: Row, *more: Row) -> int:
        """Keep the rows and return the last one's sequence number."""
        if self.closed:
            raise LedgerError("expected an open ledger, came a closed one")
        if self.fail is not None:
            raise LedgerError(self.fail)
        self.rows += (row, *more)
        return len(self.rows)

    async def close(self) -> None:
        """Refuse every later row."""
        self.closed = True
