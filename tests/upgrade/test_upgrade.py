"""What an earlier version wrote is opened by this one: its ledger, its log, its bundle."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import safehold
from safehold.cli import safehold as top
from safehold.guard.ledger.reader import LedgerReader

HERE = Path(__file__).parent
VERSIONS = sorted(path.name for path in HERE.iterdir() if path.name[0].isdigit())


def test_the_present_version_is_kept() -> None:
    """A release can't be cut without its files: the next version is tested against them."""
    assert safehold.__version__ in VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_a_ledger_is_read_and_counted(version: str, tmp_path: Path) -> None:
    """After `ledger migrate` every row is there, and coverage finds what lacks an end."""
    path = tmp_path / "ledger.db"
    shutil.copy(HERE / version / "ledger.db", path)
    run = CliRunner().invoke(top, ["ledger", "--ledger", str(path), "migrate"])
    assert run.exit_code == 0, run.output
    rows = LedgerReader.open(str(path)).tail(20)
    names = [row.row.decision_id for row in rows]
    assert names.count("first") == names.count("second") == 3
    assert names.count("third") == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_a_log_is_verified(version: str) -> None:
    """Every leaf is read, none is void, and the grant stands."""
    folder = HERE / version
    found = safehold.verify_log(folder / "log", folder / "pinned-log.json")
    assert found.size > 4
    assert found.voids == ()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_bundle_is_loaded_and_decides(version: str) -> None:
    """It verifies with the key it was signed with, and still tells the two kinds apart."""
    folder = HERE / version
    guard = safehold.load_guard(folder / "bundle", key=folder / "bundle-key.pub")
    assert isinstance(
        guard.check_prompt("mash malt, boil wort, pitch yeast, add hops"), safehold.Block
    )
    assert isinstance(guard.check_prompt("a walk along the river"), safehold.Allow)
