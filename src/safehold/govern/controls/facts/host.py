"""The one seam to a host: files, directories, commands and the log, each within limits."""

import os
import stat
import subprocess
import time
from io import RawIOBase
from pathlib import Path
from typing import Protocol

import msgspec

from safehold.govern.controls.facts.trust_log import LogReading, read_log
from safehold.govern.controls.interface import AbsentError, ClosedError, HostError

MAX_BYTES = 8 * 2**20
_PART = 2**16
TIMEOUT_S = 20.0


class FileFacts(msgspec.Struct, frozen=True):
    """What a file's metadata says; `mtime` in POSIX seconds."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime: float

    @property
    def directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)


class ControlledHost(Protocol):
    """What readers may ask of a host; every method raises HostError when it can't answer."""

    @property
    def now(self) -> int:
        """The time, in POSIX seconds."""
        ...

    @property
    def name(self) -> str:
        """What the host calls itself."""
        ...

    @property
    def pid(self) -> int:
        """The process that looks."""
        ...

    def read(self, path: str) -> bytes:
        """Return a file's bytes; AbsentError when there is none."""
        ...

    def head(self, path: str, size: int) -> bytes:
        """Return the first bytes of a file of any size."""
        ...

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names in a directory, sorted."""
        ...

    def stat(self, path: str) -> FileFacts:
        """Return a file's metadata; links are not followed."""
        ...

    def link(self, path: str) -> str:
        """Return where a symbolic link points."""
        ...

    def run(self, *argv: str) -> str:
        """Return what a command prints; any status but 0 is a fault."""
        ...

    def log(self, folder: str, keys: str) -> LogReading:
        """Return what a transparency log says, verified against pinned keys."""
        ...


class LocalHost:
    """This machine."""

    @property
    def now(self) -> int:
        """The wall clock."""
        return int(time.time())

    @property
    def name(self) -> str:
        """The kernel's name of the machine."""
        return os.uname().nodename

    @property
    def pid(self) -> int:
        """This process."""
        return os.getpid()

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        return self.head(path, MAX_BYTES)

    def head(self, path: str, size: int) -> bytes:
        """Return the first bytes of a file."""
        try:
            with Path(path).open("rb", buffering=0) as file:
                return _parts(file, size)
        except OSError as error:
            raise _fault(path, error) from error

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names in a directory."""
        try:
            return tuple(sorted(one.name for one in Path(path).iterdir()))
        except OSError as error:
            raise _fault(path, error) from error

    def stat(self, path: str) -> FileFacts:
        """Return a file's metadata."""
        try:
            found = os.lstat(path)
        except OSError as error:
            raise _fault(path, error) from error
        return FileFacts(found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime)

    def link(self, path: str) -> str:
        """Return where a symbolic link points."""
        try:
            return str(Path(path).readlink())
        except OSError as error:
            raise _fault(path, error) from error

    def run(self, *argv: str) -> str:
        """Run a command with a cap on time and output."""
        try:
            done = subprocess.run(argv, capture_output=True, timeout=TIMEOUT_S, check=False)
        except FileNotFoundError as error:
            raise AbsentError(f"{argv[0]} is not installed") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HostError(f"{argv[0]} did not answer within {TIMEOUT_S:g} s") from error
        if done.returncode:
            how = (
                f"was killed by signal {-done.returncode}"
                if done.returncode < 0
                else (f"ended with status {done.returncode}")
            )
            raise HostError(f"{argv[0]} {how}")
        if len(done.stdout) > MAX_BYTES:
            raise HostError(f"{argv[0]} printed more than {MAX_BYTES} bytes")
        return done.stdout.decode("utf-8", "replace")

    def log(self, folder: str, keys: str) -> LogReading:
        """Read and verify a transparency log."""
        return read_log(Path(folder), Path(keys))


def _parts(file: RawIOBase, size: int) -> bytes:
    """Read in parts: /proc/sys has no memory for a read of some megabytes."""
    found = bytearray()
    while len(found) < size and (part := file.read(min(_PART, size - len(found)))):
        found += part
    return bytes(found)


def _fault(path: str, error: OSError) -> HostError:
    if isinstance(error, FileNotFoundError | NotADirectoryError | ProcessLookupError):
        return AbsentError(f"{path} is not there")
    if isinstance(error, PermissionError):
        return ClosedError(f"{path}: {error.strerror}")
    return HostError(f"{path}: {error.strerror}")
