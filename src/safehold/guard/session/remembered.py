"""What texts of a conversation scored, so that its next turn scores only what is new.

A text's score is a function of the text and the bundle, so the verdict is the same with and without
a memory. What is kept is numbers under a digest, never a text. The digest is keyed by a secret of
this process and covers the bundle, the policy and the account: nothing that one key sent is ever
found by another, and nobody can tell from the time it takes what others have sent.
"""

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from safehold.exchange import Turn
from safehold.guard.interface import Scored, SessionPolicy

MAX_BYTES = 64 * 2**20
"""How much a process keeps of all accounts; what was not used for longest goes first."""
_ENTRY_BYTES, _NUMBER_BYTES = 320, 32
_DIGEST_BYTES = 16
_HISTORY: Final = b"h"
_BEGINNINGS = 8
"""How many turns more than the last one a request may bring for its history to be known."""
_encoded = msgspec.msgpack.Encoder().encode


class TextScores(msgspec.Struct, frozen=True):
    """What a text that no written rule hit scored: each view's length, and its pieces' logits.

    `coded` says whether a view of it asks for an answer in a code.
    """

    sizes: tuple[int, ...]
    logits: tuple[tuple[float, ...], ...]
    coded: bool = False


class PastScores(msgspec.Struct, frozen=True):
    """What the first turns of a conversation scored, none of which a written rule hit.

    `hot` are the turns that are worth a second look, each of which is looked up by its own texts;
    `coded` says whether one that is no answer asks for an answer in a code.
    """

    turns: int
    hottest: float | None
    hot: tuple[int, ...]
    coded: bool = False


Value = TextScores | PastScores | Scored


class ScoreMemory:
    """What every account's texts scored, in one process; safe to use from several threads."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """Begin without any."""
        self._secret = secrets.token_bytes(32)
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, Value] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, bundle: str, policy: SessionPolicy, account: str) -> "AccountMemory":
        """Return what one account's texts scored under one bundle and policy."""
        return AccountMemory(self, self._secret, bundle, policy, account)

    @property
    def size(self) -> int:
        """About how many bytes are kept."""
        return self._bytes

    def get(self, name: bytes) -> Value | None:
        """Return what is kept under a name."""
        with self._lock:
            found = self._kept.get(name)
            if found is not None:
                self._kept.move_to_end(name)
            return found

    def put(self, name: bytes, value: Value) -> None:
        """Keep a value; the longest unused make room."""
        with self._lock:
            old = self._kept.pop(name, None)
            if old is not None:
                self._bytes -= _size(old)
            self._kept[name] = value
            self._bytes += _size(value)
            while self._bytes > self._max_bytes:
                _, gone = self._kept.popitem(last=False)
                self._bytes -= _size(gone)


class AccountMemory:
    """What the texts of one account scored, under one bundle and policy."""

    __slots__ = ("_begun", "_memory")

    def __init__(
        self, memory: ScoreMemory, secret: bytes, bundle: str, policy: SessionPolicy, account: str
    ) -> None:
        self._memory = memory
        self._begun = hashlib.blake2b(key=secret, digest_size=_DIGEST_BYTES)
        for part in (bundle.encode(), repr(policy).encode(), account.encode("utf-8", "replace")):
            self._begun.update(len(part).to_bytes(8, "big") + part)

    def name(self, kind: bytes, text: str) -> bytes:
        """Return the name of a text as one of a kind, such as what stage 2 read."""
        digest = self._begun.copy()
        digest.update(kind + text.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def scores(self, name: bytes) -> TextScores | None:
        """Return what a text scored."""
        found = self._memory.get(name)
        return found if isinstance(found, TextScores) else None

    def answer(self, name: bytes) -> Scored | None:
        """Return what stage 2 said of a text."""
        found = self._memory.get(name)
        return found if isinstance(found, Scored) else None

    def beginnings(self, turns: Sequence[Turn]) -> list[bytes]:
        """Return the names of a conversation's beginnings, the whole of it first.

        None where a text is no Unicode: nothing is known of such a history.
        """
        digest = self._begun.copy()
        digest.update(_HISTORY)
        try:
            early = max(0, len(turns) - _BEGINNINGS)
            digest.update(b"".join(map(_encoded, turns[:early])))
            names = [digest.copy().digest()] if early else []
            for turn in turns[early:]:
                digest.update(_encoded(turn))
                names.append(digest.copy().digest())
        except UnicodeEncodeError:
            return []
        return names[::-1]

    def past(self, names: Sequence[bytes]) -> PastScores | None:
        """Return what the longest beginning that is known scored."""
        for name in names:
            found = self._memory.get(name)
            if isinstance(found, PastScores):
                return found
        return None

    def keep(self, name: bytes, value: Value) -> None:
        """Keep what a text scored."""
        self._memory.put(name, value)


def _size(value: Value) -> int:
    if isinstance(value, Scored):
        return _ENTRY_BYTES
    if isinstance(value, PastScores):
        return _ENTRY_BYTES + _NUMBER_BYTES * len(value.hot)
    return _ENTRY_BYTES + _NUMBER_BYTES * (len(value.sizes) + sum(map(len, value.logits)))
