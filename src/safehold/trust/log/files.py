"""Durable files: replaced, made once or appended to, each whole or not at all; tile sources."""

import contextlib
import errno
import fcntl
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


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What a file system without hard links answers."""


def write_new(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Make a file that is not there yet, whole or not at all; it survives a power cut.

    Of two who make it at once one does; a full disk or a kill leaves no half of a key.

    Raises:
        FileExistsError: It is there.
        OSError: The disk refused; there is no such file.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
            Path(temporary).replace(path)
        sync_directory(path.parent)
    finally:
        Path(temporary).unlink(missing_ok=True)


def append_whole(path: Path, lines: bytes, *, sync: bool = False) -> None:
    """Append lines, all of them or none; a last line that a crash tore is cut off first.

    Raises:
        OSError: The disk refused; the file ends with a whole line, as before.
    """
    with path.open("ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = _whole_size(file.fileno())
        if size != os.fstat(file.fileno()).st_size:
            os.ftruncate(file.fileno(), size)
        try:
            left = memoryview(lines)
            while left:
                left = left[file.write(left) :]
            if sync:
                os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), size)
            raise


def _whole_size(descriptor: int) -> int:
    """Return how long a file is up to the end of its last whole line."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    while size > 0:
        step = min(size, 1 << 16)
        at = os.pread(descriptor, step, size - step).rfind(b"\n")
        if at >= 0:
            return size - step + at + 1
        size -= step
    return 0


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
