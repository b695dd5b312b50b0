"""Opening: random access to shards and tensors; no byte is returned before its tag verified."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from safehold.errors import WeightsError
from safehold.secure.weights.chunks import (
    PREAMBLE_BYTES,
    TAG_BYTES,
    Layout,
    ShardCipher,
    check_preamble,
    identity_of,
)
from safehold.secure.weights.digests import BackgroundDigests
from safehold.secure.weights.formats import MAX_TABLE_BYTES, TensorPlace, read_table
from safehold.secure.weights.interface import (
    SEALED_SUFFIX,
    Header,
    SealedFormatError,
    SealTamperError,
    Shard,
    ShardKeys,
)
from safehold.secure.weights.storage import read_exactly, storage

READ_BYTES = 2**20
"""Sealed bytes that one read takes at most (or one chunk): they stay in the processor's cache."""
_LENGTH_BYTES = 8
Ready = Callable[[int, int], None]
"""Called with offset and length in the shard, just before plaintext is written there."""
# safetensors names; bfloat16 and the float8 kinds have no NumPy type and come as raw integers.
DTYPES: dict[str, str] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
    "F8_E4M3": "u1",
    "F8_E5M2": "u1",
}


class ShardReader:
    """One sealed shard, open for reading. For one thread; `clone` makes one for another."""

    def __init__(self, header: Header, shard: Shard, key: bytes, handle: int) -> None:
        """Take an open file; it stays the caller's.

        Raises:
            SealTamperError: the file is longer or shorter than what was sealed.
        """
        self.shard = shard
        self.layout = Layout(plain_bytes=shard.plain_bytes, chunk_bytes=header.chunk_bytes)
        self._handle = handle
        self._cipher = ShardCipher(key, identity_of(header, shard), self.layout, shard.name)
        # One buffer per thread, made once: allocating for each chunk costs six times the speed.
        self._span = max(1, READ_BYTES // header.chunk_bytes)
        self._sealed = memoryview(bytearray(self._span * (header.chunk_bytes + TAG_BYTES)))
        self._plain = memoryview(bytearray(header.chunk_bytes))
        with storage(f"can't read {shard.name}"):
            size = os.fstat(handle).st_size
            head = os.pread(handle, PREAMBLE_BYTES, 0)
        check_preamble(head, header, shard.name)
        if size != self.layout.sealed_bytes:
            raise SealTamperError(
                f"{shard.name}: expected {self.layout.sealed_bytes} sealed bytes, got {size}"
            )

    def read_into(self, offset: int, out: memoryview, ready: Ready | None = None) -> None:
        """Decrypt `len(out)` bytes of plaintext from `offset` into the caller's memory.

        Raises:
            SealTamperError: a chunk is not the one that was sealed; `out` is wiped first.
            WeightsError: the range is outside the shard.
        """
        if offset < 0 or offset + len(out) > self.shard.plain_bytes:
            raise WeightsError(
                f"{self.shard.name}: expected a range within {self.shard.plain_bytes} bytes"
            )
        try:
            with storage(f"can't read {self.shard.name}"):
                self._read_into(offset, out, ready)
        except WeightsError:
            wipe(out)
            raise
        finally:
            wipe(self._plain)

    def _read_into(self, offset: int, out: memoryview, ready: Ready | None) -> None:
        done = 0
        size = self.layout.chunk_bytes
        first, last = offset // size, max(offset, offset + len(out) - 1) // size
        end = min(last, self.layout.count - 1) + 1
        held = range(0)
        for index in range(first, end):
            if index not in held:
                held = range(index, min(index + self._span, end))
                self._read_sealed(held)
            begin, length = self.layout.plain(index)
            skip = offset + done - begin
            take = min(length - skip, len(out) - done)
            if ready is not None:
                ready(begin + skip, take)
            if take == length:
                self._open_chunk(index, held.start, out[done : done + take])
            else:
                self._open_chunk(index, held.start, self._plain[:length])
                out[done : done + take] = self._plain[skip : skip + take]
            done += take

    def _read_sealed(self, chunks: range) -> None:
        """Copy some chunks out of the file by one call: one by one cost 5 us more each.

        A copy, never a mapping: whoever can write the file could change a mapped chunk between its
        authentication and its decryption.
        """
        begin, _ = self.layout.sealed(chunks[0])
        offset, length = self.layout.sealed(chunks[-1])
        size = offset + length - begin
        got = read_exactly(self._handle, self._sealed[:size], begin)
        if got != size:
            last = chunks[0] + got // (self.layout.chunk_bytes + TAG_BYTES)
            raise SealTamperError(f"{self.shard.name}: it ends within chunk {last}")

    def _open_chunk(self, index: int, first: int, out: memoryview) -> None:
        """Decrypt one chunk of those that were read from the chunk `first` on."""
        offset, length = self.layout.sealed(index)
        at = offset - self.layout.sealed(first)[0]
        self._cipher.open_into(index, self._sealed[at : at + length], out)

    def read(self, offset: int, length: int) -> bytearray:
        """Return a range of the plaintext."""
        if length < 0:
            raise WeightsError(f"{self.shard.name}: expected a length of 0 or more")
        if offset < 0 or offset + length > self.shard.plain_bytes:
            raise WeightsError(
                f"{self.shard.name}: expected a range within {self.shard.plain_bytes} bytes"
            )
        out = bytearray(length)
        self.read_into(offset, memoryview(out))
        return out

    def table(self) -> dict[str, TensorPlace]:
        """Return the tensors of a safetensors shard, with offsets from the shard's beginning.

        Raises:
            SealedFormatError: it is no safetensors shard.
        """
        size = self.shard.plain_bytes
        if not self.shard.name.endswith(".safetensors") or size < _LENGTH_BYTES:
            raise SealedFormatError(f"{self.shard.name}: expected a safetensors shard")
        length = int.from_bytes(self.read(0, _LENGTH_BYTES), "little")
        if length > min(MAX_TABLE_BYTES, size - _LENGTH_BYTES):
            raise SealedFormatError(f"{self.shard.name}: its table is longer than the shard")
        start = _LENGTH_BYTES + length
        rows = read_table(bytes(self.read(_LENGTH_BYTES, length)), size - start)
        return {
            name: TensorPlace(row.dtype, row.shape, row.begin + start, row.end + start)
            for name, row in rows.items()
        }


class SealedModel:
    """A sealed folder, opened with the keys of some or all of its shards."""

    def __init__(self, folder: Path, header: Header, keys: ShardKeys) -> None:
        self.header = header
        self._folder = folder
        self._keys = keys
        self._stack = ExitStack()
        self._readers: dict[str, ShardReader] = {}
        self._tables: dict[str, dict[str, TensorPlace]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every file."""
        self._readers.clear()
        self._stack.close()

    def reader(self, name: str) -> ShardReader:
        """Return this thread's reader of a shard.

        Raises:
            WeightsError: no such shard, no key for it, or its file is missing.
        """
        if name not in self._readers:
            shard = self.header.shard(name)
            key = self._keys.key(name)
            handle = self._stack.enter_context(open_sealed(self._folder, name))
            self._readers[name] = ShardReader(self.header, shard, key, handle)
        return self._readers[name]

    def tensors(self) -> dict[str, str]:
        """Return the shard of each tensor, for every safetensors shard whose key is at hand."""
        found: dict[str, str] = {}
        for shard in self.header.shards:
            if shard.name.endswith(".safetensors"):
                found.update(dict.fromkeys(self._table(shard.name), shard.name))
        return found

    def _table(self, name: str) -> dict[str, TensorPlace]:
        if name not in self._tables:
            self._tables[name] = self.reader(name).table()
        return self._tables[name]

    def tensor(self, name: str) -> NDArray[np.generic]:
        """Return one tensor, decrypting only the chunks that it touches.

        Kinds that NumPy lacks (bfloat16, float8) come as unsigned integers of their width.

        Raises:
            WeightsError: no such tensor.
            SealedFormatError: its size contradicts its shape, or its kind is unknown.
        """
        for shard in self.header.shards:
            if shard.name.endswith(".safetensors") and name in self._table(shard.name):
                place = self._table(shard.name)[name]
                return _array(name, place, self.reader(shard.name))
        raise WeightsError(f"expected the name of a tensor, got {name[:80]!r}")


def _array(name: str, place: TensorPlace, reader: ShardReader) -> NDArray[np.generic]:
    if place.dtype not in DTYPES:
        raise SealedFormatError(f"{name[:80]!r}: expected a known kind of number")
    kind = np.dtype(DTYPES[place.dtype])
    count = 1
    for dimension in place.shape:
        count *= dimension
    if count * kind.itemsize != place.end - place.begin:
        raise SealedFormatError(f"{name[:80]!r}: its size contradicts its shape")
    data = reader.read(place.begin, place.end - place.begin)
    return np.frombuffer(data, dtype=kind).reshape(place.shape)


@contextmanager
def open_sealed(folder: Path, name: str) -> Iterator[int]:
    """Open the sealed file of a shard.

    Raises:
        SealTamperError: it is missing: removed or renamed.
    """
    path = folder / f"{name}{SEALED_SUFFIX}"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise SealTamperError(f"{name}: its sealed file is missing or was renamed") from error
    except OSError as error:
        raise SealTamperError(f"{name}: can't open it: {error.strerror}") from error
    try:
        yield handle
    finally:
        os.close(handle)


def wipe(memory: memoryview) -> None:
    """Overwrite with zeros, without a copy of the same size."""
    zeros = bytes(min(len(memory), 2**20))
    for start in range(0, len(memory), 2**20):
        part = memory[start : start + 2**20]
        part[:] = zeros[: len(part)]


def digest_plain(header: Header, shard: Shard, key: bytes, path: Path) -> tuple[str, str]:
    """Open a whole shard and return the digests of its plaintext and of its sealed file.

    Raises:
        SealTamperError: any chunk is not the one that was sealed.
    """
    with storage(f"can't read {shard.name}"):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        reader = ShardReader(header, shard, key, handle)
        plain = memoryview(bytearray(header.chunk_bytes))
        with closing(BackgroundDigests(header.digest, 2)) as digests:
            with storage(f"can't read {shard.name}"):
                digests.feed(memoryview(b""), memoryview(os.pread(handle, PREAMBLE_BYTES, 0)))
            for index in range(reader.layout.count):
                begin, length = reader.layout.plain(index)
                digests.wait()
                reader.read_into(begin, plain[:length])
                at, sealed = reader.layout.sealed(index)
                digests.feed(plain[:length], memoryview(os.pread(handle, sealed, at)))
            plain_digest, sealed_digest = digests.finish()
            wipe(plain)
            return plain_digest, sealed_digest
    finally:
        os.close(handle)
