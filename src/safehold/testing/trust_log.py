"""A transparency log without a disk, for tests that need thousands of logs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from safehold.trust.log.checkpoint import sign_checkpoint
from safehold.trust.log.interface import Checkpoint, InclusionProof
from safehold.trust.log.keys import LogKeys
from safehold.trust.log.merkle import hash_leaf, prove_inclusion
from safehold.trust.log.note import SigningKey
from safehold.trust.log.tiles import (
    WIDTH,
    Frontier,
    TileReader,
    bundle_path,
    check_entry,
    encode_bundle,
    tile_path,
)


class MemoryLog:
    """A `LogBook` in memory: same entries, same tree, no sync and no crash. One thread."""

    def __init__(self, key: SigningKey, keys: LogKeys, entries: Sequence[bytes] = ()) -> None:
        self.keys = keys
        self._key = key
        self._entries = list(entries)
        self._published = Frontier()

    @property
    def size(self) -> int:
        """The number of entries."""
        return len(self._entries)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold nothing: nobody else is there."""
        yield

    def entries(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield the entries from `start` on."""
        yield from enumerate(self._entries[start:], start)

    def append(self, entries: Sequence[bytes]) -> range:
        """Keep entries; return their indices."""
        for entry in entries:
            check_entry(entry)
        first = len(self._entries)
        self._entries.extend(entries)
        return range(first, len(self._entries))

    def publish(self) -> Checkpoint:
        """Take every entry into the tree."""
        for entry in self._entries[self._published.size :]:
            self._published.add(hash_leaf(entry))
        return self.checkpoint()

    def checkpoint(self) -> Checkpoint:
        """Return the tree head of what was published."""
        return Checkpoint(self.keys.origin, self._published.size, self._published.root())

    @property
    def source(self) -> "MemorySource":
        """What was published, as the static files that a reader would find."""
        frontier, files = Frontier(), {}
        published = self._entries[: self._published.size]
        for entry in published:
            for level, index, data in frontier.add(hash_leaf(entry)):
                files[tile_path(level, index)] = data
        for level, index, width, data in frontier.partials():
            files[tile_path(level, index, width)] = data
        for first in range(0, len(published), WIDTH):
            bundle = published[first : first + WIDTH]
            files[bundle_path(first // WIDTH, len(bundle))] = encode_bundle(bundle)
        files["checkpoint"] = str(sign_checkpoint(self.checkpoint(), self._key)).encode()
        return MemorySource(files)

    def prove(self, index: int) -> tuple[InclusionProof, bytes]:
        """Return the inclusion proof of a published entry, and the signed checkpoint's bytes."""
        source = self.source
        reader = TileReader(source, self.checkpoint())
        return prove_inclusion(index, reader.size, reader.node), source.files["checkpoint"]


class MemorySource:
    """A log's static files in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def read(self, path: str) -> bytes | None:
        """Return a file, or None."""
        return self.files.get(path)
