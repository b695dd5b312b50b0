"""The ledger: a durable row for everything a client received."""

from safehold.guard.ledger.interface import (
    Action,
    Delivered,
    Detail,
    Entry,
    EventKind,
    EventRow,
    FinalRow,
    Judged,
    Latency,
    LedgerSettings,
    Outcome,
    ProgressRow,
    PromptRow,
    Row,
    RowSink,
)
from safehold.guard.ledger.writer import Ledger

__all__ = [
    "Action",
    "Delivered",
    "Detail",
    "Entry",
    "EventKind",
    "EventRow",
    "FinalRow",
    "Judged",
    "Latency",
    "Ledger",
    "LedgerSettings",
    "Outcome",
    "ProgressRow",
    "PromptRow",
    "Row",
    "RowSink",
]
