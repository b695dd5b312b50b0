"""Similarity to known attacks: a hot patch for a text that will come back slightly changed.

A known text is the set of its character 5-grams (Broder, "On the resemblance and containment of
documents", 1997), folded for case, width, marks and spacing. A text is similar where one stretch of
it, about as long as the known one, holds at least a given share of that set. Containment in a
stretch and not in the whole, so that neither a long wrapper dilutes a copy nor a long text collects
enough 5-grams by being long.

Known texts share one inverted index of grams for each class of length, so a text is read once for
all of them; only those that a block of it could be similar to are then compared with it.
"""

import re
import unicodedata
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
_PRIME = np.uint64(0x9E3779B97F4A7C15)

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
        found = grams(text)
        near = [one for index in self._indexes for one in index.within(found)]
        return tuple(one.attack for one in sorted(near, key=lambda one: one.place))


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

    __slots__ = ("_attacks", "_fresh", "_tail")

    _EVERY = 48

    def __init__(self, attacks: KnownAttacks) -> None:
        self._attacks = attacks
        self._tail = ""
        self._fresh = ""

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
        window = self._tail + (fresh.lstrip() if self._tail.endswith(" ") else fresh)
        self._tail = window[-self._attacks.look_back :]
        return self._attacks.every_folded(window)


def folded(text: str) -> str:
    """Return the letters and digits of a text in lower case, runs of anything else as one space."""
    return _folded(text).strip()


def _folded(text: str) -> str:
    return _BETWEEN.sub(" ", unicodedata.normalize("NFKC", text).casefold())


def grams(text: str) -> Grams:
    """Return a hash of every character 5-gram of a text, in order."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    count = max(0, len(codes) - GRAM + 1)
    found: Grams = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(GRAM):
            found = found * _PRIME + codes[offset : offset + count].astype(np.uint64)
    return found
