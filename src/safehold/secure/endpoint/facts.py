"""What a file is, seen from an open descriptor alone: kind, digest, place, who can change it."""

import hashlib
import os
import stat
import struct

from safehold.secure.endpoint.interface import CodeKind
from safehold.secure.fanotify.group import read_lease

_TYPE_AT = 16
"""Where ELF says what a file is (e_type, in either byte order)."""

_ELF = b"\x7fELF"
_RELOCATABLE = 1
_HEAD = 64
_CLASS_AT, _ORDER_AT, _WIDE = 4, 5, 2
_INTERPRETER = 3
"""The type of the program header that names a loader (PT_INTERP)."""
_BLOCK = 1 << 20

Key = tuple[int, int, int, int]
"""Device, inode, change time in ns, size: a verdict about content holds as long as they do."""


def key_of(found: os.stat_result) -> Key:
    """Return the key of a file. The change time is what `touch` can't put back."""
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size


def content_kind(handle: int, *, executed: bool) -> CodeKind | None:
    """Return the kind of what is opened or executed; None: a plain file that is only opened."""
    head = os.pread(handle, 18, 0)
    if head.startswith(_ELF):
        if executed:
            return CodeKind.ELF
        relocatable = len(head) > _TYPE_AT and _RELOCATABLE in (head[_TYPE_AT], head[-1])
        return CodeKind.MODULE if relocatable else CodeKind.LIBRARY
    # What has no magic is run by a shell, or by what binfmt_misc says.
    return CodeKind.SCRIPT if executed else None


def names_loader(handle: int) -> bool:
    """Tell whether an ELF file has the kernel load another one to run it (PT_INTERP)."""
    head = os.pread(handle, _HEAD, 0)
    if not head.startswith(_ELF) or len(head) < _HEAD:
        return False
    order = "<" if head[_ORDER_AT] == 1 else ">"
    wide = head[_CLASS_AT] == _WIDE
    (start,) = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)
    size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    rows = os.pread(handle, size * count, start)
    places = range(0, len(rows) - 3, size) if size else range(0)
    return any(struct.unpack_from(order + "I", rows, at)[0] == _INTERPRETER for at in places)


def digest(handle: int) -> str:
    """Return the SHA-256 of an open file, held by a lease: nobody can change it meanwhile.

    Raises:
        WriterError: somebody has it open for writing.
        FanotifyError: the file system gives no leases.
    """
    hasher = hashlib.sha256()
    with read_lease(handle):
        offset = 0
        while block := os.pread(handle, _BLOCK, offset):
            hasher.update(block)
            offset += len(block)
    return hasher.hexdigest()


def vouched_path(handle: int, found: os.stat_result) -> str:
    """Return the file's path if it leads to this very file here; else an empty one.

    The kernel's name for a file in another mount namespace may be that of a file of ours.
    """
    path = os.readlink(f"/proc/self/fd/{handle}")
    return path if _leads_to(path, found) else ""


def _leads_to(path: str, found: os.stat_result) -> bool:
    try:
        here = os.lstat(path)
    except (OSError, ValueError):
        return False
    return (here.st_dev, here.st_ino) == (found.st_dev, found.st_ino)


def is_owned(path: str) -> bool:
    """Tell whether root alone can change the file and every folder above it."""
    if not path:
        return False
    while True:
        try:
            found = os.lstat(path)
        except OSError:
            return False
        if found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)
