"""A founded enclave for each test."""

from pathlib import Path

import pytest

from safehold.testing.trust import Enclave


@pytest.fixture
def enclave(tmp_path: Path) -> Enclave:
    """Return an enclave of six people, an agent and a service."""
    return Enclave(tmp_path / "log")
