"""Storage that fails: one clear error, nothing acknowledged is lost, and it recovers."""

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safehold.errors import LedgerError
from safehold.exchange import user_says
from safehold.guard.ledger import Ledger, LedgerSettings
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.ledger import Rows
from safehold.testing.postgres import EmbeddedPostgres

APPENDER = """
import asyncio, sys
from safehold.guard.ledger import Ledger
from safehold.testing.ledger import Rows

async def append_for_ever(ledger, worker):
    for number in range(1_000_000):
        await ledger.append(Rows().prompt(f"{worker}-{number}"))
        print(f"{worker}-{number}", flush=True)

async def main():
    ledger = await Ledger.open(sys.argv[1])
    await asyncio.gather(*(append_for_ever(ledger, worker) for worker in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("lifetime_s", [0.02, 0.1, 0.3])
def test_kill_9_loses_nothing_that_was_acknowledged(url: str, lifetime_s: float) -> None:
    """Every decision that a killed process had reported as durable is in the ledger."""
    command = [sys.executable, "-c", APPENDER, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        first = process.stdout.readline()
        time.sleep(lifetime_s)
        process.send_signal(signal.SIGKILL)
        acknowledged = (first + process.stdout.read()).decode().split("\n")[:-1]
    reader = LedgerReader.open(url)
    kept = {entry.row.decision_id for entry in reader.tail(1_000_000)}
    assert acknowledged
    assert kept.issuperset(acknowledged)


def test_a_full_disk_is_one_error_and_recovers(tmp_path: Path, rows: Rows) -> None:
    """When the file can't grow every waiter is told; when it can again, rows are kept again."""
    path = tmp_path / "l.db"
    big = user_says("x" * 200_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def go() -> None:
        async with await Ledger.open(str(path)) as ledger:
            kept = await ledger.append(rows.prompt("first"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
            try:
                appends = [ledger.append(rows.prompt(exchange=big)) for _ in range(5)]
                failed = await asyncio.gather(*appends, return_exceptions=True)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert {type(error) for error in failed} == {LedgerError}
            assert "disk" in str(failed[0])
            assert "xxx" not in str(failed[0])
            assert await ledger.append(rows.prompt("last")) == kept + 1

    asyncio.run(go())
    names = [entry.row.decision_id for entry in LedgerReader.open(str(path)).tail(10)]
    assert names == ["first", "last"]


READ_ONLY = """
import asyncio, os, sys
import sqlalchemy.dialects.sqlite.pysqlite
from safehold.errors import LedgerError
from safehold.guard.ledger import Ledger
if os.geteuid() == 0:
    os.seteuid(65534)  # root may write anything
try:
    asyncio.run(Ledger.open(sys.argv[1]))
except LedgerError as error:
    print(error)
"""


def test_a_read_only_file_is_one_error(folder: Path, rows: Rows) -> None:
    """A ledger that this user may not write refuses at start-up, with the path."""
    path = folder / "l.db"

    async def make() -> None:
        async with await Ledger.open(str(path)) as ledger:
            await ledger.append(rows.prompt())

    asyncio.run(make())
    path.chmod(0o444)
    folder.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\n") == 1
    assert str(path) in done.stdout
    assert "Permission denied" in done.stdout


def test_a_file_that_is_no_ledger_is_one_error(tmp_path: Path) -> None:
    """Another file's content is neither overwritten nor quoted."""
    path = tmp_path / "l.db"
    path.write_text("something else " * 1000)
    with pytest.raises(LedgerError, match="no SQLite database"):
        asyncio.run(Ledger.open(str(path)))
    with pytest.raises(LedgerError, match="no SQLite database"):
        LedgerReader.open(str(path))
    assert path.read_text().startswith("something else something")


def test_a_damaged_file_is_one_error(tmp_path: Path, rows: Rows) -> None:
    """Pages overwritten with rubbish are reported as damage, in one sentence."""
    path = tmp_path / "l.db"

    async def fill() -> None:
        async with await Ledger.open(str(path)) as ledger:
            for _ in range(50):
                await ledger.append(rows.prompt(exchange=user_says("y" * 5000)))

    asyncio.run(fill())
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"damaged|restore"):
        LedgerReader.open(str(path)).tail(100)
    with pytest.raises(LedgerError, match=r"damaged|restore"):
        asyncio.run(Ledger.open(str(path)))


def test_a_missing_folder_is_one_error(tmp_path: Path) -> None:
    """A path into nowhere names the path."""
    with pytest.raises(LedgerError, match=r"nowhere/l\.db"):
        asyncio.run(Ledger.open(str(tmp_path / "nowhere" / "l.db")))


def test_a_locked_file_is_one_error_and_recovers(tmp_path: Path, rows: Rows) -> None:
    """Another process that holds the write lock too long fails the row, not the ledger."""
    path = tmp_path / "l.db"

    async def go() -> None:
        async with await Ledger.open(str(path), LedgerSettings(wait_s=0.2)) as ledger:
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match="lock"):
                await ledger.append(rows.prompt("a"))
            other.execute("ROLLBACK")
            other.close()
            assert await ledger.append(rows.prompt("b")) == 1

    asyncio.run(go())


def test_postgresql_gone_and_back(folder: Path, rows: Rows) -> None:
    """While the server is down every row fails with one sentence; after it, rows are kept."""

    async def go(server: EmbeddedPostgres) -> list[int]:
        async with await Ledger.open(server.url, LedgerSettings(wait_s=2)) as ledger:
            kept = [await ledger.append(rows.prompt("before"))]
            server.crash()
            for name in ("lost1", "lost2"):
                with pytest.raises(LedgerError, match=r"server|connection"):
                    await ledger.append(rows.prompt(name))
            server.start()
            kept.append(await ledger.append(rows.prompt("after")))
            server.crash()  # idle meanwhile: the stale connection is not the row's fault
            server.start()
            kept.append(await ledger.append(rows.prompt("later")))
            return kept

    with EmbeddedPostgres(folder) as server:
        assert asyncio.run(go(server)) == [1, 2, 3]
        names = [entry.row.decision_id for entry in LedgerReader.open(server.url).tail(10)]
        assert names == ["before", "after", "later"]
    with pytest.raises(LedgerError, match="can't be reached"):
        asyncio.run(Ledger.open(server.url))


def test_postgresql_with_a_wrong_address_shows_no_password(tmp_path: Path) -> None:
    """An unreachable server's error names host and database, never the password."""
    url = f"postgresql://u:hunter2@/db?host={tmp_path}"
    with pytest.raises(LedgerError, match="can't be reached") as caught:
        asyncio.run(Ledger.open(url))
    assert "hunter2" not in str(caught.value)
