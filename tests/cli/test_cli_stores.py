"""Commands that read a part's own database: a mistyped path makes no file and no tables."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli import safehold
from safehold.errors import LedgerError
from safehold.testing.monitoring import fill

_READING = (
    "monitor status",
    "monitor account default/key-1",
    "monitor simulate --tail own",
    "monitor close some-case --by ann",
    "monitor fit accounts.txt",
    "monitor export --parquet out",
    "monitor scan --scanner judge -o url=http://127.0.0.1:9/v1 -o model=m",
    "review gold",
    "review agreement",
    "review estimate week-1",
    "review planted",
    "review draw week-1 --monitor own.db --scanner session --edge 0 --floor 0 --seed 1 --by ann",
)


@pytest.mark.parametrize("there", [None, "empty", "ledger"])
@pytest.mark.parametrize("words", _READING)
def test_a_mistyped_path_makes_nothing(
    words: str, there: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, an empty file and a gateway's ledger stay as they are; the error names the path."""
    monkeypatch.chdir(tmp_path)
    fill("ledger.db", [("default/key-1", "text", False)])
    Path("accounts.txt").write_text("default/key-1\n")
    for name, option in (("MONITOR", "own.db"), ("REVIEW", "own.db"), ("LEDGER", "ledger.db")):
        monkeypatch.setenv(f"SAFEHOLD_{name}", option)
    own = Path("own.db")
    if there == "empty":
        own.touch()
    elif there == "ledger":
        fill("own.db", [("a", "text", False)])
    before = own.read_bytes() if own.exists() else None
    done = CliRunner().invoke(safehold, words.split())
    assert isinstance(done.exception, LedgerError), done.output
    assert "own.db" in str(done.exception)
    assert (own.read_bytes() if own.exists() else None) == before
