"""A ledger behind PgBouncer in transaction mode, refusals of a server, a fail-over, a bad copy."""

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from psycopg import OperationalError
from sqlalchemy.exc import DBAPIError

from safehold.errors import LedgerError
from safehold.guard.gateway.access.store import SqlStore
from safehold.guard.ledger.backup import backup
from safehold.guard.ledger.coverage import StallLimits, audit
from safehold.guard.ledger.engine import sentence
from safehold.guard.ledger.interface import FinalRow, PromptRow
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import RowMaker
from safehold.testing.ports import held_port

SECRETIVE = "s3cret-host"


@pytest.fixture
def port() -> Iterator[int]:
    """A port for the pooler."""
    with held_port() as port:
        yield port


@pytest.fixture
def pooled(folder: Path, new_database: Callable[[], str], port: int) -> Iterator[str]:
    """A new database behind a real PgBouncer in transaction mode, with two servers for all."""
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    assert Path(program).exists(), "pgbouncer is missing: run scripts/system-packages"
    parts = urlsplit(new_database())
    where = parse_qs(parts.query)["host"][0]
    name = parts.path.strip("/")
    (folder / "users").write_text('"safehold" ""\n')
    (folder / "p.ini").write_text(
        f"[databases]\n{name} = host={where} dbname={name} user=safehold\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n"
        f"auth_file = {folder}/users\npool_mode = transaction\ndefault_pool_size = 2\n"
        "unix_socket_dir =\n"
    )
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    process = subprocess.Popen(
        [program, "-q", str(folder / "p.ini")],
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield f"postgresql://safehold@127.0.0.1:{port}/{name}"
    finally:
        process.terminate()
        process.wait(20)


def test_ledgers_and_store_share_a_pooler_in_transaction_mode(pooled: str, rows: RowMaker) -> None:
    """Four writers and a store on two pooled servers: every row is kept, the audit is clean."""

    async def go() -> None:
        ledgers = [await Ledger.open(pooled) for _ in range(4)]
        store = SqlStore(pooled)
        for round_ in range(12):
            pairs = [pair(rows, f"sh_{round_}_{n}") for n in range(4)]
            await asyncio.gather(
                *(ledger.append(*pair) for ledger, pair in zip(ledgers, pairs, strict=True)),
                store.add("k", 1, 86_400),
            )
        assert await store.add("k", 0, 86_400) == 12
        await store.close()
        for ledger in ledgers:
            await ledger.close()

    asyncio.run(go())
    found = audit(LedgerReader.open(pooled), now=time.time(), limits=StallLimits())
    assert found.gaps == ()
    assert found.last_seq == 12 * 4 * 2


def test_pooled_transaction_has_our_time_limits(pooled: str) -> None:
    """Lock and statement limits and synchronous commit hold in each transaction of a pooler."""

    async def go() -> None:
        ledger = await Ledger.open(pooled)
        engine = ledger._storage._engine
        with engine.begin() as connection:
            shown = [
                connection.exec_driver_sql(f"SHOW {name}").scalar_one()
                for name in ("lock_timeout", "statement_timeout", "synchronous_commit")
            ]
        assert "0" not in shown[:2]
        assert shown[2] == "on"
        await ledger.close()

    asyncio.run(go())


def pair(rows: RowMaker, decision_id: str) -> tuple[PromptRow, FinalRow]:
    """Return both rows of one exchange."""
    return rows.prompt(decision_id), rows.final(decision_id)


REFUSALS = {
    'connection failed: FATAL:  database "x" does not exist': "no such database",
    "FATAL: no such database: x": "no such database",
    'FATAL:  role "x" does not exist': "refused the user or password",
    'FATAL:  password authentication failed for user "x"': "refused the user or password",
    "fe_sendauth: no password supplied": "refused the user or password",
    'FATAL:  no pg_hba.conf entry for host "10.0.0.1"': "refused the user or password",
    "FATAL:  sorry, too many clients already": "no connection left",
    "FATAL: no more connections allowed (max_client_conn)": "no connection left",
    "FATAL:  remaining connection slots are reserved": "no connection left",
    "FATAL:  the database system is starting up": "shutting down or starting",
    "FATAL: unsupported startup parameter: options": "refuses a parameter",
    'could not translate host name "x" to address': "name is unknown",
    "SSL error: certificate verify failed": "TLS handshake",
    "session is read-only": "none of the servers takes writes",
    "connection refused": "can't be reached",
}


@pytest.mark.parametrize("said", REFUSALS)
def test_each_refusal_of_a_server_has_its_own_sentence(said: str) -> None:
    """What a server says when it refuses a connection is told apart, without a word of it."""
    error = DBAPIError("x", {}, OperationalError(f"{said} {SECRETIVE}"))
    told = sentence(error)
    assert REFUSALS[said] in told
    assert SECRETIVE not in told


@pytest.mark.parametrize(
    ("change", "meant"),
    [("/nosuch?", "no such database"), ("nobody@", "refused the user or password")],
)
def test_real_server_refuses_with_its_own_sentence(
    new_database: Callable[[], str], change: str, meant: str
) -> None:
    """A missing database and a missing role are named as what they are."""
    url = new_database()
    name = urlsplit(url).path
    url = url.replace(f"{name}?", change) if "?" in change else url.replace("safehold@", change)
    with pytest.raises(LedgerError, match=meant):
        asyncio.run(Ledger.open(url))


def test_unreachable_first_host_is_passed_over(new_database: Callable[[], str]) -> None:
    """Of several hosts in the URL, the one that answers and takes writes is used."""
    url = new_database()
    where = parse_qs(urlsplit(url).query)["host"][0]
    name = urlsplit(url).path
    several = (
        f"postgresql://safehold@{name}?host=/nowhere&host={where}&target_session_attrs=read-write"
    )

    async def go() -> int:
        ledger = await Ledger.open(several)
        try:
            return await ledger.append(*pair(RowMaker(), "sh_1"))
        finally:
            await ledger.close()

    assert asyncio.run(go()) == 2


def test_dead_connection_is_opened_anew(new_database: Callable[[], str], rows: RowMaker) -> None:
    """A server that ended every connection while idle costs no row."""
    url = new_database()

    async def go() -> None:
        ledger = await Ledger.open(url)
        await ledger.append(*pair(rows, "sh_1"))
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert await ledger.append(*pair(rows, "sh_2")) == 4
        await ledger.close()

    asyncio.run(go())


@pytest.mark.parametrize("where", ["beside", "moved"])
def test_copy_of_a_live_file_without_its_log_is_told(
    tmp_path: Path, rows: RowMaker, where: str
) -> None:
    """`cp` of a ledger that a gateway writes to is a gap; with its log beside it, it is none."""
    url = tmp_path / "ledger.db"

    async def go() -> tuple[tuple[str, ...], tuple[str, ...]]:
        ledger = await Ledger.open(str(url))
        await ledger.append(*pair(rows, "sh_1"))
        copy = tmp_path / ("copy.db" if where == "beside" else "other/ledger.db")
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(url, copy)
        bare = _gaps(copy)
        copy.unlink()
        for name in (url, url.with_name("ledger.db-wal")):
            shutil.copy(name, copy.with_name(name.name.replace("ledger.db", copy.name)))
        whole = _gaps(copy)
        await ledger.append(*pair(rows, "sh_2"))
        assert _gaps(url) == ()
        await ledger.close()
        return bare, whole

    bare, whole = asyncio.run(go())
    assert len(bare) == 1
    assert "copy made without its write-ahead log" in bare[0]
    assert whole == ()
    assert _gaps(url) == ()
    shutil.copy(url, tmp_path / "closed.db")
    assert _gaps(tmp_path / "closed.db") == ()


def test_backup_of_a_live_ledger_is_no_bad_copy(tmp_path: Path, rows: RowMaker) -> None:
    """What `ledger backup` wrote while a writer lived audits clean."""

    async def go() -> None:
        ledger = await Ledger.open(str(tmp_path / "ledger.db"))
        await ledger.append(*pair(rows, "sh_1"))
        backup(str(tmp_path / "ledger.db"), tmp_path / "b.db", now=time.time())
        await ledger.close()

    asyncio.run(go())
    assert _gaps(tmp_path / "b.db") == ()


def _gaps(path: Path) -> tuple[str, ...]:
    return audit(LedgerReader.open(str(path)), now=time.time(), limits=StallLimits()).gaps
