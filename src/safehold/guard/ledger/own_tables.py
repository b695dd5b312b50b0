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
from safehold.guard.ledger.engine import told
from safehold.guard.ledger.schema import statements

_ADVISORY_LOCK = 0x5AFE_7AB1


def make_tables(
    engine: Engine, metadata: MetaData, *, name: str, steps: Sequence[str] = ()
) -> None:
    """Bring the part's tables to this release's version, in one transaction.

    Tables that an early release made without a version count as version 1 when they have every
    column of it.

    Raises:
        LedgerError: the database can't be used, a newer release made the tables, or they are
            somebody else's.
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


def _unversioned(connection: Connection, metadata: MetaData, *, name: str, newest: int) -> int:
    """Make the tables, or take those that are there for version 1; return the version."""
    found = inspect(connection)
    there = [one for one in metadata.sorted_tables if found.has_table(one.name)]
    if not there:
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
