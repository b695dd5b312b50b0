"""Seats on disk: counted over every worker of a host, and over every restart.

Seats that are counted in one process are approved once more by each further worker and by each
restart. This file is what all of them share (SQLite, in WAL mode).
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safehold.trust.exemptions.exemption_book import Caller, ExpiryNotice, Ruling
from safehold.trust.exemptions.interface import ExemptionError
from safehold.trust.exemptions.seats import (
    Admission,
    Admitted,
    CaseOverrun,
    RateOverrun,
    SeatOverrun,
)

_HOUR_S = 3600
_BUSY_S = 2.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS seats (grant TEXT, user TEXT, PRIMARY KEY (grant, user));
CREATE TABLE IF NOT EXISTS refused (grant TEXT, user TEXT, PRIMARY KEY (grant, user));
CREATE TABLE IF NOT EXISTS uses (grant TEXT, at INTEGER);
CREATE INDEX IF NOT EXISTS uses_by_grant ON uses (grant, at);
CREATE TABLE IF NOT EXISTS warned (grant TEXT, days INTEGER, PRIMARY KEY (grant, days));
CREATE TABLE IF NOT EXISTS sessions (key TEXT PRIMARY KEY, use_case TEXT, until INTEGER);
CREATE TABLE IF NOT EXISTS heads (origin TEXT PRIMARY KEY, size INTEGER);
"""


class SeatFile:
    """A `SeatMeter` in a file, shared by processes; and what was warned of, and seen of the log."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            ExemptionError: it can't be opened.
        """
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise ExemptionError(f"can't open the file of seats {path.name}: {error}") from error

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                except sqlite3.Error:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise ExemptionError(f"the file of seats does not answer: {error}") from error

    def admit(self, ruling: Ruling, caller: Caller, now: int) -> Admission:
        """Count one exempted exchange, or say why it is not exempt (as `SeatMeter.admit`).

        Raises:
            ExemptionError: the file can't be written; then nobody is exempt.
        """
        grant, user = ruling.grant, caller.user
        with self._changing() as db:
            session = db.execute(
                "SELECT use_case FROM sessions WHERE key=? AND until>?", (caller.key, now)
            ).fetchone()
            if session is not None and session[0] != caller.use_case:
                return CaseOverrun(grant, str(session[0]))
            row = db.execute("SELECT 1 FROM seats WHERE grant=? AND user=?", (grant, user))
            seated = row.fetchone() is not None
            taken = self._count(db, "seats", grant)
            if not seated and taken >= ruling.seats:
                added = db.execute("INSERT OR IGNORE INTO refused VALUES (?, ?)", (grant, user))
                asked = taken + self._count(db, "refused", grant)
                return SeatOverrun(grant, ruling.seats, asked, first=added.rowcount == 1)
            db.execute("DELETE FROM uses WHERE grant=? AND at<=?", (grant, now - _HOUR_S))
            if self._count(db, "uses", grant) >= ruling.rate_per_hour:
                return RateOverrun(grant, ruling.rate_per_hour)
            db.execute("INSERT OR IGNORE INTO seats VALUES (?, ?)", (grant, user))
            db.execute("INSERT INTO uses VALUES (?, ?)", (grant, now))
            if session is None:
                until = now + ruling.session_s
                db.execute(
                    "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)",
                    (caller.key, caller.use_case, until),
                )
            return Admitted()

    def _count(self, db: sqlite3.Connection, table: str, grant: str) -> int:
        query = f"SELECT count(*) FROM {table} WHERE grant=?"  # noqa: S608 - our own table names
        count: int = db.execute(query, (grant,)).fetchone()[0]
        return count

    def forget(self, grant: str, user: str) -> None:
        """Free the seat of somebody who left."""
        with self._changing() as db:
            db.execute("DELETE FROM seats WHERE grant=? AND user=?", (grant, user))

    def is_new(self, notice: ExpiryNotice) -> bool:
        """Take note of a warning; tell whether it is the first of its kind, over all workers."""
        with self._changing() as db:
            row = (notice.grant, notice.days)
            return db.execute("INSERT OR IGNORE INTO warned VALUES (?, ?)", row).rowcount == 1

    def seen(self, origin: str) -> int:
        """Return the largest size of a log that was ever seen here."""
        with self._changing() as db:
            row = db.execute("SELECT size FROM heads WHERE origin=?", (origin,)).fetchone()
            return 0 if row is None else int(row[0])

    def saw(self, origin: str, size: int) -> None:
        """Remember the size of a log, so that an older copy is known as one after a restart."""
        with self._changing() as db:
            db.execute(
                "INSERT INTO heads VALUES (?, ?) ON CONFLICT (origin) "
                "DO UPDATE SET size=max(size, excluded.size)",
                (origin, size),
            )

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()
