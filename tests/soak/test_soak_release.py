"""A release is made from a clone: the files that the page promises, and no other state."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import safehold

pytestmark = pytest.mark.soak

ROOT = Path(__file__).parents[2]
VERSION = safehold.__version__


def run(folder: Path, *words: str, status: int = 0) -> str:
    """Run a program in the clone; its exit status must be this one."""
    done = subprocess.run(
        words,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == status, said[-3000:]
    return said


def clone(folder: Path) -> Path:
    """Return a clone of this commit whose environment is the one of the tests."""
    run(ROOT, "git", "clone", "-q", "--no-hardlinks", str(ROOT), str(folder))
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    for stamp in ("requirements", ".demo", ".test"):
        (folder / ".venv" / stamp).touch()
    return folder


def commit(folder: Path) -> None:
    """Commit what changed in the clone."""
    run(folder, "git", "add", "-A")
    run(
        folder,
        *("git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org"),
        *("-c", "commit.gpgsign=false", "commit", "-qm", f"Release {VERSION}"),
    )


def test_a_release_has_every_file_that_the_page_promises(tmp_path: Path) -> None:
    """Wheel, provenance, sdist, list of parts, notes and sums; each says the same of the wheel."""
    there = clone(tmp_path / "clone")
    assert "expected a heading" in run(there, "./scripts/release", status=2)

    log = there / "CHANGELOG.md"
    before = log.read_text("utf-8")
    log.write_text(before.replace("## Unreleased", f"## {VERSION} - 2030-01-31", 1), "utf-8")
    assert "expected a clean tree" in run(there, "./scripts/release", status=2)

    assert f"kept {VERSION}" in run(there, sys.executable, "scripts/keep-version")
    commit(there)
    assert "next: safehold change vouch" in run(there, "make", "release")
    assert run(there, "git", "status", "--porcelain") == ""

    dist = there / "dist"
    run(dist, "sha256sum", "--check", "--strict", "SHA256SUMS")
    summed = {line.split()[1] for line in (dist / "SHA256SUMS").read_text().splitlines()}
    assert summed == {one.name for one in dist.iterdir()} - {"SHA256SUMS"}

    wheel = next(dist.glob("*.whl"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with zipfile.ZipFile(wheel) as opened:
        assert "safehold/py.typed" in opened.namelist()
    statement = json.loads(next(dist.glob("*.provenance.json")).read_text())
    assert [one["digest"]["sha256"] for one in statement["subject"]] == [digest]
    with tarfile.open(next(dist.glob("*.tar.gz"))) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"pyproject.toml", "CHANGELOG.md", "src/safehold/__init__.py"} <= names
    parts = json.loads((dist / f"safehold-{VERSION}.cdx.json").read_text())
    assert parts["bomFormat"] == "CycloneDX"
    assert all(one["version"] for one in parts["components"])
    notes = (dist / f"safehold-{VERSION}-notes.md").read_text("utf-8")
    assert [line for line in notes.splitlines() if line.startswith("## ")] == [
        f"## {VERSION} - 2030-01-31"
    ]
    assert "\n- " in notes


def test_what_is_kept_of_this_version_is_opened_by_it(tmp_path: Path) -> None:
    """`scripts/keep-version` writes what the tests of upgrades read."""
    there = clone(tmp_path / "clone")
    run(there, sys.executable, "scripts/keep-version")
    run(there, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/upgrade")
