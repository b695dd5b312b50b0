"""A shortcut for a long log: the state as of a tree that its own writer replayed before.

A snapshot counts for the one who made it and nobody else: it is signed with the reader's own
emitter key, so a reader that judges for itself (the key service, `safehold log verify`) takes none
of the log's writer. It must be of this very code, and of a tree that is provably a beginning of
the signed one. Whatever is wrong with it, the log is replayed from its first leaf.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

import safehold.trust
from safehold.errors import TrustError
from safehold.trust.grants.cases import Cases
from safehold.trust.grants.state import TrustState
from safehold.trust.log.book import LogBook
from safehold.trust.log.files import write_durably
from safehold.trust.log.interface import Checkpoint
from safehold.trust.log.merkle import prove_consistency, verify_consistency
from safehold.trust.log.note import SigningKey
from safehold.trust.log.tiles import TileReader

MIN_NEW_LEAVES = 1000
"""How many leaves must have come since the last snapshot before another one is worth its cost."""
MAX_BYTES = 2 * 2**30
_CONTEXT = b"safehold-state/1\0"


class _Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that replaying gave."""

    origin: str
    size: int
    root: bytes
    founding_pin: str
    code: str
    members: dict[str, Any]
    live: dict[str, bytes]
    settled: dict[str, bytes]


class Snapshots:
    """The snapshot file of one emitter on one host."""

    def __init__(self, path: Path, key: SigningKey) -> None:
        self._path = path
        self._key = key
        self._size = 0

    def load(self, book: LogBook) -> tuple[TrustState, int] | None:
        """Return the state and how many leaves it has taken in; None: replay from the start."""
        try:
            image = self._read()
            if image is None or image.code != code_digest():
                return None
            if (image.origin, image.founding_pin) != (book.keys.origin, book.keys.founding):
                return None
            head = book.checkpoint()
            if image.size > head.size:
                return None
            proof = prove_consistency(
                image.size, head.size, TileReader(book.source, head.size).node
            )
            verify_consistency(proof, image.root, head.root)
            state = TrustState.of_members(image.origin, image.founding_pin, image.members)
            state.cases = Cases.unpacked(image.live, image.settled)
        except (TrustError, msgspec.DecodeError, msgspec.ValidationError):
            return None
        self._size = image.size
        return state, image.size

    def keep(self, state: TrustState, taken: int, head: Checkpoint) -> None:
        """Write a snapshot if it is worth it; a disk that refuses costs only the shortcut."""
        if taken != head.size or taken - self._size < MIN_NEW_LEAVES:
            return
        live, settled = state.cases.packed(state.last_time)
        image = _Image(
            origin=state.origin,
            size=head.size,
            root=head.root,
            founding_pin=state.founding_pin,
            code=code_digest(),
            members=state.members(),
            live=live,
            settled=settled,
        )
        data = msgspec.msgpack.encode(image)
        self._size = head.size
        if len(data) > MAX_BYTES:
            return
        signature = self._key.sign(_CONTEXT + hashlib.sha256(data).digest())
        try:
            write_durably(self._path, signature + data, mode=0o600)
        except TrustError:
            return

    def _read(self) -> _Image | None:
        try:
            raw = self._path.read_bytes()
        except OSError:
            return None
        signature, data = raw[:64], memoryview(raw)[64:]
        signed = _CONTEXT + hashlib.sha256(data).digest()
        if not self._key.verifier.verifies(signature, signed):
            return None
        return msgspec.msgpack.decode(data, type=_Image)


@cache
def code_digest() -> str:
    """Return the digest of the code that judges: another version may judge otherwise."""
    digest = hashlib.sha256()
    root = Path(safehold.trust.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
