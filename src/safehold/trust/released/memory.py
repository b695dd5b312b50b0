"""What a verifier of releases has accepted: lost, it refuses to go on."""

from pathlib import Path

import msgspec

from safehold.trust.log.files import change_whole, write_new
from safehold.trust.release.interface import ReleaseError, Seen


def begin_memory(path: Path, *, origin: str, channel: str) -> None:
    """Make the memory of a verifier that has seen nothing: once, when it is set up.

    Raises:
        ReleaseError: there is one; a second beginning would forget what was accepted.
    """
    first = Seen(origin=origin, channel=channel, log_size=0, version=0, release_sha256="")
    try:
        write_new(path, msgspec.json.encode(first), mode=0o644)
    except FileExistsError as error:
        raise ReleaseError(
            f"{path.name}: there is a memory of releases already; it stays"
        ) from error
    except OSError as error:
        raise _unwritten(path) from error


def read_memory(path: Path) -> Seen:
    """Return what was accepted before.

    Raises:
        ReleaseError: it is lost or damaged; nothing may load then.
    """
    try:
        return _decoded(path.read_bytes(), path)
    except OSError as error:
        raise _lost(path) from error


def _decoded(data: bytes, path: Path) -> Seen:
    try:
        return msgspec.json.decode(data, type=Seen)
    except msgspec.DecodeError as error:
        raise ReleaseError(f"{path.name}: the memory of releases is damaged") from error


def write_memory(path: Path, seen: Seen) -> None:
    """Keep what was accepted, durably and atomically.

    What another process accepted meanwhile, of a later log, is not forgotten.

    Raises:
        ReleaseError: the disk refused, or the memory is lost.
    """

    def later(data: bytes | None) -> bytes:
        if data is None:
            raise _lost(path) if path.parent.is_dir() else _unwritten(path)
        there = _decoded(data, path)
        newest = there if (there.log_size, there.version) > (seen.log_size, seen.version) else seen
        return data if newest == there else msgspec.json.encode(newest)

    try:
        change_whole(path, later)
    except OSError as error:
        raise _unwritten(path) from error


def _lost(path: Path) -> ReleaseError:
    return ReleaseError(f"{path.name}: the memory of releases is lost; bring it back from a backup")


def _unwritten(path: Path) -> ReleaseError:
    return ReleaseError(f"{path.name}: the memory of releases can't be written")
