"""Every configuration that a page about security asks for stands whole on a page, and is read."""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.library import read_site
from safehold.secure.weights.providers.config import read_provider
from safehold.trust.released.interface import read_release_settings

ROOT = Path(__file__).parents[2]
PAGES = ("change", "controls", "weights")
_BLOCK = re.compile(r"^```toml\n(# ([\w-]+\.toml)\n.*?)^```", re.DOTALL | re.MULTILINE)
READERS: dict[str, Callable[[Path], object]] = {
    "releases.toml": read_release_settings,
    "controls.toml": read_site,
    "hsm.toml": read_provider,
}
FOUND = [
    (page, name, text)
    for page in PAGES
    for text, name in _BLOCK.findall((ROOT / f"docs/{page}.md").read_text("utf-8"))
]


@pytest.mark.parametrize(("page", "name", "text"), FOUND)
def test_a_printed_configuration_is_read(page: str, name: str, text: str, tmp_path: Path) -> None:
    """By the reader of the very command, as it is printed."""
    (tmp_path / name).write_text(text)
    assert READERS[name](tmp_path / name), page


def test_every_reader_has_a_printed_configuration() -> None:
    """No page asks for a file that no page shows."""
    assert {name for _, name, _ in FOUND} == set(READERS)


def test_the_printed_site_has_every_member() -> None:
    """A reader sees all there is, but for `export`, which has a section of its own."""
    (text,) = [text for _, name, text in FOUND if name == "controls.toml"]
    named = set(re.findall(r"^(\w+) =", text, re.MULTILINE))
    assert named == {one.name for one in msgspec.structs.fields(Site)} - {"export"}
