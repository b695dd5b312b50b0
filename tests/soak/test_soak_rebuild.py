"""Rebuilding: the product gives the same bytes, and what a place adds to a wheel is found."""

import hashlib
import os
import subprocess
import sys
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


def test_data_and_training_repeat_byte_for_byte(tmp_path: Path) -> None:
    """Another folder, zone, language, order of hashes and umask: both stages, weights and all.

    The small size; two minutes of CPU time a place. The stock bundle has twelve times the text.
    """
    places = (
        (tmp_path / "a", {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}, 0o022),
        (
            tmp_path / "another longer name",
            {"TZ": "Asia/Kolkata", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"},
            0o077,
        ),
    )
    for place, world, mask in places:
        place.mkdir()
        for line in (
            ("synth", "--size", "small", "--out", "data"),
            ("train", "--data", "data", "--out", "out/homebrewing", "--unsigned"),
        ):
            subprocess.run(
                [sys.executable, "-m", "safehold", *line],
                cwd=place,
                env=os.environ | world,
                umask=mask,
                check=True,
                stdout=subprocess.DEVNULL,
            )
    first, second = (
        {
            str(file.relative_to(place)): hashlib.sha256(file.read_bytes()).hexdigest()
            for part in ("data/examples.jsonl", "data/manifest.json", "out")
            for file in sorted([place / part, *(place / part).rglob("*")])
            if file.is_file()
        }
        for place, _, _ in places
    )
    assert len(first) >= 9
    assert first == second
