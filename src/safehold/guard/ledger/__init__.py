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
    "LedgerSettings",
    "Outcome",
    "ProgressRow",
    "PromptRow",
    "Row",
    "RowSink",
]
