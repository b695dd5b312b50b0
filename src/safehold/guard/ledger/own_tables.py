"""Tables of a part beside the ledger's: made, versioned and changed in numbered steps.

Each part (monitor, review, bounty, intelligence, runners) has its own tables and a table
`NAME_schema` with their version. Version 1 is what the first release made; step n of `steps` brings
version n to n + 1. A fresh database gets the newest shape at once, so a step and the tables in code
say the same: a test of the part compares them.
"""

from collections.abc import Sequence

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    func,
    insert,
    inspect,
    select,
    text,
)

from safehold.errors import LedgerError
from safehold.guard.ledger.engine import open_engine, told
from safehold.guard.ledger.schema import VERSIONS, statements

_ADVISORY_LOCK = 0x5AFE_7AB1


def make_tables(
    engine: Engine, metadata: MetaData, *, name: str, steps: Sequence[str] = ()
) -> None:
    """Bring the part's tables to this release's version, in one transaction.

    Tables that an early release made without a version count as version 1 when they have every
    column of it.

    Raises:
        LedgerError: the database can't be used, a newer release made the tables, or they are
            somebody else's; or the file is a gateway's ledger and has none of them yet.
    """
    with told(engine), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            key = {"key": _ADVISORY_LOCK}
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), key)
        versions, newest = _versions(name), len(steps) + 1
        versions.create(connection, checkfirst=True)
        present = connection.execute(select(func.max(versions.c.version))).scalar()
        if present is None:
            present = _unversioned(connection, metadata, name=name, newest=newest)
            connection.execute(insert(versions), {"version": present})
        if present > newest:
            raise LedgerError(
                f"the {name} tables have version {present}, this release knows up to {newest}; "
                "upgrade safehold or name another database"
            )
        for version in range(present, newest):
            for statement in statements(steps[version - 1]):
                connection.exec_driver_sql(statement)
            connection.execute(insert(versions), {"version": version + 1})


def open_tables(
    url: str,
    metadata: MetaData,
    *,
    name: str,
    steps: Sequence[str] = (),
    wait_s: float = 30.0,
    make: bool = True,
) -> Engine:
    """Return an engine on the part's tables, at this release's version.

    Without `make`, for those who only read or go on, the tables must be there: a mistyped path
    makes no file, and no tables in a database of something else.

    Raises:
        ConfigError: the URL can't be used.
        LedgerError: as `make_tables`; or the tables are not there and shall not be made.
    """
    if not make:
        reading = open_engine(url, wait_s=wait_s, write=False)
        with told(reading), reading.connect() as connection:
            here = inspect(connection)
            own = (_versions(name).name, *metadata.tables)
            if not any(here.has_table(one) for one in own):
                raise LedgerError(
                    f"{reading.url.database}: holds no {name} tables; correct the path or URL "
                    "(the first command that adds something makes them)"
                )
    engine = open_engine(url, wait_s=wait_s, write=True)
    make_tables(engine, metadata, name=name, steps=steps)
    return engine


def _refuse_ledger(connection: Connection, name: str) -> None:
    """Keep the gateway's own file its own: its backups, its retention and its lock are one."""
    if connection.dialect.name == "sqlite" and inspect(connection).has_table(VERSIONS.name):
        raise LedgerError(
            f"{connection.engine.url.database}: is a gateway's ledger; name another file for the "
            f"{name} tables"
        )


def _unversioned(connection: Connection, metadata: MetaData, *, name: str, newest: int) -> int:
    """Make the tables, or take those that are there for version 1; return the version."""
    found = inspect(connection)
    there = [one for one in metadata.sorted_tables if found.has_table(one.name)]
    if not there:
        _refuse_ledger(connection, name)
        metadata.create_all(connection)
        return newest
    if newest == 1:  # what an early release had not yet
        metadata.create_all(connection)
    for table in there:
        columns = {one["name"] for one in found.get_columns(table.name)}
        if newest == 1 and (missing := {one.name for one in table.columns} - columns):
            raise LedgerError(
                f"the {name} table {table.name} lacks {', '.join(sorted(missing))}: another "
                "release or another program made it; name another database"
            )
    return 1


def _versions(name: str) -> Table:
    column = Column("version", Integer, primary_key=True, autoincrement=False)
    return Table(f"{name}_schema", MetaData(), column)
