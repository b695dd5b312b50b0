"""Similarity to known attacks: a hot patch for a text that will come back slightly changed.

A known text is the set of its character 5-grams (Broder, "On the resemblance and containment of
documents", 1997), folded for case, width, marks and spacing. A text is similar where one stretch of
it, about as long as the known one, holds at least a given share of that set. Containment in a
stretch and not in the whole, so that neither a long wrapper dilutes a copy nor a long text collects
enough 5-grams by being long.

Known texts share one inverted index of grams for each class of length, so a text is read once for
all of them; only those that a block of it could be similar to are then compared with it. A sieve of
all grams comes before: a text with fewer of them than the least that any known text asks for is
like none, and of a growing text only what is new is sieved.
"""

import re
import unicodedata
from collections import deque
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from safehold.errors import ConfigError

_LEAST_LIKE = 0.3
"""Below, everything is similar."""

GRAM = 5
"""Characters of a gram."""
LEAST_CHARS = 60
"""A shorter known text would be similar to ordinary ones; write a pattern for it."""
MOST_CHARS = 4000
MOST_TEXTS = 20_000
_STRETCH = 1.3
"""Length of the compared stretch over that of the known text."""
_CANDIDATES = 16
_BETWEEN = re.compile(r"[\W_]+")
_BLANKS = re.compile(r" {2,}")
_FOLDED = "".join(chr(code).lower() if chr(code).isalnum() else " " for code in range(128))
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_PRIME_TWICE = np.uint64(0x9E3779B97F4A7C15**2 & (1 << 64) - 1)
_PACKED = np.uint64((1 << 8 * GRAM) - 1)
_SIEVE_BITS = (16, 24)

Grams = npt.NDArray[np.uint64]


