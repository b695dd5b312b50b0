"""Loading into sealed memory: threads, wiping, what the memory forbids."""

import mmap
import os
import threading
from pathlib import Path

import pytest

from safehold.errors import WeightsError
from safehold.secure.weights import load
from safehold.secure.weights.interface import LeaseError, SealTamperError
from safehold.secure.weights.load import load_shards, read_parallel, spans
from safehold.secure.weights.memory import SealedMemory, has_swap
from safehold.testing.weights import Publisher

ONE = "model-00001-of-00002.safetensors"


def _flip(publisher: Publisher, at: int = -1) -> None:
    path = publisher.root / "sealed" / f"{ONE}.sealed"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _locked_bytes(name: str) -> int:
    """Return how much of a memfd's mappings here is there and locked, by the kernel's account."""
    found, here = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line.partition(" ")[0].endswith(":"):
            here = f"/memfd:safehold:{name} " in line
        elif here and line.startswith("Locked:"):
            found += int(line.split()[1]) * 1024
    return found


def test_threads_decrypt_the_same_bytes(publisher: Publisher) -> None:
    """Three threads that share one shard give its exact bytes, and count them all."""
    header = publisher.seal()
    seen: list[int] = []
    with load_shards(
        publisher.root / "sealed",
        header,
        publisher.keys(header),
        threads=3,
        unsafe_swap=True,
        progress=seen.append,
    ) as shards:
        for name in shards.names:
            assert bytes(shards.memory(name).view) == (publisher.root / "plain" / name).read_bytes()
    assert sum(seen) == header.plain_bytes


@pytest.mark.parametrize("threads", [1, 2])
def test_bad_chunk_fails_the_load(publisher: Publisher, threads: int) -> None:
    """The error of one thread is the load's error, in its words, and no plaintext is left."""
    header = publisher.seal()
    _flip(publisher)
    with pytest.raises(SealTamperError, match="not the one that was sealed"):
        load_shards(
            publisher.root / "sealed",
            header,
            publisher.keys(header),
            threads=threads,
            unsafe_swap=True,
        )
    assert _locked_bytes(ONE) == 0


def test_no_plaintext_file_is_made(publisher: Publisher) -> None:
    """Loading makes no file: the folder and the working directory are as before."""
    header = publisher.seal()
    before = sorted(path for path in publisher.root.rglob("*"))
    with load_shards(
        publisher.root / "sealed", header, publisher.keys(header), unsafe_swap=True
    ) as shards:
        assert str(Path(shards.memory(ONE).path).readlink()).startswith("/memfd:")
        assert sorted(path for path in publisher.root.rglob("*")) == before


def test_threads_read_into_the_callers_memory(publisher: Publisher) -> None:
    """Two threads fill one buffer of the caller with the exact bytes."""
    header = publisher.seal()
    out = bytearray(header.shard(ONE).plain_bytes)
    folder = publisher.root / "sealed"
    read_parallel(folder, header, publisher.keys(header), ONE, memoryview(out), threads=2)
    assert out == (publisher.root / "plain" / ONE).read_bytes()


def test_bad_chunk_wipes_what_other_threads_wrote(publisher: Publisher) -> None:
    """One thread's bad chunk leaves nothing of the others' work."""
    header = publisher.seal()
    _flip(publisher)
    out = memoryview(bytearray(b"\xaa" * header.shard(ONE).plain_bytes))
    folder = publisher.root / "sealed"
    with pytest.raises(SealTamperError):
        read_parallel(folder, header, publisher.keys(header), ONE, out, threads=4)
    assert not any(out)


