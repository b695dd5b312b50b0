"""How English a text's letters are, from a built-in model of letter pairs.

The model is one table of 27 x 27 log-odds in bits (how much likelier a pair of letters is in
English than if letters were drawn evenly; row and column 0 are the gap between words). It was
counted on the English prose of the project's own permitted seed texts:
`bench/letter_pairs.py` prints it anew. English scores about 1.3 bits a letter, other languages in
Latin letters 0 to 1.2, rotated English about -1.6, random letters below -1.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint8]

LETTERS = 26
GAP = 0

_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_STEP, _ZERO = 5.2, 7.0
_TABLE = """
AtonlgmhkpVZkmholRirucYoJdK
uHglkMafKkLfqjwAhCsqtceXPkR
mteLAzAAApOJqAHwAAseQqUAAnA
qtAYAtAAwlArmaAwCJlRnlAAAZS
4oOIfuOcHpIAcMToJAmkLeOLCdG
1oPfolaaRcFUkfqRbHuqkScZXaP
0lAAApnNAtAEnAAwAAtEniAIAKA
1qAHJvEdsmAAmAcoAApjYkAAAUA
wuMAI2IADrAAVMQsBAiVjbAKAbA
ieXnlkgjDGAZpi0jdOkrwShCZAR
pzIXIsTIIgIITTdvIIIaI1ITIII
2fOOM0TgQrJFgXjZFAYqShAXAVA
wsSYmwdODsActVNsVAKiigXRAnJ
xvjDAyFNAtAAfiNsnAUfPjADAhA
0hJivsRrLjHcZMdnGAJlqfOHAbO
teYdfYpZVeFbmnvljAtinthmUPN
wtILEwRAjpAGrOItlArlfmAGAWA
mKKKKKKKVVKKVKKKKVVKg8VKVKK
0qVYixRaOqCcZfgrSAenjiYOAjO
3kIfNrAAnmAbcaWmiRMkviAbAQG
0mPWBtCAznAAcMMqJAkjheAfAdL
phijelVnIjIPpmtTmAwsvLPAPTI
dqAAA7AAAuAAGAAmAASLAGAAAWA
sxKAUvEAvyAEbAlrAAgcMEAAAQA
3mVgGrGGVqGGRGGRsGGGwGGGGkG
6XSbZqBUAdBAeaRuXAYnbFAUABB
xpSXS1HSHqHbhHSlHHHHbmHjHqo
"""


def _table(rows: Sequence[str]) -> Floats:
    return np.array([[_DIGITS.index(digit) / _STEP - _ZERO for digit in row] for row in rows])


_BITS = _table(_TABLE.split())
_FLAT = _BITS.ravel()
_BACKWARDS = (_BITS.T - _BITS).ravel()
_CODES = bytes(
    (code | 32) - ord("a") + 1 if chr(code).isalpha() and code < 128 else GAP for code in range(256)
)


def encode_table(texts: Iterable[str]) -> str:
    """Return the lines of a model counted on these texts."""
    counts = np.full((LETTERS + 1, LETTERS + 1), 0.3)
    for text in texts:
        codes = Letters(text).codes
        np.add.at(counts, (codes[:-1], codes[1:]), 1)
    bits = np.log2(counts / counts.sum(axis=1, keepdims=True) * (LETTERS + 1))
    digits = np.clip(np.round((bits + _ZERO) * _STEP), 0, len(_DIGITS) - 1).astype(int)
    return "\n".join("".join(_DIGITS[digit] for digit in row) for row in digits)


def _pairs(codes: Codes) -> npt.NDArray[np.intp]:
    wide = codes.astype(np.intp)
    return wide[:-1] * (LETTERS + 1) + wide[1:]


class Letters:
    """A text's ASCII letters as codes 1 … 26; each run of anything else is one gap (0).

    `codes` begins and ends with a gap; `at[i]` is the position in the text of code i.
    """

    def __init__(self, text: str) -> None:
        padded = f" {text} ".encode("ascii", "replace").translate(_CODES)
        codes = np.frombuffer(padded, dtype=np.uint8)
        keep = codes != GAP
        keep[1:] |= keep[:-1]  # the first of each run of gaps
        keep[0] = True
        at = np.flatnonzero(keep)
        self.codes: Codes = codes[at]
        if self.codes[-1] != GAP:
            self.codes, at = np.append(self.codes, np.uint8(GAP)), np.append(at, len(text) + 1)
        self.at = np.maximum(at - 1, 0)

    @cached_property
    def count(self) -> int:
        """The number of letters."""
        return int(np.count_nonzero(self.codes))

    @cached_property
    def singles(self) -> int:
        """The number of letters that stand alone beside others that do."""
        gaps = self.codes == GAP
        return int(np.count_nonzero(gaps[4:] & gaps[2:-2] & gaps[:-4]))

    @cached_property
    def bits(self) -> Floats:
        """Each pair's log-odds of being English."""
        return _FLAT[_pairs(self.codes)]

    def backwards_gain(self) -> Floats:
        """Return how much more English each pair would be if it were read backwards."""
        return _BACKWARDS[_pairs(self.codes)]

    def mean(self) -> float:
        """Return the mean of `bits`, and of no letters at all -9."""
        return self._mean

    @cached_property
    def _mean(self) -> float:
        return float(self.bits.mean()) if self.count else -9.0

    def beginnings(self) -> tuple[float, float]:
        """Return the mean log-odds of words' first pairs of letters, and of their other pairs."""
        codes, bits = self.codes, self.bits
        first = (codes[:-2] == GAP) & (codes[1:-1] != GAP)
        count = int(np.count_nonzero(first))
        if not count or count == len(first):
            return -9.0, -9.0
        total, part = float(bits[1:].sum()), float(bits[1:][first].sum())
        return part / count, (total - part) / (len(first) - count)


def likeness(text: str) -> float:
    """Return how English a text is: mean log-odds per pair, in bits; -9 without letters."""
    return Letters(text).mean()


def lowest_window(values: Floats, width: int) -> float:
    """Return the lowest mean of any `width` neighbours (of all, when there are fewer)."""
    if len(values) <= width:
        return float(values.mean()) if len(values) else 0.0
    sums = np.cumsum(values)
    return float((sums[width:] - sums[:-width]).min()) / width


def rotations(codes: Codes) -> Floats:
    """Return the mean log-odds of the text under each of the 26 letter rotations.

    Entry n is for letters moved n places up the alphabet, entry 0 for the text itself.
    """
    if len(codes) < 2:
        return np.full(LETTERS, -9.0)
    shifts = np.arange(LETTERS, dtype=np.int64)[:, None]
    moved = np.where(codes == GAP, GAP, (codes - 1 + shifts) % LETTERS + 1)
    means: Floats = _FLAT[moved[:, :-1] * (LETTERS + 1) + moved[:, 1:]].mean(axis=1)
    return means


def flipped(codes: Codes) -> Codes:
    """Return the letters with their alphabet reversed (atbash)."""
    return np.where(codes == GAP, GAP, LETTERS + 1 - codes).astype(np.uint8)


def mirrored(codes: Codes) -> float:
    """Return the mean log-odds of the text with its alphabet reversed (atbash)."""
    if len(codes) < 2:
        return -9.0
    return float(_FLAT[_pairs(flipped(codes))].mean())


def likeness_backwards(letters: Letters) -> float:
    """Return how English the letters are when read from their end."""
    return float(_FLAT[_pairs(letters.codes[::-1])].mean()) if letters.count else -9.0
