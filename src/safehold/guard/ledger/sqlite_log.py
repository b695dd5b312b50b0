"""SQLite's write-ahead log, for those who change much while a gateway writes beside them."""

import time
from typing import Any

from sqlalchemy import Connection, Engine

from safehold.guard.ledger.engine import told

_CHECKPOINT_PAGES = 200
_RETRY_S = 0.01


def leave_syncing(connection: Connection) -> None:
    """Let SQLite sync what is removed with the next row that somebody waits for.

    A power cut may bring back the last rows that were removed, whole; they are removed again. What
    a sync costs is not paid under the write lock, and what was removed is copied into the file
    here, not by a gateway whose request would wait for it.

    Source: https://www.sqlite.org/pragma.html (synchronous, wal_autocheckpoint).
    """
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA synchronous=NORMAL").fetchall()
        driver.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}").fetchall()


def empty_log(engine: Engine, *, wait_s: float) -> bool:
    """Leave nothing of what was removed in the log; return whether that was done in time.

    Emptying holds the write lock while it copies, and while it waits for readers. So all is copied
    before, without the lock, and where a reader is in the way, the lock is let go and all of it
    tried again. After `wait_s` the log is left to be overwritten. A server's ledger has no such
    log.

    Source: https://www.sqlite.org/c3ref/wal_checkpoint_v2.html.

    Raises:
        LedgerError: The ledger can't be opened.
    """
    if engine.dialect.name != "sqlite":
        return True
    with told(engine), engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA busy_timeout=0").fetchall()
        until = time.monotonic() + wait_s
        while True:
            driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            busy, *_ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return True
            if time.monotonic() > until:
                return False
            time.sleep(_RETRY_S)
