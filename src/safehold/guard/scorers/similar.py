"""Similarity to known attacks: a hot patch for a text that will come back slightly changed.

A known text is the set of its character 5-grams (Broder, "On the resemblance and containment of
documents", 1997), folded for case, width, marks and spacing. A text is similar where one stretch of
it, about as long as the known one, holds at least a given share of that set. Containment in a
stretch and not in the whole, so that neither a long wrapper dilutes a copy nor a long text collects
enough 5-grams by being long. Time is linear in the text for each known text.
"""

import re
import unicodedata
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from safehold.errors import ConfigError

GRAM = 5
"""Characters of a gram."""
LEAST_CHARS = 60
"""A shorter known text would be similar to ordinary ones; write a pattern for it."""
MOST_CHARS = 4000
MOST_TEXTS = 500
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
        self._known = tuple(_Known(attack) for attack in attacks)
        self.look_back = max((known.stretch for known in self._known), default=0) + GRAM
        """Folded characters before new text that a comparison needs to see again."""

    def search(self, text: str) -> KnownAttack | None:
        """Return the first known attack that a stretch of the text is similar to."""
        return self.search_folded(folded(text))

    def search_folded(self, text: str) -> KnownAttack | None:
        """Return the same for a text that is folded already."""
        found = grams(text)
        for known in self._known:
            if known.within(found):
                return known.attack
        return None


class _Known:
    """One known text, ready to compare."""

    def __init__(self, attack: KnownAttack) -> None:
        text = folded(attack.text)
        if not LEAST_CHARS <= len(text) <= MOST_CHARS:
            raise ConfigError(
                f"known attack {attack.id}: expected {LEAST_CHARS} to {MOST_CHARS} letters, digits "
                f"and spaces, came {len(text)}"
            )
        if not 0.3 <= attack.at_least <= 1:  # noqa: PLR2004 - below, everything is similar
            raise ConfigError(f"known attack {attack.id}: at_least must be from 0.3 to 1")
        self.attack = attack
        self._grams = np.unique(grams(text))
        self._needed = attack.at_least * len(self._grams)
        self.stretch = int(len(text) * _STRETCH)

    def within(self, found: Grams) -> bool:
        """Say whether a stretch of the text holds enough distinct grams of the known one."""
        if len(found) < self._needed:
            return False
        at = np.searchsorted(self._grams, found)
        at[at == len(self._grams)] = 0
        sums = np.concatenate([[0], np.cumsum(self._grams[at] == found)])
        width = min(self.stretch, len(found))
        counts = sums[width:] - sums[:-width]
        # Repeats count above: the best few stretches are counted again without them.
        for _ in range(_CANDIDATES):
            start = int(counts.argmax())
            if counts[start] < self._needed:
                return False
            own = np.unique(found[start : start + width])
            if len(np.intersect1d(own, self._grams, assume_unique=True)) >= self._needed:
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
        self._fresh += text
        return self._compare() if len(self._fresh) >= self._EVERY else None

    def finish(self) -> KnownAttack | None:
        """Compare what is still to be compared."""
        return self._compare() if self._fresh else None

    def _compare(self) -> KnownAttack | None:
        fresh, self._fresh = _folded(self._fresh), ""
        window = self._tail + (fresh.lstrip() if self._tail.endswith(" ") else fresh)
        self._tail = window[-self._attacks.look_back :]
        return self._attacks.search_folded(window)


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
