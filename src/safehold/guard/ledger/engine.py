"""Opening the database behind a ledger URL, and its errors as one sentence each."""

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event, make_url, text
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.pool import NullPool

from safehold.errors import ConfigError, DependencyError, LedgerError

# What a reader must do, by the database's own error code. PostgreSQL: SQLSTATE or its class;
# SQLite: the primary part of its extended error name. Foreign messages may quote content, so they
# are never passed on.
_SENTENCES: dict[str, str] = {
    "SQLITE_FULL": "the disk is full; make room",
    "SQLITE_IOERR": "the disk refused to read or write; look at the disk and its free space",
    "SQLITE_READONLY": "the file is read-only; correct its owner and mode",
    "SQLITE_PERM": "the file may not be used; correct its owner and mode",
    "SQLITE_AUTH": "the file may not be used; correct its owner and mode",
    "SQLITE_CANTOPEN": "the file can't be opened; look at its folder's existence and mode",
    "SQLITE_CORRUPT": "the file is damaged; restore it from a backup",
    "SQLITE_NOTADB": "the file is no SQLite database, or is damaged; name another or restore it",
    "SQLITE_BUSY": "another process holds the file's lock for too long",
    "SQLITE_LOCKED": "another process holds the file's lock for too long",
    "SQLITE_TOOBIG": "the row is larger than SQLite can hold",
    "SQLITE_CONSTRAINT": "this decision already has such a row, or the row is incomplete",
    "23": "this decision already has such a row, or the row is incomplete",
    "25006": "the database is read-only",
    "28": "the server refused the user or password",
    "3D000": "the server has no such database",
    "42501": "the user may not write these tables",
    "53100": "the server's disk is full; make room",
    "53300": "the server has no connection left",
    "55P03": "another process holds a lock for too long",
    "57014": "the server took too long",
    "57P": "the server is shutting down or starting",
    "08": "the connection to the server is lost",
    "0A000": "the pooler or server lacks a feature; see docs/ledger.md for PgBouncer",
}

# A server or pooler that refuses a connection gives no code, so its own fixed words are looked for.
_REFUSALS: tuple[tuple[str, str], ...] = (
    (r"database \S+ does not exist|no such database", "the server has no such database"),
    (
        r"role \S+ does not exist|no such user|auth(entication)? failed|pg_hba\.conf|SASL|password",
        "the server refused the user or password",
    ),
    (
        r"too many (clients|connections)|connection slots|no more connections|query_wait_timeout",
        "the server has no connection left",
    ),
    (r"starting up|shutting down|recovery mode", "the server is shutting down or starting"),
    (r"startup parameter", "the pooler refuses a parameter of the URL; take it out"),
    (r"translate host name", "the host's name is unknown"),
    (r"SSL|certificate", "the TLS handshake failed; look at sslmode and the certificates"),
    (
        r"session is (not )?read-(only|write)|in hot standby mode|not in recovery",
        "none of the servers takes writes; promote one",
    ),
)


_IN_WAL_MODE = b"\x02\x02"
_RETRY_S = 0.02
_TABLES_LOCK = 0x5AFE_57A7


def parse_url(url: str) -> URL:
    """Return the database URL; a plain path means SQLite.

    Raises:
        ConfigError: the URL is none, or names a database that isn't supported.
    """
    if "://" not in url:
        return URL.create("sqlite", database=url)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ConfigError(
            "expected a ledger path or URL such as sqlite:///ledger.db or "
            "postgresql://user@host/database"
        ) from error
    match parsed.get_backend_name():
        case "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ConfigError("expected a file behind sqlite:///, came a database in memory")
            return parsed.set(drivername="sqlite")
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise ConfigError(f"expected a sqlite or postgresql ledger URL, came {other}")


def open_engine(url: str, *, wait_s: float, write: bool) -> Engine:
    """Return an engine without a pool for a ledger URL; nothing is connected yet.

    A writer's transactions take SQLite's write lock when they begin; a new SQLite file is made
    readable by its owner alone.

    Raises:
        ConfigError: the URL can't be used.
        DependencyError: the PostgreSQL driver is not installed.
        LedgerError: there is no such file.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, wait_s=wait_s, write=write)
    milliseconds = int(wait_s * 1000)
    try:
        engine = create_engine(
            parsed,
            poolclass=NullPool,
            connect_args={
                "connect_timeout": max(2, round(wait_s)),
                "tcp_user_timeout": milliseconds,  # a vanished host must not hang a stream
                "application_name": "safehold-ledger",
                "client_encoding": "utf8",  # whatever the server keeps: check_encoding looks
                # A pooler gives every transaction another server, which knows no statement.
                "prepare_threshold": None,
            },
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise DependencyError(
            "a PostgreSQL ledger needs the extra: pip install 'safehold[postgres]'"
        ) from error
    # For the same reason these belong to the transaction, not to the session; PgBouncer refuses
    # them as startup parameters.
    local = [f"lock_timeout = {milliseconds}", "synchronous_commit = on"]
    if write:
        local.append(f"statement_timeout = {milliseconds * 2}")
    settings = "; ".join(f"SET LOCAL {setting}" for setting in local)

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql(settings)

    return engine


def _sqlite(url: URL, *, wait_s: float, write: bool) -> Engine:
    path = Path(url.database or "")
    if write:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise LedgerError(
                f"ledger {path}: the file can't be opened for writing ({error.strerror})"
            ) from error
    elif not path.is_file():
        raise LedgerError(f"ledger {path}: there is no such file")
    # A reader that may not write leaves the write-ahead log of a killed writer where it is.
    file = f"file:{quote(str(path))}?mode={'rwc' if write else 'ro'}"
    engine = create_engine(
        url,
        poolclass=NullPool,
        creator=lambda: sqlite3.connect(file, uri=True, timeout=wait_s, check_same_thread=False),
    )

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        # WAL syncs its log at every commit under FULL: an acknowledged row survives power loss,
        # at one fsync per commit, which the writer shares among all that wait.
        if write:
            switch_to_wal(connection, wait_s=wait_s)
        for pragma in (
            ("synchronous=FULL", "trusted_schema=OFF", "secure_delete=ON")
            if write
            else ("query_only=ON", "trusted_schema=OFF")
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def switch_to_wal(connection: sqlite3.Connection, *, wait_s: float) -> None:
    """Have a SQLite file write ahead; SQLite's own wait for a lock does not cover this change.

    Raises:
        sqlite3.OperationalError: Another connection held the file's lock all that time.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorname.startswith("SQLITE_BUSY")
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)
        else:
            return


