"""A page is found from the site's doors, and a test from its module."""

import ast
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "safehold"
CORE = ("trust", "guard/session", "secure/weights")
KINDS = ("Tutorials", "How-to", "Reference", "Explanation")
APART = ("adr/",)
"""Decisions are read from where they are named."""


def leaves(nav: object) -> list[str]:
    """Return the pages below a part of the navigation."""
    match nav:
        case str():
            return [nav]
        case dict():
            return [page for part in nav.values() for page in leaves(part)]
        case list():
            return [page for part in nav for page in leaves(part)]
        case _:
            raise TypeError(nav)


def test_every_page_is_a_tutorial_a_how_to_reference_or_explanation() -> None:
    """Each page stands in exactly one of the four; only the start page stands before them."""
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    kinds = {name: leaves(part) for one in nav for name, part in one.items()}
    assert kinds.pop("Home") == ["index.md"]
    assert tuple(kinds) == KINDS
    placed = [page for pages in kinds.values() for page in pages]
    assert len(placed) == len(set(placed))
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    apart = {page for page in there if page.startswith((*APART, "reference/commands/"))}
    assert there - apart - {"index.md"} == set(placed)


def test_no_page_of_the_site_links_to_a_page_outside_of_it() -> None:
    """`make docs` is strict: what lies above `docs` is no page, so it is named in words."""
    outside = [
        (path.name, link)
        for path in sorted((ROOT / "docs").rglob("*.md"))
        for link in re.findall(r"\]\(([^)#\s]+\.md)(?:#[^)]*)?\)", path.read_text("utf-8"))
        if "://" not in link and not (path.parent / link).resolve().is_relative_to(ROOT / "docs")
    ]
    assert outside == []


def test_each_of_the_three_doors_has_a_start_and_a_diagram() -> None:
    """Run a guard, train your own, keep the weights in."""
    text = (ROOT / "docs" / "index.md").read_text("utf-8")
    doors = re.findall(
        r"^## (.*)\n!\[[^\]]+\]\((images/[\w-]+\.svg)\)(?:.|\n)*?\* Start: ", text, re.MULTILINE
    )
    assert [name for name, _ in doors] == ["Run a guard", "Train your own", "Keep the weights in"]
    assert all((ROOT / "docs" / image).is_file() for _, image in doors)


def imported(path: Path) -> set[str]:
    """Return the names of modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
        elif isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
    return found


def test_a_test_is_found_from_each_module_of_the_core() -> None:
    """A test imports it, or the page says through whose name it is tested; no row is idle."""
    known = set().union(*(imported(path) for path in (ROOT / "tests").rglob("*.py")))
    modules = {
        path.relative_to(SOURCE).as_posix()
        for room in CORE
        for path in (SOURCE / room).rglob("*.py")
        if path.name != "__init__.py"
    }
    hidden = {
        one
        for one in modules
        if f"safehold.{one.removesuffix('.py').replace('/', '.')}" not in known
    }
    page = (ROOT / "docs" / "where-is-what.md").read_text("utf-8")
    told = set(
        re.findall(r"^\| \[`([\w/]+\.py)`\]", page.partition("## The tests of")[2], re.MULTILINE)
    )
    assert hidden == told
