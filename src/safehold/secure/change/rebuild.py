"""Rebuild a wheel in two clean places that differ in everything that must not matter."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

import msgspec

from safehold.canonical import sha256_hex
from safehold.secure.change.git_policy import ChangeError
from safehold.secure.change.git_verify import Git

_TIMEOUT_S = 900
# What a build must not depend on: the folder, the zone, the language, the order of hashes, umask.
_PLACES = (
    {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1", "umask": "022", "folder": "a"},
    {"TZ": "Asia/Kolkata", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2", "umask": "077"}
    | {"folder": "another-longer-name"},
)


class Rebuilt(msgspec.Struct, frozen=True):
    """One file, built twice."""

    name: str
    sha256: str
    again: str
    commit: str

    @property
    def same(self) -> bool:
        """Tell whether both builds gave the same bytes."""
        return self.sha256 == self.again


def rebuild(repository: Path, commit: str, out: Path, *, isolated: bool = True) -> Rebuilt:
    """Build the wheel of a commit twice, keep one in `out`, and return both digests.

    The source is what git has of the commit: nothing of the work tree gets in.

    Args:
        repository: The source's repository.
        commit: What to build.
        out: Folder for the wheel.
        isolated: Let pip make a clean environment with the build's own requirements; without it,
            this interpreter's packages build it.

    Raises:
        ChangeError: the commit can't be read, or a build failed.
    """
    git = Git(repository)
    oid = git.oid(commit)
    epoch = git.run("show", "-s", "--format=%ct", oid).decode().strip()
    archive = git.run("archive", "--format=tar", oid)
    built: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="safehold-rebuild-") as room:
        for place in _PLACES:
            folder = Path(room) / place["folder"]
            wheel = _build(archive, folder, epoch, place, isolated=isolated)
            built.append((wheel.name, sha256_hex(wheel.read_bytes())))
            out.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(wheel, out / wheel.name)
    (name, first), (other, second) = built
    if name != other:
        raise ChangeError(f"two builds of one commit are named {name} and {other}")
    return Rebuilt(name=name, sha256=first, again=second, commit=oid)


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Extract an archive whose names and links stay below the folder."""
    for member in tar.getmembers():
        told = [member.name, *([member.linkname] if member.issym() or member.islnk() else [])]
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in told):
            raise ChangeError(f"the commit holds a path that leaves its folder: {member.name!r}")
    tar.extractall(folder)  # noqa: S202 - looked at above


def _build(
    archive: bytes, folder: Path, epoch: str, place: dict[str, str], *, isolated: bool
) -> Path:
    source, out = folder / "source", folder / "out"
    source.mkdir(parents=True)
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(source, filter="data")
        else:  # Python 3.11 before 3.11.4
            _extract(tar, source)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env = kept | {"SOURCE_DATE_EPOCH": epoch}
    env |= {name: place[name] for name in ("TZ", "LC_ALL", "PYTHONHASHSEED")}
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-cache-dir"]
    words += [] if isolated else ["--no-build-isolation"]
    try:
        done = subprocess.run(
            [*words, "--wheel-dir", str(out), str(source)],
            check=False,
            capture_output=True,
            env=env,
            timeout=_TIMEOUT_S,
            umask=int(place["umask"], 8),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ChangeError(f"the build did not run: {error}") from error
    wheels = sorted(out.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ChangeError(f"the build failed: {said[-1] if said else 'no wheel was made'}")
    return wheels[0]
