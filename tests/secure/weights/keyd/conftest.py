"""Fixtures of the key service."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from safehold.testing.keyd import Vaulted


@pytest.fixture
def vaulted(tmp_path: Path) -> Iterator[Vaulted]:
    """An enclave with a sealed model and a running key service."""
    parts = Vaulted(tmp_path)
    try:
        yield parts
    finally:
        parts.stop()
