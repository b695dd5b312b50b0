"""Rebuild a wheel, or a bundle, in two clean places that differ in all that must not matter."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import msgspec

from safehold.canonical import sha256_hex
from safehold.secure.change.git_policy import ChangeError
from safehold.secure.change.git_verify import Git

_TIMEOUT_S = 900
_LONGEST_S = 4 * 3600
"""A training from the seeds takes half an hour on a quiet machine."""
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


class RebuiltFolder(msgspec.Struct, frozen=True):
    """A folder, made twice: the digest of each file by its path, from each place."""

    files: dict[str, str]
    again: dict[str, str]

    @property
    def same(self) -> bool:
        """Tell whether both places gave the same files with the same bytes."""
        return bool(self.files) and self.files == self.again

    def against(self, published: Path) -> tuple[str, ...]:
        """Return the files that a published folder has otherwise, not at all, or in addition."""
        there = _digests(published)
        names = sorted(there.keys() | self.files.keys())
        return tuple(name for name in names if there.get(name) != self.files.get(name))


def rebuild_folder(
    commands: Sequence[Sequence[str]], inputs: Mapping[str, Path], out: Path, *, made: str
) -> RebuiltFolder:
    """Run commands in two clean places, each with its own copy of the inputs; keep one result.

    Args:
        commands: Programs with their words, run one after another in the place's folder.
        inputs: What is copied there: name in the place to file or folder.
        out: Where one result is kept; it must not exist.
        made: Name of the folder that the commands make there.

    Raises:
        ChangeError: a command failed, made nothing, or `out` is there.
    """
    if out.exists():
        raise ChangeError(f"{out} is there already")
    found: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="safehold-rebuild-") as room:
        for place in _PLACES:
            folder = Path(room) / place["folder"]
            folder.mkdir()
            for name, source in inputs.items():
                copy = shutil.copytree if source.is_dir() else shutil.copyfile
                copy(source, folder / name)
            for command in commands:
                _run(command, folder, place)
            if not (folder / made).is_dir():
                raise ChangeError(f"the commands made no folder {made}")
            found.append(_digests(folder / made))
            last = folder / made
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(last, out)
    return RebuiltFolder(files=found[0], again=found[1])


def _run(command: Sequence[str], folder: Path, place: dict[str, str]) -> None:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    env = kept | {name: place[name] for name in ("TZ", "LC_ALL", "PYTHONHASHSEED")}
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, env=env, cwd=folder,
            timeout=_LONGEST_S, umask=int(place["umask"], 8),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ChangeError(f"{command[0]} did not run: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ChangeError(f"{' '.join(command[-3:])}: {said[-1] if said else done.returncode}")


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(one.relative_to(folder)): sha256_hex(one.read_bytes())
        for one in sorted(folder.rglob("*"))
        if one.is_file() and "__pycache__" not in one.parts
    }


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
