"""Durable files: replaced, made once, changed or appended to, each whole or not at all; tiles."""

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable
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

    What was there is not looked at: whoever adds to a file calls `change_whole`.

    Raises:
        LogError: the disk refused (full, read-only); the old file is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, data, mode)
    except OSError as error:
        raise LogError(f"can't write {path.name}: {error.strerror}") from error


def change_whole(
    path: Path, change: Callable[[bytes | None], bytes], *, mode: int | None = None
) -> bytes:
    """Read a file, make the next one of it, and put that in its place, for one caller at a time.

    `change` gets what is there (None: no file) and returns what shall be there; it may be called
    again when another process came first, so it has no effects. What it raises leaves the file as
    it was. The lock is on the file itself: nothing is left beside it, and whoever may read the file
    can wait for it. `mode` of None keeps the file's own, or the process's default for a new one.

    Raises:
        OSError: The disk refused, or there is no plain file; what was there is as it was.
    """
    while True:
        try:
            held = _opened(path)
        except FileNotFoundError:
            made = change(None)
            with contextlib.suppress(FileExistsError):
                _make(path, made, mode)
                return made
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            if not _still_there(held, path):
                continue  # Replaced while we waited: what we hold is what was before.
            found = os.fstat(held)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "expected a plain file", str(path))
            before = _content(held, found.st_size)
            after = change(before)
            if after != before:
                _replace(path, after, stat.S_IMODE(found.st_mode) if mode is None else mode)
            return after
        finally:
            os.close(held)


def _opened(path: Path) -> int:
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, flags | os.O_RDWR)  # A lock over NFS wants a file open for writing.
    except PermissionError:
        return os.open(path, flags | os.O_RDONLY)


def _still_there(held: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held), path.stat())
    except FileNotFoundError:
        return False


def _content(held: int, size: int) -> bytes:
    parts, at = [], 0
    while part := os.pread(held, max(1, size - at), at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _draft(path: Path, data: bytes, mode: int | None) -> Path:
    """Write a file that nobody else has the name of, beside the one it shall become."""
    draft = path.with_name(f".new-{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    handle = os.open(draft, flags, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except OSError:
        _forget(draft)
        raise
    return draft


def _forget(draft: Path) -> None:
    with contextlib.suppress(OSError):
        draft.unlink(missing_ok=True)


def _replace(path: Path, data: bytes, mode: int) -> None:
    draft = _draft(path, data, mode)
    try:
        draft.replace(path)
        sync_directory(path.parent)
    except OSError:
        _forget(draft)
        raise


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What a file system without hard links answers."""


def write_new(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Make a file that is not there yet, whole or not at all; it survives a power cut.

    Of two who make it at once one does; a full disk or a kill leaves no half of a key.

    Raises:
        FileExistsError: It is there.
        OSError: The disk refused; there is no such file.
    """
    _make(path, data, mode)


def _make(path: Path, data: bytes, mode: int | None) -> None:
    draft = _draft(path, data, mode)
    try:
        try:
            os.link(draft, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            draft.replace(path)
        sync_directory(path.parent)
    finally:
        _forget(draft)


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
