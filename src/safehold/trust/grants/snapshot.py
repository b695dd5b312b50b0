"""A shortcut for a long log: the state as of a tree that its own writer replayed before.

A snapshot counts for the one who made it and nobody else: it is signed with the reader's own
emitter key, so a reader that judges for itself (the key service, `safehold log verify`) takes none
of the log's writer. It must be of this very code, and of a tree that is provably a beginning of
the signed one. Whatever is wrong with it, the log is replayed from its first leaf.

A long replay keeps one on the way too: who is killed in the middle goes on from there. What is
signed is the root of the leaves that were really taken in, so one of any size can be proved.
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
from safehold.trust.log.interface import LogTamperError
from safehold.trust.log.merkle import prove_consistency, verify_consistency
from safehold.trust.log.note import SigningKey
from safehold.trust.log.tiles import Frontier, TileReader

MIN_NEW_LEAVES = 1000
"""How many leaves must have come since the last snapshot before another one is worth its cost."""
ON_THE_WAY = 5000
"""How many leaves of one replay are worth a snapshot before its end: some seconds of work."""
_SHARE = 4
"""On the way one is kept when a quarter of the leaves are newer than the last: all of them cost
four times the last, and a kill costs a quarter of the work at most."""
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

    def load(self, book: LogBook) -> tuple[TrustState, Frontier] | None:
        """Return the state and the tree of the leaves that it took in; None: replay them all."""
        try:
            # 1. Signed by this reader's own key, and of this very code.
            image = self._read()
            if image is None or image.code != code_digest():
                return None
            # 2. Of this log, under this founding.
            if (image.origin, image.founding_pin) != (book.keys.origin, book.keys.founding):
                return None
            # 3. Of a beginning of the signed tree.
            taken = _beginning(book, image.size, image.root)
            state = TrustState.of_members(image.origin, image.founding_pin, image.members)
            state.cases = Cases.unpacked(image.live, image.settled)
        except (TrustError, msgspec.DecodeError, msgspec.ValidationError):
            return None
        self._size = image.size
        return state, taken

    def is_due(self, size: int, since: int, *, done: bool = False) -> bool:
        """Tell whether a replay from leaf `since` to `size` is worth one, on its way or `done`."""
        return size - since >= (MIN_NEW_LEAVES if done else max(ON_THE_WAY, size // _SHARE))

    def keep(self, state: TrustState, taken: Frontier, book: LogBook) -> None:
        """Write a snapshot that is worth it; a disk that refuses costs only the shortcut.

        Settled cases of the state are packed by it.

        Args:
            state: What replaying gave.
            taken: The tree of the leaves that were replayed, hashed as they were read.
            book: The log. What it has not published yet, or signs otherwise, is not kept.
        """
        if taken.size - self._size < MIN_NEW_LEAVES:
            return
        root = taken.root()
        try:
            _beginning(book, taken.size, root)
        except TrustError:
            return
        live, settled = state.cases.pack(state.last_time)
        image = _Image(
            origin=state.origin,
            size=taken.size,
            root=root,
            founding_pin=state.founding_pin,
            code=code_digest(),
            members=state.members(),
            live=live,
            settled=settled,
        )
        data = msgspec.msgpack.encode(image)
        self._size = taken.size
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


def _beginning(book: LogBook, size: int, root: bytes) -> Frontier:
    """Return the tree of a log's first leaves, if that has the root and the signed tree goes on it.

    Raises:
        TrustError: it has not, or the signed tree has fewer leaves.
    """
    head = book.checkpoint()
    reader = TileReader(book.source, head)
    verify_consistency(prove_consistency(size, head.size, reader.node), root, head.root)
    begun = Frontier.of(reader, size)
    if begun.root() != root:
        raise LogTamperError("the tiles do not have the root of the signed tree's beginning")
    return begun


@cache
def code_digest() -> str:
    """Return the digest of the code that judges: another version may judge otherwise."""
    digest = hashlib.sha256()
    root = Path(safehold.trust.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
