"""A whole ledger as one SQLite file, from any engine and back into any engine.

A plain copy of a live ledger file leaves out what is still in its write-ahead log. A backup is
read from one snapshot instead, row by row, while gateways go on writing.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
from sqlalchemy import Connection, delete, func, insert, select

from safehold.errors import LedgerError
from safehold.guard.ledger.engine import check_encoding, open_engine, told
from safehold.guard.ledger.reader import LedgerReader, pages
from safehold.guard.ledger.schema import HEAD, ROW_TABLES, WRITERS, migrate

_WAIT_S = 30.0


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What was copied: rows, and the last sequence number that the source had given out."""

    rows: int
    last_seq: int


def backup(
    url: str, target: Path, *, now: float, progress: Callable[[int], None] = lambda _: None
) -> Copied:
    """Write the ledger behind a URL into a new SQLite file, complete or not at all.

    Raises:
        LedgerError: The ledger can't be read, or there is a file already, or it can't be written.
    """
    partial = target.with_name(f"{target.name}.partial")
    if target.exists():
        raise LedgerError(f"expected a new file for the backup, came {target}")
    try:
        copied = _copy(url, str(partial), now=now, progress=progress)
        _sync(partial)
        os.link(partial, target)  # unlike a rename, it never replaces what came meanwhile
    except OSError as error:
        raise LedgerError(f"backup to {target}: {error.strerror or 'write failed'}") from error
    finally:
        for suffix in ("", "-wal", "-shm"):
            partial.with_name(partial.name + suffix).unlink(missing_ok=True)
    return copied


def restore(
    source: Path, url: str, *, now: float, progress: Callable[[int], None] = lambda _: None
) -> Copied:
    """Fill an empty ledger from a backup; numbers, writers and rows are as they were.

    Raises:
        LedgerError: The backup can't be read or is incomplete, or the ledger is not empty.
    """
    if not source.is_file():
        raise LedgerError(f"expected a backup, came {source}: there is no such file")
    return _copy(str(source), url, now=now, progress=progress)


def _copy(source: str, target: str, *, now: float, progress: Callable[[int], None]) -> Copied:
    engine = open_engine(target, wait_s=_WAIT_S, write=True)
    reader = LedgerReader.open(source, wait_s=_WAIT_S)
    with reader.snapshot() as old, told(engine), engine.begin() as new:
        check_encoding(new)
        migrate(new, now=now)
        _refuse_unless_empty(new, target)
        rows = _rows(old, new, progress)
        head = old.execute(select(HEAD)).mappings().one()
        if head["seq"] - head["pruned"] != rows:
            raise LedgerError(
                f"ledger {source}: {head['seq'] - head['pruned'] - rows} rows are missing; "
                "it is a copy made without its write-ahead log, or rows were deleted"
            )
        new.execute(delete(HEAD))
        new.execute(insert(HEAD), dict(head))
    return Copied(rows=rows, last_seq=head["seq"])


def _refuse_unless_empty(new: Connection, target: str) -> None:
    for table in (*ROW_TABLES, WRITERS):
        if new.execute(select(func.count()).select_from(table)).scalar_one():
            raise LedgerError(f"expected an empty ledger at {target}, came one with rows")


def _rows(old: Connection, new: Connection, progress: Callable[[int], None]) -> int:
    rows = 0
    for table in ROW_TABLES:
        for page in pages(old, select(table), table.c.seq):
            new.execute(insert(table), page)
            rows += len(page)
            progress(len(page))
    # What lived at the source does not live here: the copy is whole, and nobody's home.
    writers = [dict(row) | {"home": None} for row in old.execute(select(WRITERS)).mappings()]
    if writers:
        new.execute(insert(WRITERS), writers)
    return rows


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
