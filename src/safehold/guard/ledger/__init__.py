"""The ledger: a durable row for everything a client received."""

from safehold.guard.ledger.interface import (
    Action,
    Delivered,
    Detail,
    Entry,
    EventKind,
    EventRow,
    FinalRow,
    Latency,
    LedgerSettings,
    LedgerVerdict,
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
    "Latency",
    "Ledger",
    "LedgerSettings",
    "LedgerVerdict",
    "Outcome",
    "ProgressRow",
    "PromptRow",
    "Row",
    "RowSink",
]
