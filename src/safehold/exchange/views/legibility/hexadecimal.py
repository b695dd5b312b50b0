"""Hexadecimal that is text under a key: bytes below 128 all through, and no view reads them.

Digests, keys and compressed data have as many bytes above as below; text that is XORed with a word
has none. The model of characters can't tell: digits have no language.
"""

import re
from typing import Final

from safehold.exchange.views.plausibility import text_of

LEAST: Final = 48
"""Digits of a run from which it is judged."""
_KEPT: Final = 512
"""Characters before the next ones that are looked at again: a run is known by its last digits."""
_RUN: Final = re.compile(
    rf"(?:[0-9A-Fa-f]{{2}}(?:[\s,:;\-]{{1,2}}(?:0x)?|0x|\\x|%)?){{{LEAST // 2},}}"
)
_BESIDE: Final = re.compile(r"0x|[^0-9A-Fa-f]")
_LOW: Final = frozenset("01234567")
_BELOW: Final = 0.85
"""Share of the bytes below 128, in either way to pair the digits."""
_LETTERS: Final = 0.05
"""The least share of letters among the digits: a table of decimal numbers has none."""


class Hexadecimal:
    """Looks for such runs in a growing text."""

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before = ""

    def feed(self, text: str, start: int) -> list[tuple[int, int]]:
        """Take the next characters, which begin at `start`; return the stretches found."""
        whole, first = self._before + text, start - len(self._before)
        self._before = whole[-_KEPT:]
        return [
            (first + match.start(), first + match.end())
            for match in _RUN.finditer(whole)
            if match.end() > start - first and _seven_bits(_BESIDE.sub("", match[0]))
        ]


def _seven_bits(digits: str) -> bool:
    if sum(map(str.isalpha, digits)) < _LETTERS * len(digits):
        return False
    return any(
        sum(one in _LOW for one in paired[0::2]) >= _BELOW * (len(paired) // 2)
        and text_of(bytes.fromhex(paired)) is None
        for paired in (digits[: len(digits) // 2 * 2], digits[1 : 1 + (len(digits) - 1) // 2 * 2])
    )
