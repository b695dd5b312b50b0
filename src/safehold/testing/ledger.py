"""A ledger without a disk, and rows to put into one."""

import itertools
from typing import Any

from safehold.errors import LedgerError
from safehold.exchange import Lane, user_says
from safehold.guard.interface import DeliveryMode
from safehold.guard.ledger.interface import (
    Action,
    Delivered,
    FinalRow,
    LedgerVerdict,
    Outcome,
    ProgressRow,
    PromptRow,
    Row,
)


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

    @property
    def trouble(self) -> str | None:
        """What a failing disk would be reported as."""
        return self.fail

    async def close(self) -> None:
        """Refuse every later row."""
        self.closed = True


NOW = 1_900_000_000.0


class RowMaker:
    """Makes rows that differ only where a test says so."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def prompt(self, decision_id: str | None = None, **changes: Any) -> PromptRow:
        """A request that went through."""
        values: dict[str, Any] = {
            "decision_id": decision_id or f"d{next(self._numbers)}",
            "at": NOW,
            "surface": "main",
            "protocol": "openai-chat",
            "model": "m",
            "stream": True,
            "exchange": user_says("what is malt?"),
            "bundle_digest": "0" * 64,
            "mode": DeliveryMode.HOLD,
            "verdict": LedgerVerdict.ALLOW,
            "action": Action.FORWARD,
            "score": 0.25,
        }
        return PromptRow(**{**values, **changes})

    def progress(self, decision_id: str, text: str, **changes: Any) -> ProgressRow:
        """Text about to be released."""
        values: dict[str, Any] = {"at": NOW, "lane": Lane(), "offset": 0}
        return ProgressRow(decision_id=decision_id, text=text, **{**values, **changes})

    def final(self, decision_id: str, text: str = "malted grain", **changes: Any) -> FinalRow:
        """A reply that was delivered whole."""
        size = len(text.encode("utf-8", "surrogatepass"))
        values: dict[str, Any] = {
            "at": NOW,
            "outcome": Outcome.COMPLIED,
            "verdict": LedgerVerdict.ALLOW,
            "delivered": (Delivered(lane=Lane(), text=text),),
            "delivered_bytes": size,
            "scored_bytes": size,
        }
        return FinalRow(decision_id=decision_id, **{**values, **changes})
