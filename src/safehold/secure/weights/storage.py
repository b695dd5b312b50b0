"""Durable files for ciphertext and headers; every refusal of the disk is one clear error."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safehold.secure.weights.interface import StorageError


@contextmanager
def storage(what: str) -> Iterator[None]:
    """Turn the operating system's refusals into a `StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what}: {error.strerror or error}") from error


def write_all(handle: int, data: memoryview) -> None:
    """Write every byte at the handle's position."""
    while data:
        data = data[os.write(handle, data) :]


def read_exactly(handle: int, buffer: memoryview, offset: int) -> int:
    """Fill the buffer from an offset; return how many bytes there were before the file's end."""
    done = 0
    while done < len(buffer):
        got = os.preadv(handle, [buffer[done:]], offset + done)
        if got == 0:
            break
        done += got
    return done


def sync_folder(path: Path) -> None:
    """Make a directory's own entries durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file atomically and durably.

    Raises:
        StorageError: the disk refused; the old file is as it was.
    """
    new = path.with_name(f".new-{path.name}")
    try:
        with storage(f"can't write {path.name}"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            handle = os.open(new, flags, mode)
            try:
                os.fchmod(handle, mode)
                write_all(handle, memoryview(data))
                os.fsync(handle)
            finally:
                os.close(handle)
            new.replace(path)
            sync_folder(path.parent)
    except StorageError:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone.

    Raises:
        StorageError: another process holds it.
    """
    with storage(f"can't lock {folder.name}"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StorageError(f"{folder.name}: another process works on it") from error
        yield
    finally:
        os.close(handle)
