"""Folders of Parquet files that appear whole or not at all, each with its digest in a manifest."""

import hashlib
import importlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from safehold.errors import DependencyError, LedgerError

Kind = Literal["text", "integer", "number", "flag", "time"]
"""What a column holds; a time is seconds since the epoch here, and a UTC timestamp in the file."""

_LATEST_S = 253_402_300_800.0  # the year 10000, which no reader of timestamps can show


class ExportedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One written file: its rows, the numbers they span and its digest.

    The numbers are 0 where the file is empty or its rows have none.
    """

    name: str
    rows: int
    first_seq: int
    last_seq: int
    sha256: str


@contextmanager
def new_export(folder: Path, *names: str) -> Iterator[list[ExportedFile]]:
    """Give a list for the files that the block writes; `manifest.json` is written when it ends.

    Where the block fails, the files that it had listed are removed.

    Raises:
        LedgerError: the folder can't be written, or holds an export or other tables than `names`.
    """
    written: list[ExportedFile] = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        others = {path.name for path in folder.glob("*.parquet")} - set(names)
        if others or (folder / "manifest.json").exists():
            raise LedgerError(f"expected a folder without an export, came {folder}")
        with ExitStack() as failed:
            failed.callback(_remove, folder, written)
            yield written
            failed.pop_all()
        manifest = msgspec.json.format(msgspec.json.encode({"files": written}), indent=2)
        with _complete_or_absent(folder / "manifest.json") as partial:
            partial.write_bytes(manifest)
    except OSError as error:
        raise LedgerError(f"export to {folder}: {error.strerror or 'write failed'}") from error


def _remove(folder: Path, written: Iterable[ExportedFile]) -> None:
    for file in written:
        (folder / file.name).unlink(missing_ok=True)


def write_parquet(
    path: Path,
    columns: Mapping[str, Kind],
    found: Iterable[list[dict[str, Any]]],
    *,
    number: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> ExportedFile:
    """Write pages of rows into one file that its owner alone may read; `number` counts the rows.

    Lone surrogates in text become U+FFFD: no Parquet reader takes them. A time that no calendar has
    becomes null.

    Raises:
        DependencyError: pyarrow is not installed.
        OSError: the file can't be written.
    """
    try:
        pa = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise DependencyError(
            "Parquet export needs the extra: pip install 'safehold[export]'"
        ) from error
    types = {
        "text": pa.large_string(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "flag": pa.bool_(),
        "time": pa.timestamp("us", tz="UTC"),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    rows, first, last = 0, 0, 0
    with _complete_or_absent(path) as partial:
        with parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
            for page in found:
                values = [
                    {name: _value(row[name], kind) for name, kind in columns.items()}
                    for row in page
                ]
                writer.write_table(pa.Table.from_pylist(values, schema=schema))
                if number is not None and page:
                    first, last = first or page[0][number], page[-1][number]
                rows += len(page)
                progress(len(page))
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ExportedFile(name=path.name, rows=rows, first_seq=first, last_seq=last, sha256=digest)


def readable(text: str) -> str:
    """Return the text with U+FFFD for every lone surrogate."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _value(value: object, kind: Kind) -> object:
    if kind == "text" and isinstance(value, str):
        return readable(value)
    if kind == "time" and isinstance(value, float):
        sound = math.isfinite(value) and abs(value) < _LATEST_S
        return round(value * 1_000_000) if sound else None
    return value


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
