"""Memory for plaintext weights: a sealed memfd that never reaches a disk and can be wiped.

The file has no name on any file system; other code of the same process (or a child that inherits
the handle) opens it as `/proc/self/fd/N` or maps it. It can't grow, shrink or be written through
new mappings once frozen; the one mapping kept here can still wipe it.
"""

import ctypes
import fcntl
import mmap
import os
import resource
from pathlib import Path
from types import TracebackType
from typing import Self

from safehold.secure.weights.interface import MemoryProtectionError
from safehold.secure.weights.opened import wipe
from safehold.secure.weights.storage import storage

# linux/memfd.h, linux/fcntl.h, linux/prctl.h
_MFD_CLOEXEC, _MFD_ALLOW_SEALING, _MFD_NOEXEC_SEAL = 0x1, 0x2, 0x8
_F_ADD_SEALS = 1033
_SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW, _SEAL_FUTURE_WRITE = 0x1, 0x2, 0x4, 0x10
_PR_SET_DUMPABLE = 4
_MADV_DONTDUMP = 16
_SWAPS = Path("/proc/swaps")


class SealedMemory:
    """Bytes of one shard in the clear, locked into memory."""

    def __init__(self, name: str, size: int, *, unsafe_swap: bool = False) -> None:
        """Take memory.

        Args:
            name: What `ls -l /proc/PID/fd` shows; no secret.
            size: In bytes.
            unsafe_swap: Go on where the memory could be swapped to a disk.

        Raises:
            MemoryProtectionError: the memory can't be locked, and this host has swap.
            StorageError: there is not enough memory.
        """
        self.size = size
        flags = _MFD_CLOEXEC | _MFD_ALLOW_SEALING | _MFD_NOEXEC_SEAL
        with storage("can't take memory for the weights"):
            self._handle = os.memfd_create(f"safehold:{name}"[:200], flags)
            # A mapping of no bytes is not possible; an empty shard has one spare byte.
            os.ftruncate(self._handle, size)
            self._map = mmap.mmap(-1, 1) if size == 0 else mmap.mmap(self._handle, size)
        if size:
            self._map.madvise(_MADV_DONTDUMP)
            if not _lock(self._map) and not unsafe_swap and has_swap():
                self.close()
                raise MemoryProtectionError(
                    "expected memory that can be locked (raise RLIMIT_MEMLOCK) or a host "
                    "without swap: plaintext could reach a disk"
                )
        self._view = memoryview(self._map)[:size]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def view(self) -> memoryview:
        """All bytes; borrowed, never kept beyond `close`."""
        return self._view

    @property
    def handle(self) -> int:
        """The file descriptor, for a child process that is to inherit it."""
        return self._handle

    @property
    def path(self) -> str:
        """Where this process opens it."""
        return f"/proc/self/fd/{self._handle}"

    def freeze(self) -> None:
        """Forbid growth, shrinking, and writing through any later mapping or write call."""
        seals = _SEAL_SEAL | _SEAL_SHRINK | _SEAL_GROW | _SEAL_FUTURE_WRITE
        fcntl.fcntl(self._handle, _F_ADD_SEALS, seals)

    def wipe(self) -> None:
        """Overwrite every byte with zeros, for everybody who has it mapped."""
        if self._handle >= 0:
            wipe(self._view)

    def close(self) -> None:
        """Wipe and let go."""
        if self._handle < 0:
            return
        if hasattr(self, "_view"):
            wipe(self._view)
            self._view.release()
        os.close(self._handle)
        self._handle = -1
        self._map.close()


def has_swap() -> bool:
    """Tell whether this host has a swap area (unreadable counts as yes)."""
    try:
        return len(_SWAPS.read_text().splitlines()) > 1
    except OSError:
        return True


def _lock(memory: mmap.mmap) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    first = ctypes.c_char.from_buffer(memory)
    address = ctypes.c_void_p(ctypes.addressof(first))
    done = libc.mlock(address, ctypes.c_size_t(len(memory))) == 0
    del first
    return bool(done)


def protect_process() -> None:
    """Keep this process's memory out of core dumps and away from debuggers of the same user.

    Raises:
        MemoryProtectionError: the kernel refused.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        raise MemoryProtectionError("can't turn core dumps off") from error
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise MemoryProtectionError("can't close this process to debuggers")
