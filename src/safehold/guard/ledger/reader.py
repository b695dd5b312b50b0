"""The reading side of the ledger: rows in order, by decision, and in bulk, from one snapshot."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, Table, select

from safehold.guard.ledger.codec import TABLES, to_entry
from safehold.guard.ledger.engine import home_of, lacks_log, open_engine, told
from safehold.guard.ledger.interface import Entry
from safehold.guard.ledger.schema import WRITERS, check_version

_PAGE_ROWS = 500


class LedgerReader:
    """Reads a ledger while gateways write to it; never writes, never holds up a writer."""

    def __init__(self, engine: Engine, *, bare: Path | None = None) -> None:
        """Take an engine; `bare` is a file that came without its write-ahead log."""
        self._engine = engine
        self._bare = bare

    @classmethod
    def open(cls, url: str, *, wait_s: float = 5.0) -> "LedgerReader":
        """Open the ledger behind a path, `sqlite:///` or `postgresql://` URL.

        Raises:
            ConfigError: the URL can't be used.
            DependencyError: the PostgreSQL driver is not installed.
            LedgerError: there is no ledger, it can't be read, or another release made it.
        """
        engine = open_engine(url, wait_s=wait_s, write=False)
        bare = None
        if engine.dialect.name == "sqlite":
            path = Path(str(engine.url.database))
            bare = path if lacks_log(path) else None
        reader = cls(engine, bare=bare)
        with reader.snapshot() as connection:
            check_version(connection)
        return reader

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Give a connection on which every query sees the same moment.

        Raises:
            LedgerError: the storage can't be read.
        """
        with told(self._engine), self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            with connection.begin():
                yield connection

    def cut_from(self, connection: Connection) -> bool:
        """Say whether this file was copied from under a living writer, without its log.

        Its newest rows are then in the log that was left behind. A writer records which file it
        writes to; a copy is another.
        """
        if self._bare is None:
            return False
        newest = select(WRITERS.c.home, WRITERS.c.closed_at).order_by(WRITERS.c.opened_at.desc())
        last = connection.execute(newest.limit(1)).one_or_none()
        if last is None or last.home is None or last.closed_at is not None:
            return False
        return bool(last.home != home_of(self._bare))

    def tail(self, count: int) -> list[Entry]:
        """Return the last `count` entries, oldest first."""

        def newest(query: Select[Any], table: Table) -> Select[Any]:
            return query.order_by(table.c.seq.desc()).limit(count)

        return self._merged(newest)[-count:] if count > 0 else []

    def after(self, seq: int, *, limit: int = _PAGE_ROWS) -> list[Entry]:
        """Return at most `limit` entries whose numbers are above `seq`, in order."""

        def next_ones(query: Select[Any], table: Table) -> Select[Any]:
            return query.where(table.c.seq > seq).order_by(table.c.seq).limit(limit)

        return self._merged(next_ones)[:limit]

    def decision(self, decision_id: str) -> list[Entry]:
        """Return every entry about one decision, in order; none for an unknown id."""

        def about(query: Select[Any], table: Table) -> Select[Any]:
            return query.where(table.c.decision_id == decision_id)

        return self._merged(about)

    def _merged(self, narrow: Callable[[Select[Any], Table], Select[Any]]) -> list[Entry]:
        entries = []
        with self.snapshot() as connection:
            for kind, table in TABLES:
                found = connection.execute(narrow(select(table), table)).mappings()
                entries += [to_entry(kind, dict(columns)) for columns in found]
        return sorted(entries, key=lambda entry: entry.seq)


def pages(
    connection: Connection, query: Select[Any], seq: ColumnElement[int], *, after: int = 0
) -> Iterator[list[dict[str, Any]]]:
    """Yield a query's rows above a sequence number as column dictionaries, a page at a time."""
    while True:
        narrowed = query.where(seq > after).order_by(seq).limit(_PAGE_ROWS)
        page = [dict(columns) for columns in connection.execute(narrowed).mappings()]
        if page:
            after = page[-1]["seq"]
            yield page
        if len(page) < _PAGE_ROWS:
            return
