"""Backups of a ledger, from each engine and into each."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from safehold.errors import LedgerError
from safehold.guard.ledger.backup import backup, restore
from safehold.guard.ledger.coverage import StallLimits, audit
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import NOW, RowMaker


def test_a_backup_of_a_live_ledger_holds_every_row(
    url: str, rows: RowMaker, tmp_path: Path, new_database: Callable[[], str]
) -> None:
    """What was acknowledged before the backup comes back, number for number, on either engine."""

    async def go() -> None:
        async with await Ledger.open(url) as ledger:
            for _ in range(3):
                prompt = rows.prompt()
                await ledger.append(prompt, rows.final(prompt.decision_id))
            backup(url, tmp_path / "backup.db", now=NOW)

    asyncio.run(go())
    before = LedgerReader.open(url).tail(100)
    for target in (str(tmp_path / "new.db"), new_database()):
        assert restore(tmp_path / "backup.db", target, now=NOW).rows == 6
        assert LedgerReader.open(target).tail(100) == before
        assert audit(LedgerReader.open(target), now=NOW, limits=StallLimits()).missing_rows == 0
    assert (tmp_path / "backup.db").stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("*.partial*"))


def test_a_backup_never_overwrites(url: str, tmp_path: Path) -> None:
    """A file that is there stays as it is."""
    asyncio.run(_made(url))
    (tmp_path / "backup.db").write_text("mine")
    with pytest.raises(LedgerError, match="new file"):
        backup(url, tmp_path / "backup.db", now=NOW)
    assert (tmp_path / "backup.db").read_text() == "mine"


def test_a_ledger_with_rows_is_not_restored_into(url: str, rows: RowMaker, tmp_path: Path) -> None:
    """A restore never mixes two histories."""

    async def go() -> None:
        async with await Ledger.open(url) as ledger:
            await ledger.append(rows.prompt())

    asyncio.run(go())
    backup(url, tmp_path / "backup.db", now=NOW)
    with pytest.raises(LedgerError, match="expected an empty ledger"):
        restore(tmp_path / "backup.db", url, now=NOW)
    assert len(LedgerReader.open(url).tail(100)) == 1


def test_a_copy_that_lacks_rows_is_not_restored(rows: RowMaker, tmp_path: Path) -> None:
    """Rows deleted by hand are found before a new ledger is made of the rest."""
    path = tmp_path / "ledger.db"

    async def go() -> None:
        async with await Ledger.open(str(path)) as ledger:
            await ledger.append(rows.prompt())

    asyncio.run(go())
    shutil.copy(path, tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as connection:
        connection.execute("DELETE FROM ledger_prompts")
    with pytest.raises(LedgerError, match="1 rows are missing"):
        restore(tmp_path / "copy.db", str(tmp_path / "new.db"), now=NOW)


async def _made(url: str) -> None:
    async with await Ledger.open(url):
        pass
