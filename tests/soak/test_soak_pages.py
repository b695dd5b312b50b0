"""The pages that train, attack or need a network of their own, played as printed."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "pages"))
from docs_sessions import ROOT, play
from heavy_sessions import HEAVY

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("name", HEAVY)
def test_a_heavy_page_plays_as_printed(name: str, tmp_path: Path) -> None:
    """Each line of the page does what it says, one after the other."""
    page = ROOT / "README.md" if name == "README" else ROOT / "docs" / f"{name}.md"
    play(page, HEAVY[name], tmp_path, seconds=7200)
