"""`safehold monitor`: a scan, the accounts and the campaigns of a small ledger."""

from pathlib import Path

from click.testing import CliRunner

from safehold.cli.monitor import monitor
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
    assert '"account":"bad"' in _run(tmp_path, "accounts", "--json")
    assert "0 new exchanges" in _run(tmp_path, "accounts")
    _run(tmp_path, "campaigns", "--json")
    assert '"tail": "light"' in _run(tmp_path, "simulate", "--tail", "light", "--accounts", "50")
