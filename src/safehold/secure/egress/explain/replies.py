"""Replies of a gateway as signed rows of explained bytes: one row per account and second.

The gateway tells of every reply through its own seam (`guard/gateway/outgoing.py`); this object
fits that seam without either side importing the other.
"""

import hashlib
import threading
from pathlib import Path

import msgspec

from safehold.secure.egress.explain.ledger import MAX_SPAN_S, ExplainedEntry, ExplainedWriter
from safehold.secure.egress.explain.senders import load_signer


class _Batch(msgspec.Struct, frozen=True):
    """What one account got since the last flush."""

    started: float
    ended: float
    count: int = 0
    items: int = 0
    tokens: int = 0
    replies: tuple[str, ...] = ()


class ExplainedReplies:
    """Adds up replies in memory; `flush` signs and appends what came together.

    A row's digest is the SHA-256 of its replies' ids, in the order in which they ended, joined by
    newlines: with the ledger of exchanges an auditor finds what was said, and a re-scorer what to
    generate again. What a killed process had not flushed stays unexplained: about a second.
    """

    def __init__(self, writer: ExplainedWriter, flow: str) -> None:
        self._writer = writer
        self._flow = flow
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._waiting: dict[str, _Batch] = {}

    def reply(
        self,
        *,
        count: int,
        account: str,
        tokens: int,
        started: float,
        ended: float,
        reply_id: str,
        last: bool,
    ) -> None:
        """Add one reply, or the next part of one that is still open."""
        begin = min(max(started, ended - MAX_SPAN_S / 2), ended)
        with self._lock:
            batch = self._waiting.get(account, _Batch(begin, ended))
            self._waiting[account] = _Batch(
                started=min(batch.started, begin),
                ended=max(batch.ended, ended),
                count=batch.count + count,
                items=batch.items + int(last),
                tokens=batch.tokens + tokens,
                replies=(*batch.replies, reply_id) if last else batch.replies,
            )

    def flush(self) -> None:
        """Append the rows of what came since; nothing is lost when that fails.

        Raises:
            ExplainedRowError: The file can't be appended.
        """
        with self._flushing:
            with self._lock:
                taken, self._waiting = self._waiting, {}
            entries = [_entry(self._flow, account, batch) for account, batch in taken.items()]
            written = False
            try:
                self._writer.write_all(entries)
                written = True
            finally:
                if not written:
                    self._restore(taken)

    def _restore(self, taken: dict[str, _Batch]) -> None:
        """Wait again with what could not be written, and with what came meanwhile."""
        with self._lock:
            later, self._waiting = self._waiting, taken
        for account, batch in later.items():
            self._put_back(account, batch)

    def _put_back(self, account: str, later: _Batch) -> None:
        with self._lock:
            first = self._waiting.get(account)
            self._waiting[account] = _joined(first, later) if first else later


def _joined(first: _Batch, later: _Batch) -> _Batch:
    ended = max(first.ended, later.ended)
    return _Batch(
        # A file that could not be written for hours must not make a row that spans too much.
        started=max(min(first.started, later.started), ended - MAX_SPAN_S / 2),
        ended=ended,
        count=first.count + later.count,
        items=first.items + later.items,
        tokens=first.tokens + later.tokens,
        replies=(*first.replies, *later.replies),
    )


def _entry(flow: str, account: str, batch: _Batch) -> ExplainedEntry:
    return ExplainedEntry(
        flow=flow,
        start=batch.started,
        end=batch.ended,
        count=batch.count,
        digest=hashlib.sha256("\n".join(batch.replies).encode()).hexdigest(),
        items=batch.items,
        account=account,
        tokens=batch.tokens,
    )


def open_replies(to: Path, key: Path, flow: str, sender: str) -> ExplainedReplies:
    """Open the file of rows and the key that signs them.

    Raises:
        ExplainedRowError: The key is none, or the file's last row is no row of this sender.
    """
    return ExplainedReplies(ExplainedWriter(to, sender, load_signer(key)), flow)
