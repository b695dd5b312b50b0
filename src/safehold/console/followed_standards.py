"""The log's records about standards, followed: a page costs what is new in the log, not the log."""

import threading

from safehold.trust.demands.document import document_digest
from safehold.trust.demands.records import StandingHistory, StandingReading
from safehold.trust.grants.state import TrustState
from safehold.trust.log.book import LogBook
from safehold.trust.log.dsse import open_envelope
from safehold.trust.log.log_entries import read_leaf
from safehold.trust.standing.interface import StandardsDocument


class FollowedStandards:
    """The log's records about standards; each leaf is read once, however often a page asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0
        self._reading: StandingReading | None = None

    def history(self, store: LogBook, documents: tuple[StandardsDocument, ...]) -> StandingHistory:
        """Read what is new in the log and return all records."""
        with self._lock:
            if self._reading is None:
                state = TrustState(store.keys.origin, store.keys.founding)
                self._reading = StandingReading(state, {document_digest(one) for one in documents})
            keys = store.keys.emitter_keys()
            for index, entry in store.entries(self._next):
                self._reading.take([(index, read_leaf(open_envelope(entry, keys)[0]))])
                self._next = index + 1
            return self._reading.history()
