"""Sealing: a folder of weights in, a folder of ciphertext out, whole or not at all.

Everything is written to `.NAME.sealing` beside the destination and renamed at the end, so that a
killed seal leaves ciphertext only, and nothing that looks finished. The same command with `resume`
goes on: finished shards are opened and compared with their digests first, an unfinished one is
encrypted again from its beginning under a fresh key.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from safehold.errors import WeightsError
from safehold.secure.weights.chunks import (
    DEFAULT_CHUNK_BYTES,
    TAG_BYTES,
    Layout,
    ShardCipher,
    identity,
    preamble,
)
from safehold.secure.weights.digests import BackgroundDigests
from safehold.secure.weights.formats import check_file
from safehold.secure.weights.header import sign_header
from safehold.secure.weights.interface import (
    CIPHER,
    FORMAT,
    HEADER_NAME,
    SEALED_SUFFIX,
    Header,
    Hex16,
    Hex32,
    KeyProvider,
    SealedFormatError,
    Shard,
    Size,
    StorageError,
    Title,
    Wrapped,
)
from safehold.secure.weights.keys import (
    check_data_key,
    key_check,
    new_data_key,
    shard_key,
    unwrap_data_key,
    wrap_context,
)
from safehold.secure.weights.manifest import (
    PLAIN_MANIFEST,
    SEALED_MANIFEST,
    UNSIGNED_FILES,
    plain_resources,
    sealed_resources,
    sign_manifest,
)
from safehold.secure.weights.opened import digest_plain
from safehold.secure.weights.signer import SealSigner
from safehold.secure.weights.storage import (
    read_exactly,
    replace_file,
    sole_owner,
    storage,
    sync_folder,
    write_all,
)

STATE_NAME = "state.json"
_SPAN_BYTES = 4 * 2**20

Progress = Callable[[int], None]
"""Called with the number of plaintext bytes done since the last call."""


class SealOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to seal, and as what. `created` is POSIX seconds."""

    source: Path
    destination: Path
    model: Title
    version: Title
    created: Size
    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    digest: str = "sha256"
    resume: bool = False


class _Done(msgspec.Struct, frozen=True):
    """A finished shard, and the source file it was made from (size, mtime in ns)."""

    shard: Shard
    stamp: tuple[int, int]


class _State(msgspec.Struct, frozen=True):
    """What a resumed seal goes on with. Holds no secret."""

    seal_id: Hex16
    model: str
    version: str
    chunk_bytes: int
    digest: str
    key_check: Hex32
    wrapped: tuple[Wrapped, ...]
    done: tuple[_Done, ...] = ()


def seal(
    order: SealOrder,
    providers: Sequence[KeyProvider],
    signer: SealSigner,
    progress: Progress | None = None,
) -> Header:
    """Seal a folder and return the new header.

    Raises:
        SealedFormatError: the folder holds nothing to seal, or a file that could run code.
        StorageError: the destination exists, a seal was interrupted, or the disk refused.
        ProviderError: a provider could not wrap the data key.
    """
    # 1. Look before anything is written.
    sources = find_sources(order.source)
    if not providers:
        raise WeightsError("expected at least one key provider, got none: nobody could open it")
    if order.destination.exists():
        raise StorageError(f"{order.destination.name}: expected a new folder, got one that exists")
    work = work_folder(order.destination)
    if work.exists() and not order.resume:
        raise StorageError(
            f"{work.name}: a seal was interrupted here; go on with --resume, or remove it"
        )
    if not work.exists():
        _check_space(order.destination, sum(path.stat().st_size for path in sources.values()))
    with storage(f"can't make {work.name}"):
        work.mkdir(parents=True, exist_ok=True, mode=0o755)
    with sole_owner(work):
        # 2. One data key for this sealing, wrapped before the first byte is encrypted.
        state, data_key = _begin(order, work, providers)
        # 3. Every shard.
        for name, path in sources.items():
            state = _seal_one(order, work, state, data_key, name, path, progress)
        # 4. What says that it is finished: manifests and header, then the name.
        return _finish(order, work, state, list(sources), signer)


