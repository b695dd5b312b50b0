"""Memory for plaintext weights: a sealed memfd that never reaches a disk and can be wiped.

The file has no name on any file system; other code of the same process (or a child that inherits
the handle) opens it as `/proc/self/fd/N` or maps it. It can't grow, shrink or be written through
new mappings once frozen; the one mapping kept here can still wipe it.

Pages come, zeroed and locked, when `take` asks for them just before they are written: zeroing
a whole shard first would push it out of the cache and cost a third of the speed. Where the host
allows it (`shmem_enabled` of transparent huge pages is `advise`), they are pages of 2 MiB.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from safehold.secure.weights.interface import MemoryProtectionError, StorageError
from safehold.secure.weights.opened import wipe
from safehold.secure.weights.storage import storage

# linux/memfd.h, linux/fcntl.h, linux/prctl.h
_MFD_CLOEXEC, _MFD_ALLOW_SEALING, _MFD_NOEXEC_SEAL = 0x1, 0x2, 0x8
_F_ADD_SEALS = 1033
_SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW, _SEAL_FUTURE_WRITE = 0x1, 0x2, 0x4, 0x10
_PR_SET_DUMPABLE = 4
# linux/mman.h
_MADV_REMOVE, _MADV_HUGEPAGE, _MADV_DONTDUMP, _MADV_POPULATE_WRITE = 9, 14, 16, 23
_MLOCK_ONFAULT = 1
_SWAPS = Path("/proc/swaps")


class SealedMemory:
    """Bytes of one shard in the clear, locked into memory."""

    def __init__(self, name: str, size: int, *, unsafe_swap: bool = False) -> None:
        """Make room; the memory itself comes with `take`, or when it is first written.

        Args:
            name: What `ls -l /proc/PID/fd` shows; no secret.
            size: In bytes.
            unsafe_swap: Go on where the memory could be swapped to a disk.

        Raises:
            MemoryProtectionError: the memory can't be locked, and this host has swap.
            StorageError: there is not enough address space.
        """
        self.size = size
        # Through ctypes, a call lets other threads run: those of `mmap` do not.
        self._libc = ctypes.CDLL(None, use_errno=True)
        flags = _MFD_CLOEXEC | _MFD_ALLOW_SEALING | _MFD_NOEXEC_SEAL
        with storage("can't take memory for the weights"):
            self._handle = os.memfd_create(f"safehold:{name}"[:200], flags)
        try:
            with storage("can't take memory for the weights"):
                os.ftruncate(self._handle, size)
                # A mapping of no bytes is not possible; an empty shard has one spare byte.
                self._map = mmap.mmap(-1, 1) if size == 0 else mmap.mmap(self._handle, size)
        except StorageError:
            os.close(self._handle)
            raise
        self._view = memoryview(self._map)[:size]
        self._address = _address(self._map)
        self._advise(_MADV_DONTDUMP)
        self._advise(_MADV_HUGEPAGE)  # a kernel without huge pages refuses: pages are small then
        self._populates = size > 0
        self.locked = self._call("mlock2", self._address, size, _MLOCK_ONFAULT) == 0
        if not self.locked and not unsafe_swap and has_swap():
            self.close()
            raise MemoryProtectionError(
                "expected memory that can be locked (raise RLIMIT_MEMLOCK) or a host "
                "without swap: plaintext could reach a disk"
            )

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

    def take(self, begin: int, length: int) -> None:
        """Have the pages under a range come now, in one call instead of one fault each.

        Raises:
            StorageError: there is not enough memory.
        """
        if not self._populates:
            return
        aligned = begin - begin % mmap.PAGESIZE
        refused = self._advise(_MADV_POPULATE_WRITE, aligned, begin + length - aligned)
        if refused == errno.EINVAL:
            self._populates = False  # before Linux 5.14 they come at the first write
        elif refused:
            raise StorageError(f"can't take memory for the weights: {os.strerror(refused)}")

    def freeze(self) -> None:
        """Forbid growth, shrinking, and writing through any later mapping or write call."""
        seals = _SEAL_SEAL | _SEAL_SHRINK | _SEAL_GROW | _SEAL_FUTURE_WRITE
        fcntl.fcntl(self._handle, _F_ADD_SEALS, seals)

    def wipe(self) -> None:
        """Overwrite all that was ever written with zeros, for everybody who has it mapped."""
        if self._handle >= 0:
            for begin, end in _written(self._handle, self.size):
                wipe(self._view[begin:end])

    def close(self) -> None:
        """Wipe and let go."""
        if self._handle < 0:
            return
        self.wipe()
        self._view.release()
        try:
            self._map.close()
        except BufferError:
            # Somebody holds a slice (an error's traceback does): the mapping stays until it goes,
            # its pages do not. If the memory is frozen they stay too, wiped.
            self._call("munlock", self._address, self.size)
            self._advise(_MADV_REMOVE)
        os.close(self._handle)
        self._handle = -1

    def _advise(self, advice: int, begin: int = 0, length: int | None = None) -> int:
        """Advise the kernel about a range, by default all; return its errno, or 0."""
        size = self.size if length is None else length
        return self._call("madvise", self._address + begin, size, advice) if size else 0

    def _call(self, name: str, address: int, size: int, *flag: int) -> int:
        done = getattr(self._libc, name)(
            ctypes.c_void_p(address), ctypes.c_size_t(size), *map(ctypes.c_int, flag)
        )
        return ctypes.get_errno() if done else 0


def _address(memory: mmap.mmap) -> int:
    first = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(first)
    del first  # it would keep the mapping from being closed
    return address


def _written(handle: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges [begin, end) of a memfd that have pages: the kernel's word, not ours."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(handle, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        end = os.lseek(handle, begin, os.SEEK_HOLE)
        yield begin, end


def has_swap() -> bool:
    """Tell whether this host has a swap area (unreadable counts as yes)."""
    try:
        return len(_SWAPS.read_text().splitlines()) > 1
    except OSError:
        return True


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
