"""The ledger's two hot statements, put to SQLite without the layer between.

Every exchange waits for two commits. SQLAlchemy's own work at each of them costs four times what
SQLite's does, so the statements are compiled once and given to the driver as they are. Errors come
out as SQLAlchemy's, so whoever reads them reads one kind.
"""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from sqlalchemy import BigInteger, Connection, Table, bindparam, insert, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.dml import UpdateBase

from safehold.guard.ledger.codec import Columns
from safehold.guard.ledger.schema import HEAD, ROW_TABLES, WRITERS


def _compiled(statement: UpdateBase, names: Sequence[str] | None = None) -> tuple[str, list[str]]:
    """Return a statement as SQLite reads it, and the names of its values in their order."""
    compiled: Any = statement.compile(dialect=sqlite.dialect(), column_keys=names)
    return str(compiled), list(compiled.positiontup)


_TAKE_NUMBERS, _ = _compiled(
    update(HEAD).values(seq=HEAD.c.seq + bindparam("count", type_=BigInteger)).returning(HEAD.c.seq)
)
_SEEN, _ = _compiled(
    update(WRITERS)
    .where(WRITERS.c.writer == bindparam("which"))
    .values(seen_at=bindparam("now", type_=WRITERS.c.seen_at.type))
)
_INSERTS = {table: _compiled(insert(table), table.c.keys()) for table in ROW_TABLES}


class SqliteWrites:
    """Commits rows over one open connection to a SQLite file."""

    def __init__(self, connection: Connection) -> None:
        """Take the connection; nothing else may be under way on it during a call."""
        self._dialect = connection.dialect
        self._raw: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]

    def commit(
        self,
        writer: str,
        rows: Sequence[tuple[Table, Columns]],
        *,
        seen_at: float | None,
        check: Callable[[bool], None],
    ) -> int:
        """Insert rows in one transaction and return the last sequence number.

        With `seen_at` the writer's own record is brought up to that time. `check` is called before
        the commit, and told whether that record was found.

        Raises:
            DBAPIError: SQLite refused; nothing was kept.
        """
        raw = self._raw
        try:
            raw.execute("BEGIN IMMEDIATE")
            with ExitStack() as failed:
                failed.callback(_rollback, raw)
                last: int = raw.execute(_TAKE_NUMBERS, (len(rows),)).fetchall()[0][0]
                for seq, (table, columns) in enumerate(rows, start=last - len(rows) + 1):
                    sql, names = _INSERTS[table]
                    values = {**columns, "seq": seq, "writer": writer}
                    raw.execute(sql, [values[name] for name in names])
                known = True
                if seen_at is not None:
                    known = raw.execute(_SEEN, (seen_at, writer)).rowcount == 1
                check(known)
                raw.execute("COMMIT")
                failed.pop_all()
        except sqlite3.Error as error:
            raise DBAPIError.instance(
                None, None, error, sqlite3.Error, hide_parameters=True, dialect=self._dialect
            ) from error
        return last


def _rollback(raw: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):
        raw.execute("ROLLBACK")