def _check_space(destination: Path, plain_bytes: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        StorageError: less is free than the sealed model takes.
    """
    place = next(one for one in destination.absolute().parents if one.exists())
    free = shutil.disk_usage(place).free
    # Each chunk has its tag, each shard its header, and the manifests are small.
    needed = plain_bytes + plain_bytes // 1000 + 2**20
    if free < needed:
        raise StorageError(f"expected {needed:,} bytes free at {place}, got {free:,}")


def work_folder(destination: Path) -> Path:
    """Return where an unfinished seal lives."""
    return destination.with_name(f".{destination.name}.sealing")


def find_sources(source: Path) -> dict[str, Path]:
    """Return the files of a model by shard name, each checked.

    Raises:
        SealedFormatError: none, or a file of a format that is not sealed.
    """
    with storage(f"can't read {source.name}"):
        if not source.is_dir():
            raise SealedFormatError(f"{source.name}: expected a folder of weights")
        files = sorted(path for path in source.rglob("*") if not path.is_dir())
        found = {path.relative_to(source).as_posix(): path for path in files}
        for name, path in found.items():
            if not path.is_file():
                raise SealedFormatError(f"{name[:80]!r}: expected a regular file")
            check_file(path, name)
    if not found:
        raise SealedFormatError(f"{source.name}: expected at least one file to seal, got none")
    return found


def _begin(order: SealOrder, work: Path, providers: Sequence[KeyProvider]) -> tuple[_State, bytes]:
    if (work / STATE_NAME).exists():
        return _resume(order, work, providers)
    seal_id = uuid.uuid4().hex
    data_key = new_data_key()
    context = wrap_context(seal_id, order.model, order.version)
    wrapped: list[Wrapped] = []
    for provider in providers:
        reference = provider.create(f"safehold-{seal_id}")
        blob = provider.wrap(reference, data_key, context)
        wrapped.append(Wrapped(provider=provider.kind, reference=reference, blob=blob))
    state = _State(
        seal_id=seal_id,
        model=order.model,
        version=order.version,
        chunk_bytes=order.chunk_bytes,
        digest=order.digest,
        key_check=key_check(data_key, seal_id),
        wrapped=tuple(wrapped),
    )
    replace_file(work / STATE_NAME, msgspec.json.encode(state))
    return state, data_key


def _resume(order: SealOrder, work: Path, providers: Sequence[KeyProvider]) -> tuple[_State, bytes]:
    try:
        state = msgspec.json.decode((work / STATE_NAME).read_bytes(), type=_State)
    except (OSError, msgspec.DecodeError) as error:
        raise StorageError(f"{work.name}: its {STATE_NAME} can't be read; remove it") from error
    wanted = (order.model, order.version, order.chunk_bytes, order.digest)
    if (state.model, state.version, state.chunk_bytes, state.digest) != wanted:
        raise StorageError(f"{work.name}: the interrupted seal was of other options; remove it")
    draft = _header(order, state, tuple(done.shard for done in state.done) or (_NOTHING,))
    data_key, _ = unwrap_data_key(draft, providers)
    check_data_key(data_key, draft)
    return state, data_key


_NOTHING = Shard(
    name="none", plain_bytes=0, salt="0" * 64, plain_digest="0" * 64, sealed_digest="0" * 64
)


def _header(order: SealOrder, state: _State, shards: tuple[Shard, ...]) -> Header:
    return Header(
        format=FORMAT,
        cipher=CIPHER,
        seal_id=state.seal_id,
        model=state.model,
        version=state.version,
        created=order.created,
        chunk_bytes=state.chunk_bytes,
        digest=state.digest,
        shards=shards,
        key_check=state.key_check,
        revision=1,
        wrapped=state.wrapped,
    )


def _seal_one(
    order: SealOrder,
    work: Path,
    state: _State,
    data_key: bytes,
    name: str,
    path: Path,
    progress: Progress | None,
) -> _State:
    with storage(f"can't read {name}"):
        found = path.stat()
    stamp = (found.st_size, found.st_mtime_ns)
    target = work / f"{name}{SEALED_SUFFIX}"
    for done in state.done:
        if done.shard.name == name:
            if done.stamp != stamp:
                raise StorageError(f"{name}: the file changed since the interrupted seal")
            _recheck(order, state, data_key, done.shard, target)
            if progress is not None:
                progress(done.shard.plain_bytes)
            return state
    shard = _encrypt(state, data_key, name, path, target, progress)
    with storage(f"can't read {name}"):
        after = path.stat()
    if (after.st_size, after.st_mtime_ns) != stamp or shard.plain_bytes != stamp[0]:
        raise StorageError(f"{name}: the file changed while it was sealed")
    state = msgspec.structs.replace(state, done=(*state.done, _Done(shard=shard, stamp=stamp)))
    replace_file(work / STATE_NAME, msgspec.json.encode(state))
    return state


def _recheck(order: SealOrder, state: _State, data_key: bytes, shard: Shard, target: Path) -> None:
    """Open a finished shard: only what this data key sealed gets into the signed header."""
    key = shard_key(data_key, state.seal_id, shard.name, shard.salt)
    found = digest_plain(_header(order, state, (shard,)), shard, key, target)
    if found != (shard.plain_digest, shard.sealed_digest):
        raise StorageError(f"{shard.name}: the interrupted seal's file is damaged; remove it")


def _encrypt(
    state: _State,
    data_key: bytes,
    name: str,
    path: Path,
    target: Path,
    progress: Progress | None,
) -> Shard:
    salt = os.urandom(32).hex()
    with storage(f"can't seal {name}"):
        size = path.stat().st_size
        layout = Layout(plain_bytes=size, chunk_bytes=state.chunk_bytes)
        bound = identity(
            seal_id=state.seal_id,
            model=state.model,
            version=state.version,
            shard=name,
            plain_bytes=size,
            chunk_bytes=state.chunk_bytes,
        )
        cipher = ShardCipher(shard_key(data_key, state.seal_id, name, salt), bound, layout, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            sink = os.open(target, flags, 0o644)
            try:
                digests = _stream(
                    source,
                    sink,
                    cipher,
                    layout,
                    preamble(state.seal_id, state.chunk_bytes),
                    BackgroundDigests(state.digest, 2),
                    name,
                    progress,
                )
                os.fsync(sink)
            finally:
                os.close(sink)
        finally:
            os.close(source)
        sync_folder(target.parent)
    plain_digest, sealed_digest = digests
    return Shard(
        name=name,
        plain_bytes=size,
        salt=salt,
        plain_digest=plain_digest,
        sealed_digest=sealed_digest,
    )


def _stream(
    source: int,
    sink: int,
    cipher: ShardCipher,
    layout: Layout,
    head: bytes,
    digests: BackgroundDigests,
    name: str,
    progress: Progress | None,
) -> tuple[str, ...]:
    """Encrypt span after span; while one is hashed, the next one is read and encrypted."""
    per_span = max(1, _SPAN_BYTES // layout.chunk_bytes)
    plains = [memoryview(bytearray(per_span * layout.chunk_bytes)) for _ in range(2)]
    sealeds = [memoryview(bytearray(per_span * (layout.chunk_bytes + TAG_BYTES))) for _ in range(2)]
    with closing(digests):
        write_all(sink, memoryview(head))
        digests.feed(memoryview(b""), memoryview(head))
        for turn, first in enumerate(range(0, layout.count, per_span)):
            plain, sealed = plains[turn % 2], sealeds[turn % 2]
            chunks = range(first, min(first + per_span, layout.count))
            begin, _ = layout.plain(chunks.start)
            wanted = sum(layout.plain(index)[1] for index in chunks)
            if read_exactly(source, plain[:wanted], begin) != wanted:
                raise StorageError(f"{name}: the file became shorter while it was sealed")
            read = written = 0
            for index in chunks:
                length = layout.plain(index)[1]
                out = sealed[written : written + length + TAG_BYTES]
                cipher.seal_into(index, plain[read : read + length], out)
                read, written = read + length, written + length + TAG_BYTES
            digests.wait()
            digests.feed(plain[:read], sealed[:written])
            write_all(sink, sealed[:written])
            if progress is not None:
                progress(read)
        return digests.finish()


def _finish(
    order: SealOrder, work: Path, state: _State, names: list[str], signer: SealSigner
) -> Header:
    by_name = {done.shard.name: done.shard for done in state.done}
    header = _header(order, state, tuple(by_name[name] for name in names))
    manifests = (
        (SEALED_MANIFEST, sealed_resources(header), UNSIGNED_FILES),
        (PLAIN_MANIFEST, plain_resources(header), ()),
    )
    for name, resources, ignored in manifests:
        replace_file(work / name, sign_manifest(header, resources, ignored, signer))
    replace_file(work / HEADER_NAME, sign_header(header, signer))
    with storage(f"can't finish {order.destination.name}"):
        expected = {f"{name}{SEALED_SUFFIX}" for name in names}
        expected |= {*UNSIGNED_FILES, STATE_NAME}
        for path in sorted(work.rglob("*")):
            if path.is_file() and path.relative_to(work).as_posix() not in expected:
                raise StorageError(f"{work.name}: a file that is not of this seal; remove it")
        (work / STATE_NAME).unlink()
        sync_folder(work)
        # Fails if somebody made the destination meanwhile: an existing folder is never replaced.
        if order.destination.exists():
            raise StorageError(f"{order.destination.name}: it was made meanwhile")
        work.rename(order.destination)
        sync_folder(order.destination.parent)
    return header


def discard(destination: Path) -> bool:
    """Remove an interrupted seal; tell whether there was one."""
    work = work_folder(destination)
    if not work.exists():
        return False
    with sole_owner(work), storage(f"can't remove {work.name}"):
        shutil.rmtree(work)
    return True
