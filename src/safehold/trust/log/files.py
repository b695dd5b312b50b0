"""Durable files: written whole, synced, renamed into place; and a directory as a tile source."""

import contextlib
import os
import tempfile
from pathlib import Path

from safehold.trust.log.interface import LogError


def sync_directory(path: Path) -> None:
    """Make the directory's own entries durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file atomically; after the call the new content survives a power cut.

    Raises:
        LogError: the disk refused (full, read-only); the old file is as it was.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        sync_directory(path.parent)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)
        raise LogError(f"can't write {path.name}: {error.strerror}") from error


class DirectorySource:
    """A log's static files in a directory: the log's own, or somebody's copy of it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes | None:
        """Return the file's bytes, or None if there is no such file.

        Raises:
            LogError: the file is there but can't be read.
        """
        try:
            return (self._root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise LogError(f"can't read {path}: {error.strerror}") from error
