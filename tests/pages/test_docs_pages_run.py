"""Every command of a page runs as it is printed, in the order of the page."""

import re
from pathlib import Path

import pytest
from docs_sessions import ROOT, Session, lines, play
from heavy_sessions import ELSEWHERE, HEAVY
from left_lines import LEFT
from page_sessions import PAGES


def page_of(name: str) -> Path:
    """Return a page by its name."""
    return ROOT / "README.md" if name == "README" else ROOT / "docs" / f"{name}.md"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_plays_as_printed(name: str, tmp_path: Path) -> None:
    """Each line of the page does what it says, one after the other."""
    play(page_of(name), PAGES[name], tmp_path)


def test_every_page_with_a_command_is_played() -> None:
    """Here, in `make soak`, or by a test that is named; nothing is played that is no page."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    told = {page.stem for page in pages if lines(page)}
    assert set(PAGES) | set(HEAVY) | set(ELSEWHERE) == told
    assert set(PAGES) & set(HEAVY) == set()
    assert [one for one in ELSEWHERE.values() if not (ROOT / one).is_file()] == []


def test_what_no_session_plays_stands_on_one_list() -> None:
    """With a reason that names what plays it, which is there, or that says that nothing does."""
    left = {name: one.left for name, one in (PAGES | HEAVY).items() if one.left}
    assert left == LEFT
    for why in (why for page in LEFT.values() for why in page.values()):
        named = re.findall(r"(?:tests|scripts)/[\w./]+", why)
        assert named or "root" in why
        assert [one for one in named if not (ROOT / one).is_file()] == []


def test_a_line_that_fails_is_found(tmp_path: Path) -> None:
    """The player is no test that can't fail: a wrong command, and a saying without a line."""
    page = tmp_path / "page.md"
    page.write_text("```\nsafehold constitution lint nowhere.yaml\n```\n")
    with pytest.raises(AssertionError, match="nowhere"):
        play(page, Session(), tmp_path)
    with pytest.raises(AssertionError, match="no longer says"):
        play(page, Session(own={"no such word": "x"}), tmp_path / "other")
