"""What the kernel may ask, where, and the errors of asking."""

from enum import IntEnum, IntFlag

from safehold.errors import EndpointError


class FanotifyError(EndpointError):
    """Look at the kernel, the file system or the privileges: the kernel can't ask us."""


class Asked(IntFlag):
    """What a process is about to do (`linux/fanotify.h`)."""

    OPEN = 0x10000
    ACCESS = 0x20000
    EXEC = 0x40000
    PRE_ACCESS = 0x100000
    """One read, with offset and length (Linux 6.14; ext4, XFS, Btrfs)."""


class Scope(IntEnum):
    """How much one mark covers."""

    FILE = 0x0
    MOUNT = 0x10
    """One mount: a bind mount of the same file system, or an overlay on it, escapes (measured)."""
    FILESYSTEM = 0x100
    """Every mount of the file system, in every namespace."""


class GroupClass(IntEnum):
    """The class of a group."""

    CONTENT = 0x4
    PRE_CONTENT = 0x8
    """Needed for `Asked.PRE_ACCESS`; its refusals can carry an error number."""
