"""Storage that fails: one clear error, nothing acknowledged is lost, and it recovers."""

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from safehold.errors import LedgerError
from safehold.exchange import user_says
from safehold.guard.ledger.interface import LedgerSettings
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import RowMaker
from safehold.testing.postgres import EmbeddedPostgres

APPENDER = """
import asyncio, sys
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import RowMaker

async def append_for_ever(ledger, worker):
    for number in range(1_000_000):
        await ledger.append(RowMaker().prompt(f"{worker}-{number}"))
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


def test_a_full_disk_is_one_error_and_recovers(tmp_path: Path, rows: RowMaker) -> None:
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
from safehold.guard.ledger.writer import Ledger
if os.geteuid() == 0:
    os.seteuid(65534)  # root may write anything
try:
    asyncio.run(Ledger.open(sys.argv[1]))
except LedgerError as error:
    print(error)
"""


def test_a_read_only_file_is_one_error(folder: Path, rows: RowMaker) -> None:
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


def test_a_damaged_file_is_one_error(tmp_path: Path, rows: RowMaker) -> None:
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


def test_a_locked_file_is_one_error_and_recovers(tmp_path: Path, rows: RowMaker) -> None:
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


def test_postgresql_gone_and_back(folder: Path, rows: RowMaker) -> None:
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


@pytest.mark.parametrize("harm", ["moved", "deleted", "replaced"])
def test_a_ledger_that_lost_its_place_takes_no_row(
    tmp_path: Path, rows: RowMaker, harm: str
) -> None:
    """Nothing is acknowledged into a file that nobody will find again."""
    path = tmp_path / "ledger.db"

    async def go() -> None:
        async with await Ledger.open(str(path)) as ledger:
            await ledger.append(rows.prompt())
            assert ledger.trouble is None
            if harm == "replaced":
                (tmp_path / "other.db").write_bytes(path.read_bytes())
                (tmp_path / "other.db").rename(path)
            elif harm == "moved":
                path.rename(tmp_path / "elsewhere.db")
            else:
                path.unlink()
            with pytest.raises(LedgerError, match="moved, deleted or replaced"):
                await ledger.append(rows.prompt())
            assert ledger.trouble is not None

    asyncio.run(go())


def test_a_heartbeat_notices_a_ledger_that_is_gone(tmp_path: Path) -> None:
    """An idle gateway learns that its ledger was deleted before a request does."""
    path = tmp_path / "ledger.db"

    async def go() -> None:
        settings = LedgerSettings(heartbeat_s=0.02)
        async with await Ledger.open(str(path), settings) as ledger:
            path.unlink()
            for _ in range(500):
                if ledger.trouble is not None:
                    return
                await asyncio.sleep(0.02)
            pytest.fail("no heartbeat noticed it")

    asyncio.run(go())


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_letter_is_refused(
    postgres: EmbeddedPostgres, encoding: str
) -> None:
    """A request with one strange letter must not be the first to find out."""
    name = f"narrow_{encoding.lower()}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' "
            "TEMPLATE template0"
        )
    with pytest.raises(LedgerError, match="ENCODING 'UTF8'"):
        asyncio.run(Ledger.open(postgres.url.replace("/postgres?", f"/{name}?")))


def test_a_database_swapped_under_the_gateway_takes_no_row(
    new_database: Callable[[], str], rows: RowMaker
) -> None:
    """A server that comes back with another ledger behind the same name is refused."""
    url = new_database()

    async def go() -> None:
        async with await Ledger.open(url) as ledger:
            await ledger.append(rows.prompt())
            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
                connection.execute("DELETE FROM ledger_writers")
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            with pytest.raises(LedgerError, match="does not know this writer"):
                await ledger.append(rows.prompt())
            assert ledger.trouble is not None

    asyncio.run(go())
