"""The meter's rule, without a kernel: one read in, allowed or refused out."""

from enum import StrEnum

import msgspec


class Active(StrEnum):
    """By which kind of kernel event reads are metered."""

    PRE_ACCESS = "pre-access"
    """Each read is charged with the bytes it asks for; a mapping with the whole range."""
    OPEN = "open-permission"
    """Each open is charged with the whole file: coarser, for kernels before 6.14."""


class Read(msgspec.Struct, frozen=True):
    """One access to a sealed file that the kernel asks about; offset and count in bytes."""

    file: str
    pid: int
    offset: int
    count: int


class Tally(msgspec.Struct, frozen=True):
    """What was metered so far; `reason` says why everything is refused now, if it is."""

    budget: int
    charged: int = 0
    allowed: int = 0
    refused: int = 0
    reason: str = ""

    @property
    def left(self) -> int:
        """Bytes that may still be read."""
        return 0 if self.reason else max(0, self.budget - self.charged)


def judge(tally: Tally, read: Read) -> tuple[bool, Tally]:
    """Return whether the read may go on, and the tally after it.

    A refused read is not charged: what is left stays for smaller ones.
    """
    if read.count > tally.left:
        return False, msgspec.structs.replace(tally, refused=tally.refused + 1)
    return True, msgspec.structs.replace(
        tally, charged=tally.charged + read.count, allowed=tally.allowed + 1
    )


def closed(tally: Tally, reason: str) -> Tally:
    """Return the tally after which nothing may be read: the grant ended."""
    return msgspec.structs.replace(tally, reason=reason)
