"""The seams through which others write a log: append, publish, hold."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from safehold.trust.log.interface import Checkpoint, InclusionProof, LogSource
from safehold.trust.log.keys import LogKeys


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

    keys: LogKeys

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
