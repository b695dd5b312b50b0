"""How a waiting process opens a file, from the system call that it waits in."""

import enum
import os
import platform
import time

_OPEN, _CREAT, _OPENAT = 2, 85, 257
_FLAGS_AT = {_OPEN: 1, _OPENAT: 2}
"""Which argument has the flags (x86-64)."""
_PATIENCE_S = 2.0
_FIRST_S, _LONGEST_S = 0.0005, 0.02
_RUNNING = b"running"


class Opening(enum.StrEnum):
    """What is known of the call by which a process opens a file."""

    WRITES = "it opens for writing only"
    READS = "it opens for more than writing"
    CROWD = "it has more threads than one"
    UNSEEN = "its call was not seen"


def only_writes(pid: int) -> bool:
    """Tell whether a process that waits for our answer opens for writing and not for reading."""
    return opening(pid) is Opening.WRITES


def opening(pid: int, patience_s: float = _PATIENCE_S) -> Opening:
    """Say how a process that waits for our answer opens its file.

    What is open for writing only can't be read, and mapping needs a file that can be read. Dpkg
    opens each program so that it unpacked, to have it written to the disk.

    The call's arguments are in registers, which nobody changes while it waits. The kernel names a
    process, not a thread, so one with more threads, or with io_uring's, is not believed.

    The question is there before who asks sleeps, and each answer to others wakes it for a moment.
    Until it sleeps (again) its call can't be seen: at most `patience_s` seconds are waited for
    that. On one processor this is the rule: we are woken, and it stands still.
    """
    if platform.machine() != "x86_64":
        return Opening.UNSEEN
    until = time.monotonic() + patience_s
    pause = _FIRST_S
    try:
        while (words := _call(pid)) == [_RUNNING]:
            if time.monotonic() > until:
                return Opening.UNSEEN
            time.sleep(pause)
            pause = min(_LONGEST_S, 2 * pause)
        # After the call was seen: a thread that is made later did not ask.
        if len(os.listdir(f"/proc/{pid}/task")) != 1:
            return Opening.CROWD
        return _way(words)
    except (OSError, ValueError, IndexError):
        return Opening.UNSEEN  # gone: nobody waits


def _call(pid: int) -> list[bytes]:
    handle = os.open(f"/proc/{pid}/syscall", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, 512).split()
    finally:
        os.close(handle)


def _way(words: list[bytes]) -> Opening:
    call = int(words[0])
    if call not in {_CREAT, *_FLAGS_AT}:
        return Opening.READS
    writes = call == _CREAT or _writes(int(words[1 + _FLAGS_AT[call]], 16))
    return Opening.WRITES if writes else Opening.READS


def _writes(flags: int) -> bool:
    return flags & os.O_ACCMODE == os.O_WRONLY