def make_missing(engine: Engine, tables: MetaData, *, wait_s: float) -> None:
    """Make tables and indices that never change, for an engine whose transactions begin as readers.

    Processes that start at once would each make them: all but one wait. SQLite does not wait
    where a reader turns writer, and a table can come between the look and the making, so the whole
    is done again there. `own_tables` has versions.

    Raises:
        SQLAlchemyError: The database can't be written.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            with engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    lock = text("SELECT pg_advisory_xact_lock(:key)")
                    connection.execute(lock, {"key": _TABLES_LOCK})
                tables.create_all(connection)
        except OperationalError as error:
            met = any(word in str(error.orig) for word in ("locked", "already exists"))
            if not met or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)
        else:
            return


class Place:
    """Where a ledger lies: a file that is moved, deleted or put in its place is noticed.

    SQLite goes on writing to a file that has lost its name, and to a write-ahead log that has; the
    rows would be acknowledged and gone. For a server it knows the name alone: there the writer's
    own row tells one database from another.
    """

    def __init__(self, engine: Engine) -> None:
        self.name = _name(engine)
        sqlite = engine.dialect.name == "sqlite"
        self._path = Path(str(engine.url.database)) if sqlite else None
        self._identity: tuple[int, int] | None = None

    @property
    def home(self) -> str | None:
        """Which file this is, for the writer's own record; None where it is no file."""
        if self._path is None:
            return None
        return home_of(self._path)

    def remember(self) -> None:
        """Take the file that is there now for the ledger."""
        self._identity = self._found()

    def check(self) -> None:
        """Refuse where another file, or none, has the ledger's name.

        Raises:
            LedgerError: The file was moved, deleted or replaced.
        """
        if self._identity is not None and self._found() != self._identity:
            raise LedgerError(
                f"ledger {self.name}: the file was moved, deleted or replaced while in use; "
                "put it back, or restart the gateway"
            )

    def _found(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0)
        return (found.st_dev, found.st_ino)


def home_of(path: Path) -> str:
    """Return what tells a file from its copies: device and inode."""
    found = path.stat()
    return f"{found.st_dev:x}.{found.st_ino:x}"


def lacks_log(path: Path) -> bool:
    """Say whether a SQLite file expects a write-ahead log beside it and has none."""
    with path.open("rb") as file:
        head = file.read(20)
    return head[18:20] == _IN_WAL_MODE and not path.with_name(f"{path.name}-wal").exists()


def check_encoding(connection: Connection) -> None:
    """Refuse a server's database that cannot hold every letter.

    Raises:
        LedgerError: Its encoding is not UTF8.
    """
    if connection.dialect.name != "postgresql":
        return
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    text = encoding.decode() if isinstance(encoding, bytes) else str(encoding)
    if text != "UTF8":
        raise LedgerError(
            f"ledger {_name(connection.engine)}: expected a database with ENCODING 'UTF8', "
            f"came {text}"
        )


@contextmanager
def told(engine: Engine) -> Iterator[None]:
    """Turn a database's error into one LedgerError that names the ledger and what to do."""
    try:
        yield
    except DBAPIError as error:
        raise LedgerError(f"ledger {_name(engine)}: {sentence(error)}") from error
    except StatementError as error:
        raise LedgerError(f"ledger {_name(engine)}: a row holds a value of a wrong type") from error
    except UnicodeError as error:  # a driver's own, which SQLAlchemy passes on as it is
        raise LedgerError(
            f"ledger {_name(engine)}: a row holds a letter that the database's encoding has not"
        ) from error
    except SQLAlchemyError as error:
        raise LedgerError(f"ledger {_name(engine)}: the database's own layer refused") from error


def sentence(error: DBAPIError) -> str:
    """Return what a reader must do about a database's error, without a word of its message."""
    original = error.orig
    code = getattr(original, "sqlite_errorname", None) or getattr(original, "sqlstate", None)
    if isinstance(code, str):
        for length in range(len(code), 1, -1):
            if code[:length] in _SENTENCES:
                return _SENTENCES[code[:length]]
        return f"the database refused ({code})"
    said = str(original)
    for words, meaning in _REFUSALS if type(original).__module__.startswith("psycopg") else ():
        if re.search(words, said) is not None:
            return meaning
    if error.connection_invalidated or type(original).__name__ == "OperationalError":
        return "the server can't be reached; start it or correct the address"
    return "the database refused and gave no code; its log says more"


def _name(engine: Engine) -> str:
    if engine.dialect.name == "sqlite":
        return str(engine.url.database)
    return f"{engine.url.host or 'local socket'}/{engine.url.database or '(no database named)'}"
