"""The ledger as Parquet files, for any tool that reads tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, Column, Float, Integer, String, Table, select

from safehold.errors import LedgerError
from safehold.guard.ledger.parquet_files import ExportedFile, Kind, new_export, write_parquet
from safehold.guard.ledger.reader import LedgerReader, pages
from safehold.guard.ledger.schema import EVENTS, FINALS, PROGRESS, PROMPTS

FILES: tuple[tuple[str, Table], ...] = (
    ("prompts", PROMPTS),
    ("progress", PROGRESS),
    ("finals", FINALS),
    ("events", EVENTS),
)


def export(
    reader: LedgerReader,
    folder: Path,
    *,
    after: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> list[ExportedFile]:
    """Write one Parquet file per kind of row and a `manifest.json`, from one snapshot.

    Columns are the tables' own; `at` is a UTC timestamp, and structured fields (`exchange`,
    `delivered`, `lane`, `latency`, `detail`) are JSON text. Files appear complete or not at all.

    Raises:
        DependencyError: pyarrow is not installed.
        LedgerError: the ledger can't be read, the folder can't be written or holds an export.
    """
    names = [f"{name}.parquet" for name, _ in FILES]
    with new_export(folder, *names) as written, reader.snapshot() as connection:
        for name, (_, table) in zip(names, FILES, strict=True):
            found = pages(connection, select(table), table.c.seq, after=after)
            columns = {column.name: _kind(column) for column in table.c}
            file = write_parquet(folder / name, columns, found, number="seq", progress=progress)
            written.append(file)
    return written


def _kind(column: Column[Any]) -> Kind:
    if column.name == "at":
        return "time"
    match column.type:
        case Integer():  # BigInteger is one, too
            return "integer"
        case Boolean():
            return "flag"
        case Float():  # Double is one, too
            return "number"
        case String():
            return "text"
        case other:
            raise LedgerError(f"expected a column type that Parquet has, came {other!r}")
