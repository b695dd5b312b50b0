"""fanotify permission events by ctypes: just enough to be asked about every read of some files.

`FAN_PRE_ACCESS` (Linux 6.14, file systems that allow it: ext4, XFS, Btrfs) reports offset and
length of each read before it happens; `FAN_OPEN_PERM` is older and reports only the open.
"""

import ctypes
import errno
import os
import select
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from safehold.errors import WeightsError
from safehold.secure.weights.meter.budget import Active, Read

# linux/fanotify.h
_CLASS_CONTENT, _CLASS_PRE_CONTENT = 0x4, 0x8
_CLOEXEC, _NONBLOCK, _UNLIMITED_QUEUE = 0x1, 0x2, 0x10
_MARK_ADD = 0x1
_OPEN_PERM, _ACCESS_PERM, _PRE_ACCESS, _Q_OVERFLOW = 0x10000, 0x20000, 0x100000, 0x4000
_ALLOW, _DENY = 0x1, 0x2
_INFO_RANGE = 6
_AT_FDCWD = -100
_O_LARGEFILE = 0o100000
_METADATA = struct.Struct("<IBBHQii")
_INFO = struct.Struct("<BBH")
_RANGE = struct.Struct("<4xQQ")
_RESPONSE = struct.Struct("<iI")
_BUFFER = 64 * 1024


class MeterError(WeightsError):
    """Look at the kernel, the file system or the privileges: reads can't be metered."""


class AccessEvent:
    """One question of the kernel; exactly one answer is owed."""

    def __init__(self, group: int, handle: int, read: Read) -> None:
        self.read = read
        self._group = group
        self._handle = handle

    def answer(self, *, allow: bool, detailed: bool) -> None:
        """Let the access go on or refuse it (`EDQUOT`, where the kernel can say so)."""
        response = _ALLOW
        if not allow:
            response = _DENY | (errno.EDQUOT << 24 if detailed else 0)
        try:
            os.write(self._group, _RESPONSE.pack(self._handle, response))
        except FileNotFoundError:
            pass  # whoever asked was killed meanwhile
        finally:
            os.close(self._handle)


class FanotifyGroup:
    """A fanotify group that is asked about the given files.

    When the last descriptor of the group closes, also by SIGKILL, the kernel allows everything:
    it fails open. That is why what it guards is ciphertext.
    """

    def __init__(self, files: Sequence[Path], active: Active) -> None:
        """Mark the files.

        Raises:
            MeterError: not root, no such kernel feature, or not on this file system.
        """
        if not files:
            raise MeterError("expected at least one file to meter, got none")
        self.active = active
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.fanotify_mark.argtypes = [
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint64,
            ctypes.c_int,
            ctypes.c_char_p,
        ]
        detailed = active is Active.PRE_ACCESS
        kind = _CLASS_PRE_CONTENT if detailed else _CLASS_CONTENT
        self._group = self._libc.fanotify_init(
            kind | _CLOEXEC | _NONBLOCK | _UNLIMITED_QUEUE,
            os.O_RDONLY | os.O_CLOEXEC | _O_LARGEFILE,
        )
        if self._group < 0:
            raise MeterError(f"fanotify: {_reason()}; metering needs CAP_SYS_ADMIN")
        self._names = {_identity(path.stat()): path.name for path in files}
        self._mask = _PRE_ACCESS if detailed else _OPEN_PERM
        for path in files:
            done = self._libc.fanotify_mark(
                self._group, _MARK_ADD, self._mask, _AT_FDCWD, os.fsencode(path)
            )
            if done < 0:
                reason = _reason()
                os.close(self._group)
                raise MeterError(f"fanotify: {active.value} on {path.name}: {reason}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._group)

    def events(self, timeout_s: float) -> Iterator[AccessEvent]:
        """Yield the questions that are waiting, after at most `timeout_s` seconds."""
        if not select.select([self._group], [], [], timeout_s)[0]:
            return
        try:
            data = os.read(self._group, _BUFFER)
        except BlockingIOError:
            return
        while data:
            length, _, _, head, mask, handle, pid = _METADATA.unpack_from(data)
            info, data = data[head:length], data[length:]
            if handle < 0 or mask & _Q_OVERFLOW:
                continue
            found = os.fstat(handle)
            offset, count = _range(info, found.st_size)
            name = self._names.get(_identity(found), "unknown")
            yield AccessEvent(self._group, handle, Read(name, pid, offset, count))


def _range(info: bytes, size: int) -> tuple[int, int]:
    """Return offset and length of an access; without a range it is of the whole file."""
    while len(info) >= _INFO.size:
        kind, _, length = _INFO.unpack_from(info)
        if kind == _INFO_RANGE:
            offset, count = _RANGE.unpack_from(info, _INFO.size)
            # A reader may ask for more than there is; only what is there can be read.
            return offset, max(0, min(count or size, size - offset))
        if length == 0:
            break
        info = info[length:]
    return 0, size


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _reason() -> str:
    return os.strerror(ctypes.get_errno())


def open_gate(files: Sequence[Path]) -> FanotifyGroup:
    """Return the finest gate that this kernel and file system have.

    Raises:
        MeterError: none at all.
    """
    try:
        return FanotifyGroup(files, Active.PRE_ACCESS)
    except MeterError:
        return FanotifyGroup(files, Active.OPEN)