class KnownAttack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A known text and the clause it offends; `at_least` is the share of it that is too much."""

    id: str
    clause: str
    text: str
    at_least: float = 0.5


class KnownAttacks:
    """Known texts, compared one after another."""

    def __init__(self, attacks: Sequence[KnownAttack]) -> None:
        """Fold and hash the texts.

        Raises:
            ConfigError: A text is too short or too long, a share is not from 0.3 to 1, or there
                are too many.
        """
        if len(attacks) > MOST_TEXTS:
            raise ConfigError(f"expected at most {MOST_TEXTS} known attacks, came {len(attacks)}")
        known = tuple(_Known(attack, place) for place, attack in enumerate(attacks))
        self.look_back = max((one.stretch for one in known), default=0) + GRAM
        """Folded characters before new text that a comparison needs to see again."""
        self._sieve = _Sieve(known)
        self.least = min((one.needed for one in known), default=0.0)
        """Grams of known texts below which a text is like none of them."""
        classes: dict[int, list[_Known]] = {}
        for one in known:
            classes.setdefault(one.stretch.bit_length(), []).append(one)
        self._indexes = tuple(_Index(group) for _, group in sorted(classes.items()))

    def search(self, text: str) -> KnownAttack | None:
        """Return the first known attack that a stretch of the text is similar to."""
        return self.search_folded(folded(text))

    def search_folded(self, text: str) -> KnownAttack | None:
        """Return the same for a text that is folded already."""
        found = self.every_folded(text)
        return found[0] if found else None

    def every(self, text: str) -> tuple[KnownAttack, ...]:
        """Return every known attack that a stretch of the text is similar to, in their order."""
        return self.every_folded(folded(text))

    def every_folded(self, text: str) -> tuple[KnownAttack, ...]:
        """Return the same for a text that is folded already."""
        if self.sieved(text) < self.least:
            return ()
        found = grams(text)
        near = [one for index in self._indexes for one in index.within(found)]
        return tuple(one.attack for one in sorted(near, key=lambda one: one.place))

    def sieved(self, text: str) -> int:
        """Return how many grams of a folded text known texts hold, or a few more."""
        return self._sieve.count(text)


class _Sieve:
    """Which grams any known text holds, by a hash: it may let others through, and keeps none back.

    An ASCII text's grams are packed into numbers instead of hashed, which is several times faster.
    """

    __slots__ = ("_ascii", "_other", "_shift")

    def __init__(self, known: Sequence["_Known"]) -> None:
        size = 16 * sum(len(one.grams) for one in known)
        least, most = _SIEVE_BITS
        bits = min(most, max(least, size.bit_length()))
        self._shift = np.uint64(64 - bits)
        self._ascii = np.zeros(1 << bits, dtype=bool)
        self._other = np.zeros(1 << bits, dtype=bool)
        for one in known:
            # What is not ASCII becomes a question mark, which no folded text holds.
            self._ascii[
                self._places(_packed(folded(one.attack.text).encode("ascii", "replace")))
            ] = True
            self._other[self._places(one.grams)] = True

    def _places(self, found: Grams) -> Grams:
        return (found * _PRIME) >> self._shift

    def count(self, text: str) -> int:
        if text.isascii():
            return int(np.count_nonzero(self._ascii[self._places(_packed(text.encode()))]))
        return int(np.count_nonzero(self._other[self._places(grams(text))]))


class _Index:
    """Known texts of about one length: which of them hold a gram."""

    def __init__(self, known: Sequence["_Known"]) -> None:
        self._known = tuple(known)
        grams_of = np.concatenate([one.grams for one in known])
        owners = np.repeat(np.arange(len(known)), [len(one.grams) for one in known])
        order = np.argsort(grams_of, kind="stable")
        self._owners = owners[order]
        self._keys, self._first = np.unique(grams_of[order], return_index=True)
        self._last = np.append(self._first[1:], len(grams_of))
        self._needed = np.array([one.needed for one in known])
        self._stretch = max(one.stretch for one in known)

    def within(self, found: Grams) -> list["_Known"]:
        """Return the known texts that a stretch of the text is similar to."""
        at = np.searchsorted(self._keys, found)
        at[at == len(self._keys)] = 0
        ours = self._keys[at] == found
        near: dict[int, _Known] = {}
        # Every stretch lies whole in one of the blocks, each of which overlaps the next by one.
        for start in range(0, max(1, len(found) - self._stretch), self._stretch):
            block = slice(start, start + 2 * self._stretch)
            rows = np.unique(at[block][ours[block]])
            if not len(rows):
                continue
            sizes = self._last[rows] - self._first[rows]
            ends = np.cumsum(sizes)
            places = np.arange(ends[-1]) + np.repeat(self._first[rows] - (ends - sizes), sizes)
            counts = np.bincount(self._owners[places], minlength=len(self._known))
            for number in np.flatnonzero(counts >= self._needed).tolist():
                if number not in near and self._known[number].within(found[block]):
                    near[number] = self._known[number]
        return list(near.values())


class _Known:
    """One known text, ready to compare; `place` is its place in the list."""

    def __init__(self, attack: KnownAttack, place: int) -> None:
        text = folded(attack.text)
        if not LEAST_CHARS <= len(text) <= MOST_CHARS:
            raise ConfigError(
                f"known attack {attack.id}: expected {LEAST_CHARS} to {MOST_CHARS} letters, digits "
                f"and spaces, came {len(text)}"
            )
        if not _LEAST_LIKE <= attack.at_least <= 1:
            raise ConfigError(f"known attack {attack.id}: at_least must be from 0.3 to 1")
        self.attack = attack
        self.place = place
        self.grams = np.unique(grams(text))
        self.needed = attack.at_least * len(self.grams)
        self.stretch = int(len(text) * _STRETCH)

    def within(self, found: Grams) -> bool:
        """Say whether a stretch of the text holds enough distinct grams of the known one."""
        if len(found) < self.needed:
            return False
        at = np.searchsorted(self.grams, found)
        at[at == len(self.grams)] = 0
        sums = np.concatenate([[0], np.cumsum(self.grams[at] == found)])
        width = min(self.stretch, len(found))
        counts = sums[width:] - sums[:-width]
        # Repeats count above: the best few stretches are counted again without them.
        for _ in range(_CANDIDATES):
            start = int(counts.argmax())
            if counts[start] < self.needed:
                return False
            own = np.unique(found[start : start + width])
            if len(np.intersect1d(own, self.grams, assume_unique=True)) >= self.needed:
                return True
            counts[max(0, start - width // 4) : start + width // 4 + 1] = 0
        return False


class KnownStream:
    """Known attacks over a growing text: each comparison sees the new text and one stretch back."""

    __slots__ = ("_attacks", "_chars", "_fresh", "_hits", "_parts", "_tail")

    _EVERY = 48

    def __init__(self, attacks: KnownAttacks) -> None:
        self._attacks = attacks
        self._tail = ""
        self._fresh = ""
        self._parts: deque[tuple[int, int]] = deque()
        self._chars = self._hits = 0
        """Characters of the parts that a comparison would see, and grams that known texts hold."""

    @property
    def pending(self) -> int:
        """Characters that were fed and not compared yet."""
        return len(self._fresh)

    def feed(self, text: str) -> KnownAttack | None:
        """Return a known attack that the text so far has become similar to."""
        found = self.feed_every(text)
        return found[0] if found else None

    def finish(self) -> KnownAttack | None:
        """Compare what is still to be compared."""
        found = self.finish_every()
        return found[0] if found else None

    def feed_every(self, text: str) -> tuple[KnownAttack, ...]:
        """Return every known attack that the text so far has become similar to."""
        self._fresh += text
        return self._compare() if len(self._fresh) >= self._EVERY else ()

    def finish_every(self) -> tuple[KnownAttack, ...]:
        """Compare what is still to be compared, with all of them."""
        return self._compare() if self._fresh else ()

    def _compare(self) -> tuple[KnownAttack, ...]:
        fresh, self._fresh = _folded(self._fresh), ""
        if self._tail.endswith(" "):
            fresh = fresh.lstrip()
        before = self._tail
        self._tail = (before + fresh)[-self._attacks.look_back :]
        hits = self._attacks.sieved(before[1 - GRAM :] + fresh)
        self._parts.append((len(fresh), hits))
        self._chars += len(fresh)
        self._hits += hits
        while self._chars - self._parts[0][0] >= self._attacks.look_back + len(fresh):
            chars, old = self._parts.popleft()
            self._chars -= chars
            self._hits -= old
        if self._hits < self._attacks.least:
            return ()
        return self._attacks.every_folded(before + fresh)


def folded(text: str) -> str:
    """Return the letters and digits of a text in lower case, runs of anything else as one space."""
    return _folded(text).strip()


def _folded(text: str) -> str:
    if text.isascii():
        plain = text.translate(_FOLDED)
        return _BLANKS.sub(" ", plain) if "  " in plain else plain
    return _BETWEEN.sub(" ", unicodedata.normalize("NFKC", text).casefold())


def grams(text: str) -> Grams:
    """Return a hash of every character 5-gram of a text, in order."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    if len(codes) < GRAM:
        return np.zeros(0, dtype=np.uint64)
    one = codes.astype(np.uint64)
    two = one[:-1] * _PRIME + one[1:]
    four = two[:-2] * _PRIME_TWICE + two[2:]
    found: Grams = four[:-1] * _PRIME + one[4:]
    return found


def _packed(text: bytes) -> Grams:
    """Return every 5-gram of an ASCII text as a number, in order."""
    count = max(0, len(text) - GRAM + 1)
    wide = np.ndarray((count,), np.uint64, text + bytes(8 - GRAM), 0, (1,))
    return wide & _PACKED
