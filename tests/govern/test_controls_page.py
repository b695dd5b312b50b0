"""The page of controls: what it names exists, and every in-scope row is tried."""

import re
from pathlib import Path

from safehold.govern.controls.library import stock_catalogue

PAGE = (Path(__file__).parents[2] / "docs" / "controls.md").read_text(encoding="utf-8")
KNOWN = {one.id for one in stock_catalogue().controls}


def rows() -> list[list[str]]:
    """Return the cells of the threat model's rows."""
    part = PAGE.split("## Threat model")[1].split("## The heist")[0]
    lines = [one for one in part.splitlines() if one.startswith("| ")][2:]
    return [[cell.strip() for cell in one.strip("|").split("|")] for one in lines]


def test_every_control_that_the_page_names_exists() -> None:
    """No id on the page is one that the catalogue lacks."""
    named = set(re.findall(r"\b[a-z]{3}-\d{2}\b", PAGE))
    assert named - KNOWN <= {"gpu-01"}
    assert len(named) > 50


def test_each_row_of_the_threat_model_names_controls_and_what_tries_it() -> None:
    """A row in scope has at least three controls, and a step or the reason why it has none."""
    found = rows()
    assert len(found) >= 15
    for entry, actor, scope, controls, steps in found:
        ids = re.findall(r"[a-z]{3}-\d{2}", controls)
        assert actor
        assert steps, entry
        if scope == "yes":
            assert len(ids) >= 3, entry
            assert steps != "none", entry
