"""A bounty's folder."""

from pathlib import Path

import pytest

from safehold.testing.bounty import BountyPlace, bounty_place


@pytest.fixture
def place(tmp_path: Path) -> BountyPlace:
    """Triage's key, the questions and the programme in a folder."""
    return bounty_place(tmp_path)
