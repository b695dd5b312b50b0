"""What starts by itself on this host, how it is hardened, and which decoys lie on it."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from safehold.canonical import sha256_hex
from safehold.govern.controls.facts.documents import DecoyRow, Decoys, StartupBaseline
from safehold.govern.controls.facts.host import LocalHost
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.system import listeners
from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.interface import ControlError
from safehold.secure.endpoint import decoys as lures
from safehold.secure.endpoint.floor import FloorState, check
from safehold.secure.fanotify.mounts import Mount, parse_mountinfo

_KINDS = {
    lures.Lure.WEIGHTS: "weights",
    lures.Lure.KEY: "credential",
    lures.Lure.CREDENTIALS: "credential",
}
_HEAD = 65_536
CLOSED = "closed"
"""In place of a digest: the execution guard refuses to have it read. It was never declared."""
_ALL_RIGHTS = 0x1FF_FFFF_FFF


def baseline(site: Site, log: LogReading, now: int) -> StartupBaseline:
    """Export the digests of what starts by itself, beside the declared ones.

    Raises:
        ControlError: no baseline was ever declared (`safehold controls baseline`), or a file can't
            be read.
    """
    del log
    try:
        declared = msgspec.json.decode(Path(site.export.baseline).read_bytes(), type=dict[str, str])
    except OSError as error:
        raise ControlError(
            f"{site.export.baseline}: {error.strerror}; declare it: safehold controls baseline"
        ) from error
    except msgspec.DecodeError as error:
        raise ControlError(f"{site.export.baseline}: {error}") from error
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    return StartupBaseline(
        written=now,
        declared=declared,
        found=units(site.export.units),
        containers=_containers(),
        hardening={one.name: one.state is not FloorState.OPEN for one in check(mounts)},
    )


def units(places: Sequence[str]) -> dict[str, str]:
    """Return the digest of every file that starts something by itself.

    Raises:
        ControlError: one can't be read.
    """
    found = {}
    for place in places:
        path = Path(place)
        files = [path] if path.is_file() else sorted(one for one in path.rglob("*"))
        for one in files:
            try:
                if one.is_symlink():
                    found[str(one)] = sha256_hex(os.fsencode(one.readlink()))
                elif one.is_file():
                    found[str(one)] = sha256_hex(one.read_bytes())
            except PermissionError:
                found[str(one)] = CLOSED
            except OSError as error:
                raise ControlError(f"{one}: {error.strerror}") from error
    return found


def _containers() -> dict[str, tuple[str, ...]]:
    """Return what is wrong with each process namespace below this one."""
    own = _namespace("self", "pid")
    net = _namespace("self", "net")
    found: dict[str, set[str]] = {}
    for folder in Path("/proc").iterdir():
        space = _namespace(folder.name, "pid") if folder.name.isdigit() else ""
        if not space or space == own:
            continue
        faults = found.setdefault(space, set())
        if _rights(folder) & _ALL_RIGHTS == _ALL_RIGHTS:
            faults.add("privileged")
        if _namespace(folder.name, "net") == net:
            faults.add("shares the host's network")
    return {name: tuple(sorted(faults)) for name, faults in found.items()}


def _namespace(process: str, kind: str) -> str:
    try:
        return str(Path(f"/proc/{process}/ns/{kind}").readlink())
    except OSError:
        return ""


def _rights(folder: Path) -> int:
    try:
        lines = (folder / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(one.split()[1], 16) for one in lines if one.startswith("CapEff:")), 0)


def decoys(site: Site, log: LogReading, now: int) -> Decoys:
    """Export the decoys: each is watched only if the kernel holds a mark on it, or it listens.

    Raises:
        DecoyError: the book is malformed.
    """
    at = site.export
    book = lures.read_book(Path(at.decoy_book))
    marked = set(_marked())
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    found = [
        DecoyRow(
            Path(one.path).name,
            _KINDS[one.lure],
            one.path,
            _inode(Path(one.path), mounts) in marked,
        )
        for one in book
    ]
    found += [
        DecoyRow(name, "service", str(port), _listens(port))
        for name, port in at.decoy_services.items()
    ]
    # Nobody has a right by a decoy identity: its use is refused, and a refusal raises an alarm.
    found += [
        DecoyRow(one.name, "identity", one.id, not one.roles)
        for one in log.persons
        if at.decoy_team and at.decoy_team in one.teams
    ]
    return Decoys(
        written=now, decoys=tuple(found), separable=separable([Path(one.path) for one in book])
    )


def _marked() -> Iterator[tuple[int, int]]:
    """Yield inode and device of every fanotify mark on a file that some process of ours holds."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            for info in (folder / "fdinfo").iterdir():
                for line in info.read_text().splitlines():
                    if line.startswith("fanotify ino:"):
                        words = dict(one.split(":", 1) for one in line.split()[1:] if ":" in one)
                        yield int(words["ino"], 16), int(words["sdev"], 16)
        except OSError:
            continue  # it ended


def _inode(path: Path, mounts: Sequence[Mount]) -> tuple[int, int]:
    """Return a file's inode and device as the kernel writes them beside a mark.

    `stat` names another device on an overlay; the mount that the file lies on has the true one.
    """
    try:
        found = path.stat().st_ino
    except OSError:
        return (-1, -1)
    over = [one for one in mounts if path.is_relative_to(one.point)]
    if not over:
        return (-1, -1)
    major, minor = max(over, key=lambda one: len(one.point)).device.split(":")
    return found, int(major) << 20 | int(minor)


def _listens(port: int) -> bool:
    """Whether some socket listens there, as the kernel lists it: a visit would be an alarm."""
    return any(one.port == port for one in listeners(LocalHost()).sockets)


def separable(paths: Sequence[Path]) -> float:
    """Return how well size, entropy or time tell decoys from what lies beside them.

    It is the area under the curve of the best of them, in the worst folder that also holds real
    files: 0.5 tells nothing, 1 tells everything. A decoy among no real files hides nowhere.
    """
    lured = set(paths)
    worst = 0.0
    for folder in {one.parent for one in paths if one.parent.is_dir()}:
        mine = [_features(one) for one in sorted(lured) if one.parent == folder and one.exists()]
        beside = [
            _features(one) for one in sorted(folder.iterdir()) if one.is_file() and one not in lured
        ]
        if mine and beside:
            areas = [_area([one[n] for one in mine], [one[n] for one in beside]) for n in range(3)]
            worst = max(worst, *(max(one, 1 - one) for one in areas))
    return worst or 1.0


def _features(path: Path) -> tuple[float, float, float]:
    try:
        found = path.stat()
        with path.open("rb") as file:
            data = file.read(_HEAD)
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}") from error
    counts = Counter(data)
    entropy = -sum(n / len(data) * math.log2(n / len(data)) for n in counts.values())
    return float(found.st_size), round(entropy, 2), found.st_mtime


def _area(left: Sequence[float], right: Sequence[float]) -> float:
    wins = sum((a > b) + (a == b) / 2 for a in left for b in right)
    return wins / (len(left) * len(right))
