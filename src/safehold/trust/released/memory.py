"""What a verifier of releases has accepted: lost, it refuses to go on."""

import os
from pathlib import Path

import msgspec

from safehold.trust.release.interface import ReleaseError, Seen


def begin_memory(path: Path, *, origin: str, channel: str) -> None:
    """Make the memory of a verifier that has seen nothing: once, when it is set up.

    Raises:
        ReleaseError: there is one; a second beginning would forget what was accepted.
    """
    if path.exists():
        raise ReleaseError(f"{path.name}: there is a memory of releases already; it stays")
    write_memory(
        path, Seen(origin=origin, channel=channel, log_size=0, version=0, release_sha256="")
    )


def read_memory(path: Path) -> Seen:
    """Return what was accepted before.

    Raises:
        ReleaseError: it is lost or damaged; nothing may load then.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Seen)
    except OSError as error:
        raise ReleaseError(
            f"{path.name}: the memory of releases is lost; bring it back from a backup"
        ) from error
    except msgspec.DecodeError as error:
        raise ReleaseError(f"{path.name}: the memory of releases is damaged") from error


def write_memory(path: Path, seen: Seen) -> None:
    """Keep what was accepted, durably and atomically.

    Raises:
        ReleaseError: the disk refused.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(seen))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ReleaseError(f"{path.name}: the memory of releases can't be written") from error
