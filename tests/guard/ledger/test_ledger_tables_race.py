"""Processes that start at once all open the database that one of them is making."""

import re
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import MetaData

from safehold.console.index import METADATA as INDEX
from safehold.console.shell.logins import METADATA as LOGINS
from safehold.detect.bounty.book import METADATA as BOUNTY
from safehold.detect.intel.store import METADATA as INTEL
from safehold.detect.monitoring.tables import METADATA as MONITOR
from safehold.detect.monitoring.tables import MonitorStore
from safehold.detect.review.desk import METADATA as REVIEW
from safehold.errors import LedgerError
from safehold.guard.ledger.engine import open_engine, told
from safehold.guard.ledger.own_tables import make_tables

SRC = Path(__file__).parents[3] / "src/safehold"
KINDS = (MONITOR, BOUNTY, REVIEW, INTEL, LOGINS, INDEX)


def _at_once(count: int, call: Callable[[], object]) -> list[str]:
    barrier, failed = threading.Barrier(count), list[str]()

    def run() -> None:
        barrier.wait()
        try:
            call()
        except LedgerError as error:
            failed.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


@pytest.mark.parametrize("tables", KINDS)
def test_all_who_start_at_once_open_it(tables: MetaData, tmp_path: Path) -> None:
    """Nobody fails because another makes the tables at this moment."""

    def start() -> None:
        engine = open_engine(str(tmp_path / "shared.db"), wait_s=30.0, write=True)
        make_tables(engine, tables, name="part")

    assert _at_once(5, start) == []


@pytest.mark.parametrize("what", ["monitor", "ledger"])
def test_the_change_to_writing_ahead_waits_for_another_writer(what: str, tmp_path: Path) -> None:
    """SQLite refuses that change at once where the file is locked; we wait for it."""
    path = tmp_path / "shared.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE made (name)")
    other.execute("BEGIN IMMEDIATE")
    failed = list[str]()

    def start() -> None:
        try:
            if what == "monitor":
                MonitorStore.open(str(path))
            else:
                engine = open_engine(str(path), wait_s=30.0, write=True)
                with told(engine), engine.begin():
                    pass
        except LedgerError as error:
            failed.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    time.sleep(0.3)
    other.execute("COMMIT")
    thread.join()
    other.close()
    assert failed == []


def test_a_lock_that_is_never_let_go_ends_in_one_sentence(tmp_path: Path) -> None:
    """The twin: who waits for longer than it may says so, and does not hang."""
    path = tmp_path / "shared.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE made (name)")
    other.execute("BEGIN IMMEDIATE")
    engine = open_engine(str(path), wait_s=0.2, write=True)
    with pytest.raises(LedgerError, match="lock for too long"):
        make_tables(engine, MONITOR, name="monitor")
    other.close()


def test_tables_are_made_in_one_room() -> None:
    """A store that made its own would race again."""
    makers = {
        str(path.relative_to(SRC))
        for path in SRC.rglob("*.py")
        if re.search(r"\.create_all\(|CreateTable\(", path.read_text("utf-8"))
    }
    assert makers == {"guard/ledger/engine.py", "guard/ledger/own_tables.py"}
