"""Processes that execute an interpreter and were not judged yet, in memory that workers share.

A worker that is killed between exec and first open leaves them to the next one.
"""

import mmap
import struct
import threading

_SLOT = struct.Struct("<i")
_SLOTS = 2048


class StartingSlots:
    """A set of process ids that outlives the worker which wrote them; at most 2,048."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, _SLOTS * _SLOT.size)
        self._lock = threading.Lock()
        self._at: dict[int, int] = {}
        self._free = list(range(_SLOTS))

    def adopt(self) -> tuple[int, ...]:
        """Return what earlier workers left, in a new worker; each is kept until it is removed."""
        self._lock = threading.Lock()
        self._at = {}
        self._free = []
        for slot in range(_SLOTS):
            (pid,) = _SLOT.unpack_from(self._shared, slot * _SLOT.size)
            if pid:
                self._at[pid] = slot
            else:
                self._free.append(slot)
        return tuple(self._at)

    def add(self, pid: int) -> None:
        """Keep a process, before its exec is answered."""
        with self._lock:
            if pid not in self._at and self._free:
                slot = self._free.pop()
                self._at[pid] = slot
                _SLOT.pack_into(self._shared, slot * _SLOT.size, pid)

    def remove(self, pid: int) -> None:
        """Let a process go: it was judged, or is gone."""
        with self._lock:
            slot = self._at.pop(pid, None)
            if slot is not None:
                _SLOT.pack_into(self._shared, slot * _SLOT.size, 0)
                self._free.append(slot)
