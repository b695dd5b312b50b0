"""Records that a run goes on from: lines kept as they come, by one process at a time.

A second run on the same record is told so and writes nothing. The lock is flock(2)'s, so it ends
with its process, however that ends. The last line of a killed run may lack its end; whoever goes on
drops it, no sooner than with its own first line.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from safehold.errors import BusyError, DataError


def claim(handle: int, what: str) -> None:
    """Hold an open file or folder for this process alone, until it is closed or the process ends.

    Raises:
        BusyError: Another process holds it.
        DataError: It stands where nothing can be locked.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(f"{what} by another process: wait for its end") from error
    except OSError as error:
        raise DataError(f"{what}: can't be locked here ({error.strerror})") from error


@contextmanager
def alone_in(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder, made where it is missing, for this process alone.

    Raises:
        BusyError: Another process holds it.
        DataError: It can't be made or locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(f"{folder}: can't be used as a folder ({error.strerror})") from error
    try:
        claim(handle, what)
        yield
    finally:
        os.close(handle)


class RecordFile:
    """A record of JSON lines that this process alone writes; use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open and lock a record; it is made where it is missing, for its owner alone.

        Raises:
            BusyError: Another process writes it.
            DataError: It can't be opened or locked, or holds something else than JSON lines.
        """
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, flags, 0o600)
        except OSError as error:
            raise DataError(f"{path}: can't be read or written ({error.strerror})") from error
        with ExitStack() as refused:
            refused.callback(self.close)
            if not stat.S_ISREG(os.fstat(self._handle).st_mode):
                raise DataError(f"{path}: expected a file to keep lines in")
            claim(self._handle, f"{path} is being written")
            whole, _, self._torn = path.read_bytes().rpartition(b"\n")
            self.lines: list[bytes] = whole.split(b"\n") if whole else []
            """The lines of earlier runs, without their ends."""
            if self._torn and not self._torn.startswith(b"{"):
                raise DataError(f"{path}: expected JSON lines; choose another file")
            refused.pop_all()

    def __enter__(self) -> Self:
        """Return the record, which is open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the record free."""
        self.close()

    def append(self, line: bytes) -> None:
        """Keep a line; it is with the operating system when this returns.

        Raises:
            OSError: It can't be written, with the file's name; the next line takes its place.
        """
        if self._torn:
            os.ftruncate(self._handle, os.fstat(self._handle).st_size - len(self._torn))
            self._torn = b""
        rest = line + b"\n"
        try:
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError as error:
            self._torn = line[: len(line) + 1 - len(rest)]
            raise self._named(error) from error

    def sync(self) -> None:
        """Wait until the disk has every line.

        Raises:
            OSError: It has not, with the file's name.
        """
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise self._named(error) from error

    def _named(self, error: OSError) -> OSError:
        """Return an error that names the file, which a handle does not."""
        return OSError(error.errno, error.strerror, str(self._path))

    def close(self) -> None:
        """Give the record free; a second call does nothing."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)
