"""Rows to append, and a ledger URL of each kind."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from safehold.testing.ledger import RowMaker


@pytest.fixture
def rows() -> RowMaker:
    """Rows with sensible values."""
    return RowMaker()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[[], str]) -> str:
    """An empty ledger's URL, of each storage in turn."""
    return str(tmp_path / "ledger.db") if request.param == "sqlite" else new_database()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a short path that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="shld-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
