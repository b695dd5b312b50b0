"""From the compiled rows to the program's keys: a file is hashed under a lease, then known."""

import fcntl
import json
import os
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from safehold.errors import EndpointError
from safehold.secure.endpoint.facts import digest
from safehold.secure.fanotify.interface import FanotifyError
from safehold.secure.fanotify.mounts import MountTable

_KEY = struct.Struct("<QQQIIQ")
_GET_VERSION = 0x80087601
_SECOND_NS = 10**9


class LsmRowError(EndpointError):
    """Compile the policy again: `safehold endpoint compile bpf-lsm DIR`."""


class LsmRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of `allow.jsonl`: what may run, and where it lies."""

    path: str
    sha256: str


def read_rows(file: Path) -> tuple[LsmRow, ...]:
    """Return the rows of a compiled file.

    Raises:
        LsmRowError: it is not there, or a line is no row.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = tuple(msgspec.json.decode(line, type=LsmRow) for line in lines)
    except OSError as error:
        raise LsmRowError(f"can't read {file.name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LsmRowError(f"can't read {file.name}: expected text in UTF-8") from error
    except msgspec.DecodeError as error:
        raise LsmRowError(f"{file.name}: {error}") from error
    if not rows:
        raise LsmRowError(f"{file.name}: expected at least one row: with none, nothing runs")
    return rows


def pack_key(found: os.stat_result, generation: int) -> bytes:
    """Return the program's key of a file; devices as the kernel numbers them inside."""
    device = (os.major(found.st_dev) << 20) | os.minor(found.st_dev)
    seconds, nanoseconds = divmod(found.st_ctime_ns, _SECOND_NS)
    return _KEY.pack(device, found.st_ino, seconds, nanoseconds, generation, found.st_size)


def plain_devices() -> frozenset[int]:
    """Return the devices that mounts here have: a Btrfs inode's or an overlay's are not among."""
    table = MountTable(os.getpid())
    try:
        numbers = [mount.device for mount in table.read() if mount.kind not in {"overlay", "btrfs"}]
    finally:
        table.close()
    pairs = [number.split(":") for number in numbers]
    return frozenset(os.makedev(int(major), int(minor)) for major, minor in pairs)


class FileKeys:
    """The keys of the rows' files as they are now; a file that changed is hashed again.

    Rows whose file is gone, changed, held open by a writer, or on a file system whose inodes say
    another device than its mount (overlay, Btrfs) have no key: the program refuses them.
    """

    def __init__(
        self,
        rows: Iterable[LsmRow],
        devices: Callable[[], frozenset[int]] = plain_devices,
    ) -> None:
        self._devices = devices
        self._digests: dict[str, set[str]] = {}
        for row in rows:
            self._digests.setdefault(row.path, set()).add(row.sha256)
        self._seen: dict[str, tuple[int, int, int, int]] = {}
        self._keys: dict[str, bytes] = {}
        self.refused: dict[str, str] = {}
        """Paths without a key, and why."""

    def refresh(self) -> tuple[list[bytes], list[bytes]]:
        """Look at every row's file; return the keys that are new, and those that are void."""
        devices = self._devices()
        fresh: list[bytes] = []
        void: list[bytes] = []
        for path, digests in self._digests.items():
            try:
                found = os.stat(path)
            except OSError:
                self._forget(path, "it is not there", void)
                continue
            seen = (found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size)
            if self._seen.get(path) == seen:
                continue
            self._forget(path, "", void)
            if found.st_dev not in devices:
                self.refused[path] = "its file system gives its inodes another device"
                continue
            key = self._judged(path, digests)
            if key is not None:
                self._seen[path] = seen
                self._keys[path] = key
                self.refused.pop(path, None)
                fresh.append(key)
        kept = set(self._keys.values())
        return fresh, [key for key in void if key not in kept]

    def _forget(self, path: str, reason: str, void: list[bytes]) -> None:
        self._seen.pop(path, None)
        key = self._keys.pop(path, None)
        if key is not None:
            void.append(key)
        if reason:
            self.refused[path] = reason

    def _judged(self, path: str, digests: set[str]) -> bytes | None:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self.refused[path] = error.strerror or "can't be opened"
            return None
        try:
            if digest(handle) not in digests:
                self.refused[path] = "its content is another one"
                return None
            return pack_key(os.fstat(handle), _generation(handle))
        except (OSError, FanotifyError) as error:
            self.refused[path] = str(error)
            return None
        finally:
            os.close(handle)


def _generation(handle: int) -> int:
    with suppress(OSError):
        answer = fcntl.ioctl(handle, _GET_VERSION, bytes(8))
        return int(struct.unpack("<I4x", answer)[0])
    return 0


def rows_text(rows: Iterable[tuple[str, str]]) -> str:
    """Return the text of `allow.jsonl` for pairs of path and digest."""
    lines = [json.dumps({"path": path, "sha256": sha256}) for path, sha256 in sorted(rows)]
    return "".join(line + "\n" for line in lines)
