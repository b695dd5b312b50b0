"""`safehold monitor`: a scan, the accounts and the campaigns of a small ledger."""

from pathlib import Path

from click.testing import CliRunner

from safehold.cli.monitor import monitor
from safehold.guard.accounts.interface import AccountStateError
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
    _run(tmp_path, "campaigns", "--json")
    assert '"tail": "light"' in _run(tmp_path, "simulate", "--tail", "light", "--accounts", "50")


def test_the_ladder_climbs_by_itself_and_is_lifted_by_hand(tmp_path: Path) -> None:
    """A labelled account is stepped up; a second look changes nothing; a hand takes it off."""
    text = "the same long question about kettles and copper and nothing else at all"
    asked = [("bad", f"{text} {i}", True) for i in range(40)]
    fill(str(tmp_path / "l.db"), [*asked, ("good", "hello", False)])
    file = ["--states", str(tmp_path / "s.json"), "--key", str(tmp_path / "m.key")]
    assert "s.json is there" in _run(tmp_path, "ladder", "begin", *file)
    assert "serial 2, 6 new steps, 6 in all" in _run(tmp_path, "ladder", "climb", *file)
    assert "0 new steps" in _run(tmp_path, "ladder", "climb", *file)
    step = ["default/key-1", "rate-limit", "--reason", "a search", "--requests", "6"]
    assert "serial 4" in _run(tmp_path, "ladder", "step", *step, *file)
    assert '"level":"rate-limit"' in _run(tmp_path, "ladder", "show", "--json", *file)
    assert "serial 5" in _run(tmp_path, "ladder", "lift", "default/key-1", *file)
    suspend = ["ladder", "step", "a/b", "suspend", "--reason", "r", *file]
    done = CliRunner().invoke(monitor, suspend)
    assert isinstance(done.exception, AccountStateError)
