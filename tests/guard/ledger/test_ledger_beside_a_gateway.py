"""Whoever prunes or seals leaves the write lock to the gateway beside it."""

import sqlite3
import threading
from pathlib import Path

import pytest

from safehold.guard.ledger.engine import open_engine
from safehold.guard.ledger.retention import _FEWEST, _MOST, _next_size, _pause
from safehold.guard.ledger.sqlite_log import empty_log


def _file(path: Path) -> sqlite3.Connection:
    made = sqlite3.connect(path, isolation_level=None)
    made.execute("PRAGMA journal_mode=WAL").fetchall()
    made.execute("CREATE TABLE t (x)")
    return made


@pytest.mark.parametrize(
    ("held_s", "size", "fits"),
    [
        (0.01, 50, 50),
        (0.001, 50, 100),
        (1.0, 50, 25),
        (9.0, 6, 5),
        (0.0, 300, 400),
        (0.02, 100, 50),
    ],
)
def test_a_transaction_is_made_to_fit(held_s: float, size: int, fits: int) -> None:
    """Slow ones become smaller and quick ones larger, within bounds and by no more than half."""
    assert _next_size(size, held_s) == fits
    assert _FEWEST <= fits <= _MOST


@pytest.mark.parametrize("held_s", [0.0, 0.005, 0.03, 0.3, 4.0])
def test_the_lock_is_free_as_long_as_it_was_held(held_s: float) -> None:
    """At least half of the time somebody else may write, up to half a second at once."""
    assert _pause(held_s) >= min(held_s, 0.5)
    assert 0.01 <= _pause(held_s) <= 0.5


def test_a_reader_in_the_way_lets_writers_write(tmp_path: Path) -> None:
    """While the log can't be emptied, nobody is kept from writing; it is emptied in the end."""
    path = tmp_path / "l.db"
    writer = _file(path)
    writer.execute("PRAGMA busy_timeout=2000").fetchall()
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN").fetchall()
    reader.execute("SELECT * FROM t").fetchall()
    writer.execute("INSERT INTO t VALUES (0)")
    told: list[bool] = []
    engine = open_engine(str(path), wait_s=30.0, write=True)
    emptying = threading.Thread(target=lambda: told.append(empty_log(engine, wait_s=30.0)))
    emptying.start()
    for number in range(20):
        writer.execute("INSERT INTO t VALUES (?)", (number,))
    assert emptying.is_alive()
    reader.execute("COMMIT")
    emptying.join(60)
    assert told == [True]
    assert Path(f"{path}-wal").stat().st_size == 0


def test_a_log_that_stays_in_use_is_left(tmp_path: Path) -> None:
    """Who reads for ever does not keep the command from ending; the answer says so."""
    path = tmp_path / "l.db"
    writer = _file(path)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN").fetchall()
    reader.execute("SELECT * FROM t").fetchall()
    writer.execute("INSERT INTO t VALUES (0)")
    assert not empty_log(open_engine(str(path), wait_s=1.0, write=True), wait_s=0.05)
    writer.execute("INSERT INTO t VALUES (1)")
    reader.close()
    assert empty_log(open_engine(str(path), wait_s=1.0, write=True), wait_s=5.0)
