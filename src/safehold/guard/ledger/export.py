"""The ledger as Parquet files, for any tool that reads tables."""

import hashlib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Boolean, Column, Float, Integer, String, Table, select

from safehold.errors import DependencyError, LedgerError
from safehold.guard.ledger.reader import LedgerReader, pages
from safehold.guard.ledger.schema import EVENTS, FINALS, PROGRESS, PROMPTS

FILES: tuple[tuple[str, Table], ...] = (
    ("prompts", PROMPTS),
    ("progress", PROGRESS),
    ("finals", FINALS),
    ("events", EVENTS),
)


class ExportedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One written file: its rows, the numbers they span (0 when empty) and its digest."""

    name: str
    rows: int
    first_seq: int
    last_seq: int
    sha256: str


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
    written = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (folder / "manifest.json").exists():
            raise LedgerError(f"expected a folder without an export, came {folder}")
        with reader.snapshot() as connection:
            for name, table in FILES:
                found = pages(connection, select(table), table.c.seq, after=after)
                written.append(_write(folder / f"{name}.parquet", table, found, progress))
        manifest = msgspec.json.format(msgspec.json.encode({"files": written}), indent=2)
        _finish(folder / "manifest.json", manifest)
    except OSError as error:
        raise LedgerError(f"export to {folder}: {error.strerror or 'write failed'}") from error
    return written


def _write(
    path: Path,
    table: Table,
    found: Iterable[list[dict[str, Any]]],
    progress: Callable[[int], None],
) -> ExportedFile:
    try:
        pa = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise DependencyError(
            "Parquet export needs the extra: pip install 'safehold[export]'"
        ) from error
    schema = pa.schema([(column.name, _arrow_type(column, pa)) for column in table.c])
    rows, first, last = 0, 0, 0
    with _complete_or_absent(path) as partial:
        with parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
            for page in found:
                for columns in page:
                    columns["at"] = round(columns["at"] * 1_000_000)
                writer.write_table(pa.Table.from_pylist(page, schema=schema))
                rows, first, last = rows + len(page), first or page[0]["seq"], page[-1]["seq"]
                progress(len(page))
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ExportedFile(name=path.name, rows=rows, first_seq=first, last_seq=last, sha256=digest)


def _arrow_type(column: Column[Any], pa: Any) -> Any:
    if column.name == "at":
        return pa.timestamp("us", tz="UTC")
    match column.type:
        case Integer():  # BigInteger is one, too
            return pa.int64()
        case Boolean():
            return pa.bool_()
        case Float():  # Double is one, too
            return pa.float64()
        case String():
            return pa.large_string()
        case other:
            raise LedgerError(f"expected a column type that Parquet has, came {other!r}")


@contextmanager
def _complete_or_absent(path: Path) -> Iterator[Path]:
    """Give a file that its owner alone may read; it takes its name only if the block ends well."""
    partial = path.with_suffix(".partial")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    try:
        yield partial
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def _finish(path: Path, content: bytes) -> None:
    with _complete_or_absent(path) as partial:
        partial.write_bytes(content)
