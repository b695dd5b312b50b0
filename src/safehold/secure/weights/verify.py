"""Checking a sealed model with public keys alone: signature, manifests, every sealed byte."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec

from safehold.secure.weights.chunks import PREAMBLE_BYTES, Layout, check_preamble
from safehold.secure.weights.digests import BackgroundDigests
from safehold.secure.weights.header import open_header, read_header
from safehold.secure.weights.interface import SEALED_SUFFIX, Header, SealTamperError, Shard
from safehold.secure.weights.manifest import (
    PLAIN_MANIFEST,
    SEALED_MANIFEST,
    UNSIGNED_FILES,
    check_manifest,
    plain_resources,
    sealed_resources,
)
from safehold.secure.weights.opened import open_sealed
from safehold.secure.weights.signer import SealVerifier
from safehold.secure.weights.storage import read_exactly, storage

_READ_BYTES = 4 * 2**20


class VerifiedWeights(msgspec.Struct, frozen=True):
    """What was found sound."""

    header: Header
    shards: int
    sealed_bytes: int


def verify_sealed(
    folder: Path,
    verifier: SealVerifier,
    *,
    digests: bool = True,
    progress: Callable[[int], None] | None = None,
) -> VerifiedWeights:
    """Verify a sealed folder without any decryption key.

    Args:
        folder: The sealed model.
        verifier: The publisher's public keys, from somewhere else than the folder.
        digests: Read every byte; False looks at signatures, names and sizes only.
        progress: Called with the number of sealed bytes read since the last call.

    Raises:
        SealTamperError: anything is missing, added, changed or of another sealing.
        SealedFormatError: no sealed model.
    """
    # 1. The header is the publisher's.
    header = open_header(read_header(folder), verifier)
    # 2. The manifests are too, and say the same.
    for name, resources, ignored in (
        (SEALED_MANIFEST, sealed_resources(header), UNSIGNED_FILES),
        (PLAIN_MANIFEST, plain_resources(header), ()),
    ):
        check_manifest(_read(folder / name), header, resources, ignored, verifier)
    # 3. Nothing is missing and nothing was added.
    expected = {f"{shard.name}{SEALED_SUFFIX}" for shard in header.shards} | {*UNSIGNED_FILES}
    present = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()
    }
    for name in sorted(expected - present):
        raise SealTamperError(f"{name}: it is missing or was renamed")
    for name in sorted(present - expected):
        raise SealTamperError(f"{name[:80]!r}: it is not of this sealed model")
    # 4. Every sealed file has its size, its sealing and its digest.
    for shard in header.shards:
        with open_sealed(folder, shard.name) as handle:
            _check_file(header, shard, handle, digests=digests, progress=progress)
    return VerifiedWeights(
        header=header,
        shards=len(header.shards),
        sealed_bytes=sum(_layout(header, shard).sealed_bytes for shard in header.shards),
    )


def _layout(header: Header, shard: Shard) -> Layout:
    return Layout(plain_bytes=shard.plain_bytes, chunk_bytes=header.chunk_bytes)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SealTamperError(f"{path.name}: it is missing or unreadable") from error


def _check_file(
    header: Header,
    shard: Shard,
    handle: int,
    *,
    digests: bool,
    progress: Callable[[int], None] | None,
) -> None:
    size = _layout(header, shard).sealed_bytes
    with storage(f"can't read {shard.name}"):
        check_preamble(os.pread(handle, PREAMBLE_BYTES, 0), header, shard.name)
        found = os.fstat(handle).st_size
        if found != size:
            raise SealTamperError(f"{shard.name}: expected {size} sealed bytes, got {found}")
        if not digests:
            return
        buffers = [memoryview(bytearray(_READ_BYTES)) for _ in range(2)]
        with closing(BackgroundDigests(header.digest, 1)) as running:
            for turn, start in enumerate(range(0, size, _READ_BYTES)):
                part = buffers[turn % 2][: min(_READ_BYTES, size - start)]
                if read_exactly(handle, part, start) != len(part):
                    raise SealTamperError(f"{shard.name}: it became shorter meanwhile")
                running.wait()
                running.feed(part)
                if progress is not None:
                    progress(len(part))
            (digest,) = running.finish()
    if digest != shard.sealed_digest:
        raise SealTamperError(f"{shard.name}: its bytes are not the ones that were sealed")
