"""The transparency log's values and seams: entries, checkpoints, proofs, tile sources."""

from typing import Protocol

import msgspec

from safehold.errors import TrustError


class LogError(TrustError):
    """Look at the log: it can't take or give what was asked."""


class UnpublishedError(LogError):
    """Make room; the entry is stored, and the next command publishes it. Do not repeat this one."""


class LogTamperError(LogError):
    """The log's bytes contradict its signed checkpoint: find out who changed them."""


class Checkpoint(msgspec.Struct, frozen=True):
    """A tree head (C2SP tlog-checkpoint): origin, number of leaves, root hash (32 bytes)."""

    origin: str
    size: int
    root: bytes


class InclusionProof(msgspec.Struct, frozen=True):
    """That the leaf of `index` is in the tree of `size` leaves (RFC 9162 §2.1.3)."""

    index: int
    size: int
    hashes: tuple[bytes, ...]


class ConsistencyProof(msgspec.Struct, frozen=True):
    """That the tree of `old` leaves is a prefix of the tree of `new` leaves (RFC 9162 §2.1.4)."""

    old: int
    new: int
    hashes: tuple[bytes, ...]


class LogSource(Protocol):
    """Where a reader finds a log's static files, by C2SP path."""

    def read(self, path: str) -> bytes | None:
        """Return the file's bytes, or None if there is no such file."""
        ...
