"""The transparency log's values and seams: entries, checkpoints, proofs, tile sources."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import msgspec

from safehold.errors import TrustError

if TYPE_CHECKING:
    from safehold.trust.log.store import LogKeys


class LogError(TrustError):
    """Look at the log: it can't take or give what was asked."""


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


class Appender(Protocol):
    """What other parts append to: durable when the call returns."""

    def append(self, entries: Sequence[bytes]) -> range:
        """Append entries in order and return their indices, once they are on disk."""
        ...

    def publish(self) -> Checkpoint:
        """Integrate what was appended into the tree and sign a new checkpoint."""
        ...


class LogBook(Appender, Protocol):
    """A log that a desk writes: `LogStore` on disk, `safehold.testing`'s `MemoryLog` in memory."""

    keys: "LogKeys"

    @property
    def size(self) -> int:
        """The number of entries, published or not."""
        ...

    @property
    def source(self) -> LogSource:
        """What was published, as static files."""
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the log: nobody else appends."""
        ...

    def entries(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield every entry from `start` on, published or not."""
        ...

    def checkpoint(self) -> Checkpoint:
        """Return the newest tree head."""
        ...

    def prove(self, index: int) -> tuple[InclusionProof, bytes]:
        """Return the inclusion proof of a published entry, and the signed checkpoint's bytes."""
        ...
