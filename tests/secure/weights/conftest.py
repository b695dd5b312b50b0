"""Fixtures of sealed weights."""

from pathlib import Path

import pytest

from safehold.testing.weights import Publisher


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    """A publisher with a small model to seal, in an empty folder."""
    return Publisher(tmp_path)
