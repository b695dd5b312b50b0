"""`safehold monitor`: a scan, the accounts and the campaigns of a small ledger."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli.monitor import monitor
from safehold.detect.monitoring.tables import RESULTS, MonitorStore
from safehold.errors import LedgerError, SafeholdError
from safehold.guard.accounts.interface import AccountStateError
from safehold.guard.ledger.engine import open_engine
from safehold.testing.monitoring import fill


def _run(folder: Path, *words: str) -> str:
    places = ["--ledger", str(folder / "l.db"), "--monitor", str(folder / "m.db")]
    done = CliRunner().invoke(monitor, [*places, *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_ledger_is_scanned_once_and_accounts_are_listed(tmp_path: Path) -> None:
    """The second scan has nothing to do; the account that was always stopped is labelled."""
    text = "the same long question about kettles and copper and nothing else at all"
    asked = [("bad", f"{text} {i}", True) for i in range(40)]
    fill(str(tmp_path / "l.db"), [*asked, ("good", "hello", False)])
    assert '"planned":1,"open":0,"leased":0,"done":1' in _run(
        tmp_path, "scan", "--scanner", "decoded", "--json"
    )
    assert '"planned":0' in _run(tmp_path, "scan", "--scanner", "decoded", "--json")
    assert "decoded  41 judged, 0 waiting" in _run(tmp_path, "status")
    assert '"account":"bad"' in _run(tmp_path, "accounts", "--json")
    assert "account bad: long-lineage" in _run(tmp_path, "cases")
    assert "0 new exchanges" in _run(tmp_path, "accounts")
    assert "label long-lineage until" in _run(tmp_path, "account", "bad")
    assert '"queries":1' in _run(tmp_path, "account", "good", "--json")
    assert "0 campaigns" in _run(tmp_path, "campaigns")
    _run(tmp_path, "campaigns", "--json")
    assert '"tail": "light"' in _run(tmp_path, "simulate", "--tail", "light", "--accounts", "50")


def test_the_ladder_climbs_by_itself_and_is_lifted_by_hand(tmp_path: Path) -> None:
    """A labelled account is stepped up; a second look changes nothing; a hand takes it off."""
    text = "the same long question about kettles and copper and nothing else at all"
    asked = [("bad", f"{text} {i}", True) for i in range(40)]
    fill(str(tmp_path / "l.db"), [*asked, ("good", "hello", False)])
    file = ["--states", str(tmp_path / "s.json"), "--key", str(tmp_path / "m.key")]
    assert "s.json is there" in _run(tmp_path, "ladder", "begin", *file)
    assert "serial 2, 7 new steps, 7 in all" in _run(tmp_path, "ladder", "climb", *file)
    assert "0 new steps" in _run(tmp_path, "ladder", "climb", *file)
    step = ["default/key-1", "rate-limit", "--reason", "a search", "--requests", "6"]
    assert "serial 4" in _run(tmp_path, "ladder", "step", *step, *file)
    assert '"level":"rate-limit"' in _run(tmp_path, "ladder", "show", "--json", *file)
    assert "serial 5" in _run(tmp_path, "ladder", "lift", "default/key-1", *file)
    suspend = ["ladder", "step", "a/b", "suspend", "--reason", "r", *file]
    done = CliRunner().invoke(monitor, suspend)
    assert isinstance(done.exception, AccountStateError)


def test_what_is_not_there_is_said_with_the_next_step(tmp_path: Path) -> None:
    """An unknown account, tails of nobody, and a status before the first scan."""
    fill(str(tmp_path / "l.db"), [("good", "hello", False)])
    _run(tmp_path, "accounts")
    assert "safehold monitor scan" in _run(tmp_path, "status")
    places = ["--ledger", str(tmp_path / "l.db"), "--monitor", str(tmp_path / "m.db")]
    refused = {"account nobody": "monitor accounts", "simulate --tail own": "came 0"}
    for words, why in refused.items():
        done = CliRunner().invoke(monitor, [*places, *words.split()])
        assert isinstance(done.exception, SafeholdError)
        assert why in str(done.exception)


def _text_file(path: Path) -> None:
    path.write_text("these are notes, no database " * 40)


def _vanished(path: Path) -> None:
    path.unlink(missing_ok=True)


def _of_the_monitor(path: Path) -> None:
    MonitorStore.open(str(path))


def _newer(path: Path) -> None:
    fill(str(path), [("a", "text", False)])
    with open_engine(str(path), wait_s=1.0, write=True).begin() as connection:
        connection.exec_driver_sql("INSERT INTO ledger_schema VALUES (999, 0)")


def _older(path: Path) -> None:
    fill(str(path), [("a", "text", False)])
    with open_engine(str(path), wait_s=1.0, write=True).begin() as connection:
        connection.exec_driver_sql("DELETE FROM ledger_schema WHERE version > 1")


@pytest.mark.parametrize("spoil", [_text_file, _vanished, _of_the_monitor, _newer, _older])
@pytest.mark.parametrize("command", ["scan --scanner decoded", "accounts", "campaigns", "cases"])
def test_a_ledger_that_is_none_of_ours_is_one_line(
    spoil: Callable[[Path], None], command: str, tmp_path: Path
) -> None:
    """Notes, a vanished file, other tables, a newer and an older schema: told, nothing judged."""
    spoil(tmp_path / "l.db")
    places = ["--ledger", str(tmp_path / "l.db"), "--monitor", str(tmp_path / "m.db")]
    done = CliRunner().invoke(monitor, [*places, *command.split()])
    assert isinstance(done.exception, LedgerError)
    assert "\n" not in str(done.exception).strip()
    if spoil is _vanished:
        assert not (tmp_path / "l.db").exists()
    with MonitorStore.open(str(tmp_path / "m.db")).begin() as connection:
        assert connection.execute(RESULTS.select()).all() == []


@pytest.mark.parametrize("command", ["scan --scanner decoded", "status", "accounts", "campaigns"])
def test_a_monitors_database_that_is_none_is_one_line(command: str, tmp_path: Path) -> None:
    """Notes where the monitor's database should be are left as they are."""
    fill(str(tmp_path / "l.db"), [("a", "text", False)])
    _text_file(tmp_path / "m.db")
    before = (tmp_path / "m.db").read_bytes()
    places = ["--ledger", str(tmp_path / "l.db"), "--monitor", str(tmp_path / "m.db")]
    done = CliRunner().invoke(monitor, [*places, *command.split()])
    assert isinstance(done.exception, LedgerError)
    assert (tmp_path / "m.db").read_bytes() == before
