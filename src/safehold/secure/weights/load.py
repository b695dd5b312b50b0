"""Loading: whole shards into sealed memory, on as many cores as asked.

The AES-GCM of `cryptography` holds the interpreter's lock, so threads do not add cores: processes
do. A worker inherits the sealed file and the memory by handle, gets its shard key by pipe, and
decrypts a range of chunks straight into the shared memory.
"""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from safehold.errors import WeightsError
from safehold.secure.weights.chunks import Layout
from safehold.secure.weights.header import covers
from safehold.secure.weights.interface import Header, SealTamperError, Shard, ShardKeys
from safehold.secure.weights.memory import SealedMemory
from safehold.secure.weights.opened import Ready, ShardReader, open_sealed, wipe

Progress = Callable[[int], None]
PROGRESS_BYTES = 16 * 2**20
# Below this, starting a worker costs more than it saves.
WORKER_BYTES = 128 * 2**20
JOB_SIZE_BYTES = 4


class Job(msgspec.Struct, frozen=True):
    """What one worker decrypts: chunks [first, end) of a shard, between two inherited handles."""

    header: Header
    shard: Shard
    key: bytes
    sealed_handle: int
    memory_handle: int
    first: int
    end: int


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
    workers: int = 1,
    unsafe_swap: bool = False,
    progress: Progress | None = None,
) -> LoadedShards:
    """Decrypt shards into sealed memory.

    Args:
        folder: The sealed model.
        header: Its verified header.
        keys: Keys of the parts.
        parts: Shard names, or `("*",)`.
        workers: How many processes decrypt a large shard; 1: this one.
        unsafe_swap: Go on where plaintext could be swapped to a disk.
        progress: Called with the number of bytes done since the last call.

    Raises:
        SealTamperError: a shard is not what was sealed; nothing in the clear is left.
        MemoryProtectionError: the memory could reach a disk.
    """
    names = covers(header, parts)
    if workers < 1:
        raise WeightsError(f"expected at least one worker, got {workers}")
    with ExitStack() as stack:
        shards: dict[str, SealedMemory] = {}
        for name in names:
            shard = header.shard(name)
            memory = SealedMemory(name, shard.plain_bytes, unsafe_swap=unsafe_swap)
            shards[name] = stack.enter_context(memory)
            with open_sealed(folder, name) as handle:
                if workers > 1 and shard.plain_bytes >= WORKER_BYTES:
                    _by_workers(header, shard, keys.key(name), handle, memory, workers, progress)
                else:
                    reader = ShardReader(header, shard, keys.key(name), handle)
                    end = reader.layout.count
                    decrypt_chunks(reader, memory.view, 0, end, progress, memory.pages.take)
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
    """Decrypt a whole shard into the caller's own memory; threads overlap reading and decrypting.

    Each thread has its own cipher object and buffer: sharing one costs six sevenths of the speed.

    Raises:
        SealTamperError: a chunk is not what was sealed; `out` is wiped.
        WeightsError: `out` is not of the shard's size.
    """
    shard = header.shard(name)
    if len(out) != shard.plain_bytes:
        raise WeightsError(f"{name}: expected {shard.plain_bytes} bytes of memory, got {len(out)}")
    layout = Layout(plain_bytes=shard.plain_bytes, chunk_bytes=header.chunk_bytes)

    with open_sealed(folder, name) as handle:

        def work(span: tuple[int, int]) -> None:
            decrypt_chunks(ShardReader(header, shard, keys.key(name), handle), out, *span)

        try:
            with ThreadPoolExecutor(max(1, threads)) as pool:
                for done in [pool.submit(work, span) for span in spans(layout.count, threads)]:
                    done.result()
        except WeightsError:
            wipe(out)
            raise


def spans(count: int, parts: int) -> list[tuple[int, int]]:
    """Split `count` chunks into at most `parts` ranges [first, end), none empty."""
    parts = max(1, min(parts, count))
    edges = [count * number // parts for number in range(parts + 1)]
    return [(first, end) for first, end in itertools.pairwise(edges) if first < end]


def _by_workers(
    header: Header,
    shard: Shard,
    key: bytes,
    handle: int,
    memory: SealedMemory,
    workers: int,
    progress: Progress | None,
) -> None:
    # The header goes along without its other shards: a worker needs one.
    small = msgspec.structs.replace(header, shards=(shard,))
    layout = Layout(plain_bytes=shard.plain_bytes, chunk_bytes=header.chunk_bytes)
    running: list[subprocess.Popen[bytes]] = []
    try:
        for first, end in spans(layout.count, workers):
            job = Job(small, shard, key, handle, memory.handle, first, end)
            running.append(_start(job))
        for child in running:
            _follow(child, shard.name, progress)
        # The workers' mappings lock the pages: ours does too before those go.
        memory.pages.take(0, memory.size)
    finally:
        for child in running:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()


def _start(job: Job) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-I", "-m", "safehold.secure.weights.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(job.sealed_handle, job.memory_handle),
    )
    if child.stdin is not None:
        try:
            text = msgspec.msgpack.encode(job)
            child.stdin.write(len(text).to_bytes(JOB_SIZE_BYTES, "big") + text)
            child.stdin.flush()
        except BrokenPipeError:
            pass  # it died at once; what it leaves unsaid is an error below
    return child


def _follow(child: subprocess.Popen[bytes], name: str, progress: Progress | None) -> None:
    """Read a worker's lines: numbers of bytes done, then `done`, or one error."""
    for line in _lines(child.stdout):
        word, _, rest = line.partition(" ")
        if word == "done":
            return
        if word == "bytes" and progress is not None:
            progress(int(rest))
        elif word == "error":
            raise SealTamperError(rest)
    raise WeightsError(f"{name}: a worker died while it decrypted")


def _lines(pipe: IO[bytes] | None) -> Iterable[str]:
    if pipe is None:
        return
    for line in pipe:
        yield line.decode(errors="replace").rstrip("\n")


def total_bytes(header: Header, names: Sequence[str]) -> int:
    """Return the plaintext size of some shards, in bytes."""
    return sum(header.shard(name).plain_bytes for name in names)
