"""The tables that the numbered steps make are those that the code reads and writes."""

import asyncio

from sqlalchemy import inspect

from safehold.guard.ledger.engine import open_engine
from safehold.guard.ledger.schema import METADATA, steps
from safehold.guard.ledger.writer import Ledger


def test_the_steps_make_the_tables_of_the_code(url: str) -> None:
    """Every table and column in the database is declared in the code, and the other way round."""

    async def make() -> None:
        await (await Ledger.open(url)).close()

    asyncio.run(make())
    with open_engine(url, wait_s=1, write=False).connect() as connection:
        found = inspect(connection)
        for table in METADATA.tables.values():
            made = {
                column["name"]: column["nullable"]
                for column in found.get_columns(table.name)
                if not table.c[column["name"]].primary_key
            }
            assert made == {c.name: c.nullable for c in table.c if not c.primary_key}
        assert set(found.get_table_names()) == {*METADATA.tables, "ledger_schema"}


def test_steps_are_numbered_without_holes() -> None:
    """Versions run from one upwards."""
    assert [version for version, _ in steps()] == list(range(1, len(steps()) + 1))
