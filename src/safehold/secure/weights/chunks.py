"""One shard on disk: a preamble, then chunks of AES-256-GCM in the STREAM construction.

    preamble    "SHSEAL01", chunk size (4 bytes, big-endian), seal id (16 bytes), zeros (4)
    chunk i     ciphertext of `chunk_bytes` (the last one: 0 to `chunk_bytes`), 16 bytes of tag

The nonce of chunk i is the shard's 7-byte prefix, i in 4 bytes, and 1 on the last chunk, else 0
(Hoang, Reyhanitabar, Rogaway, Vizár 2015), so a shard can't be cut, extended or re-ordered. The
associated data of chunk i is SHA-256 of the canonical identity (seal, model, version, shard, sizes)
and i in 8 bytes. The preamble is a courtesy to the reader of error messages; nothing rests on it.
"""

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from safehold.canonical import canonical
from safehold.secure.weights.interface import (
    KEY_BYTES,
    Header,
    SealedFormatError,
    SealTamperError,
    Shard,
)

MAGIC = b"SHSEAL01"
PREAMBLE_BYTES = 32
TAG_BYTES = 16
MAX_CHUNKS = 2**32 - 1
# `bench/weights.py chunks`: loading rises from 0.75 GB/s at 16 KiB over 1.38 (64) and 1.67 (128) to
# 2.2 at 256 KiB; larger chunks make one tensor dearer.
DEFAULT_CHUNK_BYTES = 256 * 1024

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the chunks of one shard lie; all sizes in bytes."""

    plain_bytes: int
    chunk_bytes: int

    @property
    def count(self) -> int:
        """The number of chunks; an empty shard has one, empty."""
        return max(1, -(-self.plain_bytes // self.chunk_bytes))

    @property
    def sealed_bytes(self) -> int:
        """The size of the sealed file."""
        return PREAMBLE_BYTES + self.plain_bytes + self.count * TAG_BYTES

    def plain(self, index: int) -> tuple[int, int]:
        """Return offset and length of a chunk in the plaintext."""
        offset = index * self.chunk_bytes
        return offset, min(self.chunk_bytes, self.plain_bytes - offset)

    def sealed(self, index: int) -> tuple[int, int]:
        """Return offset and length of a chunk in the sealed file."""
        offset, length = self.plain(index)
        return PREAMBLE_BYTES + offset + index * TAG_BYTES, length + TAG_BYTES


def preamble(seal_id: str, chunk_bytes: int) -> bytes:
    """Return the first bytes of a sealed shard."""
    head = MAGIC + chunk_bytes.to_bytes(4, "big") + bytes.fromhex(seal_id)
    return head.ljust(PREAMBLE_BYTES, b"\0")


def check_preamble(data: bytes, header: Header, shard: str) -> None:
    """Refuse a file that says it is of another sealing, in words that help.

    Raises:
        SealedFormatError: no sealed shard.
        SealTamperError: a shard of another sealing (another version, or another model).
    """
    if data[: len(MAGIC)] != MAGIC:
        raise SealedFormatError(f"{shard}: expected a sealed shard, got another kind of file")
    if data != preamble(header.seal_id, header.chunk_bytes):
        raise SealTamperError(
            f"{shard}: expected a shard of seal {header.seal_id[:12]}, got one of another sealing"
        )


def identity(
    *, seal_id: str, model: str, version: str, shard: str, plain_bytes: int, chunk_bytes: int
) -> bytes:
    """Return the digest that binds every chunk to its place in the world (32 bytes)."""
    words = {
        "chunk-bytes": chunk_bytes,
        "model": model,
        "plain-bytes": plain_bytes,
        "seal": seal_id,
        "shard": shard,
        "version": version,
    }
    return hashlib.sha256(b"safehold-chunk/1\0" + canonical(words)).digest()


def identity_of(header: Header, shard: Shard) -> bytes:
    """Return the identity of a shard of a sealed model."""
    return identity(
        seal_id=header.seal_id,
        model=header.model,
        version=header.version,
        shard=shard.name,
        plain_bytes=shard.plain_bytes,
        chunk_bytes=header.chunk_bytes,
    )


class ShardCipher:
    """Encrypts or opens the chunks of one shard. One object per thread: it is not shared."""

    def __init__(self, key: bytes, bound: bytes, layout: Layout, name: str) -> None:
        """Take a shard key (39 bytes), the shard's identity and its layout."""
        if layout.count > MAX_CHUNKS:
            raise SealedFormatError(f"{name}: expected at most {MAX_CHUNKS} chunks")
        self._aead = AESGCM(key[:KEY_BYTES])
        self._prefix = key[KEY_BYTES:]
        self._bound = bound
        self._name = name
        self._last = layout.count - 1

    def _nonce(self, index: int) -> bytes:
        return self._prefix + index.to_bytes(4, "big") + (b"\1" if index == self._last else b"\0")

    def _context(self, index: int) -> bytes:
        return self._bound + index.to_bytes(8, "big")

    def seal_into(self, index: int, plain: Buffer, out: Buffer) -> None:
        """Encrypt one chunk into `out`, which is exactly 16 bytes longer."""
        self._aead.encrypt_into(self._nonce(index), plain, self._context(index), out)

    def open_into(self, index: int, sealed: Buffer, out: Buffer) -> None:
        """Decrypt one chunk into `out`, which is exactly 16 bytes shorter.

        Raises:
            SealTamperError: the chunk is not the one that was sealed at this place.
        """
        try:
            self._aead.decrypt_into(self._nonce(index), sealed, self._context(index), out)
        except InvalidTag as error:
            raise SealTamperError(
                f"{self._name}: chunk {index} is not the one that was sealed there"
            ) from error