def test_error_stops_every_thread(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first error no thread goes on, and the load's error is the first one's."""
    monkeypatch.setattr(load, "PROGRESS_BYTES", publisher.chunk_bytes)
    header = publisher.seal()
    done: list[int] = []

    def progress(count: int) -> None:
        done.append(count)
        raise LeaseError("the grant ended")

    with pytest.raises(LeaseError, match="ended"):
        load_shards(
            publisher.root / "sealed",
            header,
            publisher.keys(header),
            threads=2,
            unsafe_swap=True,
            progress=progress,
        )
    assert len(done) <= 2
    assert not [one for one in threading.enumerate() if one.name.startswith("safehold-decrypt")]


def test_memory_of_another_size_is_refused(publisher: Publisher) -> None:
    """The caller's memory must be exactly of the shard's size."""
    header = publisher.seal()
    with pytest.raises(WeightsError, match="bytes of memory"):
        read_parallel(
            publisher.root / "sealed",
            header,
            publisher.keys(header),
            ONE,
            memoryview(bytearray(5)),
        )


@pytest.mark.parametrize(("count", "parts"), [(1, 1), (1, 8), (7, 3), (100, 100), (5, 0)])
def test_spans_cover_every_chunk_once(count: int, parts: int) -> None:
    """However chunks are divided, each is in exactly one span."""
    found = [index for first, end in spans(count, parts) for index in range(first, end)]
    assert found == list(range(count))


def test_frozen_memory_can_not_be_written_by_others() -> None:
    """After freezing, no new writable mapping and no write call; its owner can still wipe it."""
    with SealedMemory("test", 4096, unsafe_swap=True) as memory:
        memory.view[:4] = b"data"
        memory.freeze()
        with pytest.raises(PermissionError):
            os.pwrite(memory.handle, b"x", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(memory.handle, 4096)
        with pytest.raises(PermissionError):
            os.ftruncate(memory.handle, 1)
        assert Path(memory.path).read_bytes()[:4] == b"data"
        memory.wipe()
        assert not any(Path(memory.path).read_bytes())


@pytest.mark.parametrize("threads", [1, 3])
def test_loaded_plaintext_is_locked_in_memory(publisher: Publisher, threads: int) -> None:
    """Every page of a loaded shard is locked, whichever thread wrote it."""
    header = publisher.seal()
    with SealedMemory("probe", 2**20, unsafe_swap=True) as probe:
        if not probe.locked:
            pytest.skip("needs the right to lock memory")
    with load_shards(
        publisher.root / "sealed",
        header,
        publisher.keys(header),
        threads=threads,
        unsafe_swap=True,
    ):
        size = header.shard(ONE).plain_bytes
        assert _locked_bytes(ONE) == -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def test_memory_comes_when_it_is_taken() -> None:
    """Untouched memory costs nothing, taken memory is there, and a wipe takes no more of it."""
    with SealedMemory("test", 64 * mmap.PAGESIZE, unsafe_swap=True) as memory:
        assert os.fstat(memory.handle).st_blocks == 0
        memory.take(5, 3 * mmap.PAGESIZE)
        taken = os.fstat(memory.handle).st_blocks * 512
        assert taken >= 4 * mmap.PAGESIZE
        memory.wipe()
        assert os.fstat(memory.handle).st_blocks * 512 == taken


def test_wipe_finds_what_was_written_between_holes() -> None:
    """Plaintext in the middle of untouched memory is wiped too."""
    with SealedMemory("test", 1024 * mmap.PAGESIZE, unsafe_swap=True) as memory:
        memory.view[500_000:500_004] = b"data"
        memory.view[-1:] = b"x"
        memory.wipe()
        assert not any(memory.view)


def test_wipe_reaches_every_mapping() -> None:
    """Whoever mapped the plaintext sees zeros after a wipe."""
    with SealedMemory("test", 4096, unsafe_swap=True) as memory:
        memory.view[:] = b"\xaa" * 4096
        memory.freeze()
        with mmap.mmap(memory.handle, 4096, prot=mmap.PROT_READ) as other:
            assert any(other[:])
            memory.wipe()
            assert not any(other[:])


def test_memory_without_swap_or_locked_is_accepted() -> None:
    """Where memory can be locked, or there is no swap, no unsafe option is needed."""
    if has_swap() and os.geteuid() != 0:
        pytest.skip("needs a host without swap, or the right to lock memory")
    SealedMemory("test", 4096).close()
