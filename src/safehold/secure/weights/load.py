"""Loading: whole shards into sealed memory, on as many cores as asked.

`cryptography` lets go of the interpreter's lock while it decrypts a chunk (since release 50), and
reading does too: threads add cores. Each has its own cipher object and buffer.
"""

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from safehold.errors import SafeholdError, WeightsError
from safehold.secure.weights.chunks import Layout
from safehold.secure.weights.header import covers
from safehold.secure.weights.interface import Header, ShardKeys
from safehold.secure.weights.memory import SealedMemory
from safehold.secure.weights.opened import Ready, ShardReader, open_sealed, wipe

Progress = Callable[[int], None]
PROGRESS_BYTES = 16 * 2**20


class LoadedShards:
    """Plaintext shards by name, each in its own sealed memory."""

    def __init__(self, header: Header, shards: dict[str, SealedMemory]) -> None:
        self.header = header
        self._shards = shards

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The shards that were loaded."""
        return tuple(self._shards)

    def memory(self, name: str) -> SealedMemory:
        """Return the memory of one shard.

        Raises:
            WeightsError: it was not loaded.
        """
        if name not in self._shards:
            raise WeightsError(f"expected a shard that was loaded, got {name[:80]!r}")
        return self._shards[name]

    def wipe(self) -> None:
        """Overwrite all plaintext, wherever it is mapped."""
        for memory in self._shards.values():
            memory.wipe()

    def close(self) -> None:
        """Wipe and let go of all memory."""
        for memory in self._shards.values():
            memory.close()
        self._shards.clear()


def load_shards(
    folder: Path,
    header: Header,
    keys: ShardKeys,
    parts: tuple[str, ...] = ("*",),
    *,
    threads: int = 1,
    unsafe_swap: bool = False,
    progress: Progress | None = None,
) -> LoadedShards:
    """Decrypt shards into sealed memory.

    Args:
        folder: The sealed model.
        header: Its verified header.
        keys: Keys of the parts.
        parts: Shard names, or `("*",)`.
        threads: How many threads decrypt a shard, each a range of its chunks.
        unsafe_swap: Go on where plaintext could be swapped to a disk.
        progress: Called with the number of bytes done since the last call.

    Raises:
        SealTamperError: a shard is not what was sealed; nothing in the clear is left.
        MemoryProtectionError: the memory could reach a disk.
    """
    names = covers(header, parts)
    with ExitStack() as stack:
        shards: dict[str, SealedMemory] = {}
        for name in names:
            shard = header.shard(name)
            memory = SealedMemory(name, shard.plain_bytes, unsafe_swap=unsafe_swap)
            shards[name] = stack.enter_context(memory)
            _decrypt(folder, header, keys, name, memory.view, threads, progress, memory.take)
            memory.freeze()
        stack.pop_all()
    return LoadedShards(header, shards)


def decrypt_chunks(
    reader: ShardReader,
    out: memoryview,
    first: int,
    end: int,
    progress: Progress | None = None,
    ready: Ready | None = None,
) -> None:
    """Decrypt chunks [first, end) to their places in memory of the whole shard's size.

    `progress` is called with the number of bytes done since the last call, `ready` before a chunk
    is written.
    """
    step = max(1, PROGRESS_BYTES // reader.layout.chunk_bytes)
    for start in range(first, end, step):
        begin, _ = reader.layout.plain(start)
        last, length = reader.layout.plain(min(start + step, end) - 1)
        reader.read_into(begin, out[begin : last + length], ready)
        if progress is not None:
            progress(last + length - begin)


def read_parallel(
    folder: Path, header: Header, keys: ShardKeys, name: str, out: memoryview, *, threads: int = 2
) -> None:
    """Decrypt a whole shard into the caller's own memory, on several threads.

    Raises:
        SealTamperError: a chunk is not what was sealed; `out` is wiped.
        WeightsError: `out` is not of the shard's size.
    """
    size = header.shard(name).plain_bytes
    if len(out) != size:
        raise WeightsError(f"{name}: expected {size} bytes of memory, got {len(out)}")
    try:
        _decrypt(folder, header, keys, name, out, threads)
    except WeightsError:
        wipe(out)
        raise


class _StoppedError(WeightsError):
    """Look at the error of another thread: this one stopped because of it."""


def _decrypt(
    folder: Path,
    header: Header,
    keys: ShardKeys,
    name: str,
    out: memoryview,
    threads: int,
    progress: Progress | None = None,
    ready: Ready | None = None,
) -> None:
    """Decrypt a shard on threads; the first error stops them all, and none runs on afterwards."""
    if threads < 1:
        raise WeightsError(f"expected at least one thread, got {threads}")
    shard = header.shard(name)
    stop, lock = threading.Event(), threading.Lock()

    def step(count: int) -> None:
        if stop.is_set():
            raise _StoppedError(f"{name}: stopped")
        if progress is not None:
            with lock:
                progress(count)

    with open_sealed(folder, name) as handle:
        layout = Layout(plain_bytes=shard.plain_bytes, chunk_bytes=header.chunk_bytes)
        jobs = [
            (ShardReader(header, shard, keys.key(name), handle), span)
            for span in spans(layout.count, threads)
        ]

        def work(reader: ShardReader, span: tuple[int, int]) -> None:
            try:
                decrypt_chunks(reader, out, *span, step, ready)
            except SafeholdError:
                stop.set()
                raise

        with ThreadPoolExecutor(threads, "safehold-decrypt") as pool:
            try:
                running = [pool.submit(work, reader, span) for reader, span in jobs]
                errors = [error for one in running if (error := one.exception()) is not None]
            finally:
                stop.set()
    for error in sorted(errors, key=lambda one: isinstance(one, _StoppedError)):
        raise error


def spans(count: int, parts: int) -> list[tuple[int, int]]:
    """Split `count` chunks into at most `parts` ranges [first, end), none empty."""
    parts = max(1, min(parts, count))
    edges = [count * number // parts for number in range(parts + 1)]
    return [(first, end) for first, end in itertools.pairwise(edges) if first < end]


def total_bytes(header: Header, names: Sequence[str]) -> int:
    """Return the plaintext size of some shards, in bytes."""
    return sum(header.shard(name).plain_bytes for name in names)
