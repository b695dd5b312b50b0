"""Rebuilding: the product gives the same bytes, and what a place adds to a wheel is found."""

from pathlib import Path

import pytest

import safehold
from safehold.secure.change.rebuild import rebuild
from safehold.testing.builds import committed

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("extra", ["time.tzname[0]", 'str(hash("x"))', "oct(os.umask(0))"])
def test_a_build_that_depends_on_its_surroundings_is_found(tmp_path: Path, extra: str) -> None:
    """The zone, the order of hashes or the umask gets into the wheel."""
    root = committed(tmp_path / "unsound", extra)
    assert not rebuild(root, "HEAD", tmp_path / "out", isolated=False).same


def test_the_product_is_rebuilt_bit_for_bit(tmp_path: Path) -> None:
    """The wheel of the commit at hand, twice, in places that differ."""
    root = Path(safehold.__file__).parents[2]
    found = rebuild(root, "HEAD", tmp_path / "out", isolated=False)
    assert found.same
