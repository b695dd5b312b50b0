"""How a waiting process opens a file, from the system call that it waits in."""

import os
import platform

_OPEN, _CREAT, _OPENAT = 2, 85, 257
_FLAGS_AT = {_OPEN: 1, _OPENAT: 2}
"""Which argument has the flags (x86-64)."""


def only_writes(pid: int) -> bool:
    """Tell whether a process that waits for our answer opens for writing and not for reading.

    What is open for writing only can't be read, and mapping needs a file that can be read. Dpkg
    opens each program so that it unpacked, to have it written to the disk.

    The call's arguments are in registers, which nobody changes while it waits. The kernel names a
    process, not a thread, so one with more threads, or with io_uring's, is not believed.
    """
    if platform.machine() != "x86_64":
        return False
    try:
        alone = len(os.listdir(f"/proc/{pid}/task")) == 1
        handle = os.open(f"/proc/{pid}/syscall", os.O_RDONLY | os.O_CLOEXEC)
        try:
            words = os.read(handle, 512).split()
        finally:
            os.close(handle)
        call = int(words[0])
        if not alone or call not in {_CREAT, *_FLAGS_AT}:
            return False
        return call == _CREAT or _writes(int(words[1 + _FLAGS_AT[call]], 16))
    except (OSError, ValueError, IndexError):
        return False  # gone, or running: not one that waits


def _writes(flags: int) -> bool:
    return flags & os.O_ACCMODE == os.O_WRONLY
