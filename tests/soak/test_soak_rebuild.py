"""Rebuilding: the product gives the same bytes, and what a place adds to a wheel is found."""

import hashlib
import os
import subprocess
import sys
import zlib
from pathlib import Path

import msgspec
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


def thinned(data: Path) -> None:
    """Leave every eighth family that calibrates or tests, and every fortieth that trains."""
    rows = [
        line
        for line in (data / "examples.jsonl").read_bytes().splitlines(keepends=True)
        if zlib.crc32((row := msgspec.json.decode(line))["family"].encode())
        % (40 if row["split"] == "train" else 8)
        == 0
    ]
    text = b"".join(rows)
    (data / "examples.jsonl").write_bytes(text)
    manifest = msgspec.json.decode((data / "manifest.json").read_bytes())
    manifest |= {"sha256": hashlib.sha256(text).hexdigest(), "size_bytes": len(text)}
    (data / "manifest.json").write_bytes(msgspec.json.encode(manifest | {"examples": len(rows)}))


def test_data_and_training_repeat_byte_for_byte(tmp_path: Path) -> None:
    """Another folder, zone, language, order of hashes and umask: both stages, weights and all.

    A twentieth of the stock bundle's text, some two minutes of CPU time a place.
    """
    places = (
        (tmp_path / "a", {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}, 0o022),
        (
            tmp_path / "another longer name",
            {"TZ": "Asia/Kolkata", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"},
            0o077,
        ),
    )

    def told(place: Path, world: dict[str, str], mask: int, *line: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "safehold", *line],
            cwd=place,
            env=os.environ | world,
            umask=mask,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    found: list[dict[str, str]] = []
    for place, world, mask in places:
        place.mkdir()
        told(place, world, mask, "synth", "--out", "data")
        data = (place / "data" / "examples.jsonl").read_bytes()
        thinned(place / "data")
        told(place, world, mask, "train", "--data", "data", "--out", "out/all", "--unsigned")
        found.append(
            {
                str(file.relative_to(place)): hashlib.sha256(file.read_bytes()).hexdigest()
                for file in sorted((place / "out").rglob("*"))
                if file.is_file()
            }
            | {"all of the data": hashlib.sha256(data).hexdigest()}
        )
    assert {"out/all/stage2.onnx", "out/all/stage1.prompt.npy"} < set(found[0])
    assert found[0] == found[1]
