"""Whether this kernel asks at an overlay's layers; found out by trying.

Linux asks there since 6.5. Before, an overlay hides its layers' files from fanotify: Debian 12's
6.1 does. Distributors carry changes back, so the kernel's version says too little.
"""

import ctypes
import os
from functools import cache
from pathlib import Path

_NEW_NAMESPACE = 0x20000
_PRIVATE_ALL = 0x40000 | 0x4000
_NOTIFY_NONBLOCK_CLOEXEC = 0x3
_OPENED = 0x20
_ADD_FILESYSTEM = 0x101
_AT_FDCWD = -100
_ASKED, _UNASKED, _UNKNOWN = 10, 11, 12


@cache
def layers_are_asked() -> bool:
    """Tell whether opening a file of an overlay is seen at its layer.

    Tried once, by a child in a mount namespace of its own. Must be called before this process
    answers questions. What can't be tried counts as not seen: the overlay is then marked itself.
    """
    child = os.fork()
    if child == 0:
        found = _UNKNOWN
        try:
            found = _tried()
        finally:
            os._exit(found)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == _ASKED


def _tried() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fanotify_mark.argtypes = [
        ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p,
    ]  # fmt: skip
    libc.mount.argtypes = [
        ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p,
    ]  # fmt: skip
    base = "/tmp"  # covered by a tmpfs that only this process sees
    if libc.unshare(_NEW_NAMESPACE) or libc.mount(None, b"/", None, _PRIVATE_ALL, None):
        return _UNKNOWN
    if libc.mount(b"probe", base.encode(), b"tmpfs", 0, None):
        return _UNKNOWN
    for name in ("low", "up", "work", "over"):
        Path(base, name).mkdir()
    Path(base, "low/file").write_bytes(b"")
    data = f"lowerdir={base}/low,upperdir={base}/up,workdir={base}/work"
    if libc.mount(b"probe", f"{base}/over".encode(), b"overlay", 0, data.encode()):
        return _UNKNOWN
    group = libc.fanotify_init(_NOTIFY_NONBLOCK_CLOEXEC, os.O_RDONLY)
    layer = f"{base}/low".encode()
    if group < 0 or libc.fanotify_mark(group, _ADD_FILESYSTEM, _OPENED, _AT_FDCWD, layer):
        return _UNKNOWN
    Path(base, "over/file").read_bytes()
    try:
        return _ASKED if os.read(group, 4096) else _UNASKED
    except BlockingIOError:
        return _UNASKED
