"""The documentation shows every screen: one that is new in the route table has a picture."""

from pathlib import Path

from safehold.console.demo.pictures import PICTURES
from safehold.console.route_table import SCREENS

IMAGES = Path(__file__).parents[3] / "docs" / "images" / "console"


def test_every_screen_has_a_picture_light_and_dark() -> None:
    """Each template of the route table has steps that lead to it, and both files are there."""
    names = {screen.template.removesuffix(".html").replace("_", "-") for screen in SCREENS}
    assert names - set(PICTURES) == set()
    files = {f"{name}-{scheme}.webp" for name in PICTURES for scheme in ("light", "dark")}
    assert files == {one.name for one in IMAGES.iterdir()}
