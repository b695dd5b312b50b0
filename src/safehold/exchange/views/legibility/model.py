"""A character model of orders 1 to 4 over many languages, scripts, code and data.

Interpolated n-gram counts in four hashed tables of bytes; a byte is a count on a log scale. Digits
are one character to it: numbers are plausible anywhere. It says how many bits each character is
worth behind the three before it. Its text and its making: `scripts/make_legibility.py`.
"""

import functools
from importlib import resources
from typing import Final

import numpy as np
import numpy.typing as npt

ORDERS: Final = 4
BITS: Final = 20
SCALE: Final = 10.0
"""Steps of a stored byte for each doubling of a count."""
MOST_BITS: Final = 14.0
"""What one character can be worth at most."""
CONTEXT: Final = ORDERS - 1
_LAMBDA: Final = (0.5, 1.0, 2.0)
_UNSEEN: Final = 0.02
_ALPHABET: Final = 60_000

Codes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Tables = npt.NDArray[np.uint8]

_P: Final = np.uint64(0x9E3779B97F4A7C15)
_Q: Final = np.uint64(0xBF58476D1CE4E5B9)
_R: Final = np.uint64(0x94D049BB133111EB)


def codes(text: str) -> Codes:
    """Return a text's code points, every digit as one."""
    found = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
    return np.where((found >= 48) & (found <= 57), np.uint64(48), found)


def rows(points: Codes, bits: int = BITS) -> list[npt.NDArray[np.int64]]:
    """Return for each order the row, of 2^bits, of the n-gram that ends at each character."""
    mask = np.uint64((1 << bits) - 1)
    base = (points + np.uint64(1)) * _P
    base ^= base >> np.uint64(29)
    running = np.zeros(len(points), np.uint64)
    found = []
    for order in range(1, ORDERS + 1):
        shifted = np.zeros(len(points), np.uint64)
        shifted[order - 1 :] = base[: len(points) - order + 1]
        running = running * _Q + shifted + np.uint64(order)
        mixed = (running ^ (running >> np.uint64(31))) * _R
        mixed ^= mixed >> np.uint64(30)
        found.append((mixed & mask).astype(np.int64))
    return found


class CharacterModel:
    """Gives each character of a text its bits."""

    def __init__(self, tables: Tables, total: float) -> None:
        """Take the tables [orders, rows] and the number of characters they were counted over.

        Raises:
            ValueError: The tables have another shape.
        """
        if tables.shape != (ORDERS, 1 << BITS):
            raise ValueError(f"expected tables of shape {(ORDERS, 1 << BITS)}, got {tables.shape}")
        self._tables = tables
        self._counts = (2.0 ** (np.arange(256) / SCALE) - 1.0).round()
        self._total = total

    def bits(self, text: str, before: str = "") -> Floats:
        """Return the bits of each character; `before` is what stands in front of the text."""
        if not text:
            return np.zeros(0)
        context = ("\n" * CONTEXT + before)[-CONTEXT:]
        points = codes(context + text)
        where = rows(points)
        seen = [self._counts[table[row]] for table, row in zip(self._tables, where, strict=True)]
        chance = (seen[0] + _UNSEEN) / (self._total + _UNSEEN * _ALPHABET)
        for order in range(1, ORDERS):
            context_seen = np.concatenate(([0.0], seen[order - 1][:-1]))
            own = np.minimum(seen[order], context_seen)
            weight = _LAMBDA[order - 1]
            chance = (own + weight * chance) / (context_seen + weight)
        same = points[1:] == points[:-1]
        run = same[CONTEXT - 1 :] & same[CONTEXT - 2 : -1]  # the third of a run says nothing new
        bits: Floats = np.minimum(-np.log2(chance[CONTEXT:]), MOST_BITS)
        return np.where(run, 0.0, bits)


@functools.cache
def stock_model() -> CharacterModel:
    """Return the model that comes with the package; loaded once."""
    file = resources.files("safehold.exchange.views.legibility") / "characters.npz"
    with file.open("rb") as stream, np.load(stream) as stored:
        return CharacterModel(stored["tables"], float(stored["total"]))
