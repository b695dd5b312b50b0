"""Stage 1: a streaming linear scorer on hashed word and character n-grams.

Each token's logit is a sum of hashed weights: the word, its character n-grams of 3 to 5
(fastText's subwords: Bojanowski et al., TACL 5 (2017)), and its pairs with the two words before
it. Logits are smoothed by a sliding window mean and the running maximum is the score (SWiM,
Constitutional Classifiers++, arXiv 2601.04603, section 5.1); two window lengths let a short, dense
instruction and a long, thin one both show. A window that is not full yet is divided by at least
`floor` tokens, so one spike is never enough.
"""

import array
import zlib
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from safehold.guard.scorers.tokens import shape

WINDOWS: Final = (16, 64)
"""Lengths of the sliding windows, in tokens."""
_CACHE_WORDS: Final = 50_000

Weights = npt.NDArray[np.float32]


def word_features(word: str, mask: int) -> list[int]:
    """Return the table rows of a token alone: the word and its character n-grams."""
    rows = [zlib.crc32(b"w" + word.encode()) & mask]
    if word[0] != "<":
        padded = f"<{word}>".encode()
        rows += [
            zlib.crc32(padded[i : i + n]) & mask
            for n in (3, 4, 5)
            for i in range(len(padded) - n + 1)
        ]
    return rows


def pair_features(before: str, previous: str, word: str, mask: int) -> tuple[int, int]:
    """Return the table rows of a token's pairs with the two words before it."""
    tail = word.encode()
    return (
        zlib.crc32(tail, zlib.crc32(b"b" + previous.encode() + b" ")) & mask,
        zlib.crc32(tail, zlib.crc32(b"s" + before.encode() + b" ")) & mask,
    )


class NgramHead(msgspec.Struct, frozen=True):
    """The weights of one surface (prompt or reply).

    `table` has a power of two of rows; `mix` weighs the two window means into one logit, to which
    `offset` is added; `floor` is the least divisor of a window that is not full yet.
    """

    table: Weights
    bias: float
    mix: tuple[float, float]
    offset: float
    floor: int


class NgramScorer:
    """A stream scorer with one head for prompts and one for replies."""

    def __init__(self, name: str, prompt: NgramHead, reply: NgramHead, clause: str) -> None:
        """Take the heads; `clause` is reported when the scorer alone must name one."""
        self.name = name
        self._prompt = _Compiled(prompt)
        self._reply = _Compiled(reply)
        self._clause = clause

    def open_prompt(self) -> "NgramLane":
        """Start scoring prompt text."""
        return NgramLane(self._prompt, self._clause)

    def open_reply(self) -> "NgramLane":
        """Start scoring a lane of a reply."""
        return NgramLane(self._reply, self._clause)


class _Compiled:
    """A head with its table as a list of floats (fast to index) and a bounded word cache."""

    __slots__ = ("bias", "cache", "floor", "mask", "mix", "offset", "table")

    def __init__(self, head: NgramHead) -> None:
        rows = len(head.table)
        if rows == 0 or rows & (rows - 1):
            raise ValueError(f"a weight table needs a power of two of rows, got {rows}")
        self.table = array.array("f", head.table.astype(np.float32).tobytes())
        self.mask = rows - 1
        self.bias = head.bias
        self.mix = head.mix
        self.offset = head.offset
        self.floor = head.floor
        self.cache: dict[str, float] = {}

    def word(self, word: str) -> float:
        """Return the logit of a token alone, without its neighbours."""
        value = self.cache.get(word)
        if value is None:
            rows = word_features(word, self.mask)
            # The word counts fully, its character n-grams as their mean.
            grams = rows[1:]
            value = self.table[rows[0]] + (
                sum(self.table[row] for row in grams) / len(grams) if grams else 0.0
            )
            if len(self.cache) >= _CACHE_WORDS:
                self.cache.clear()
            self.cache[word] = value
        return value


class NgramLane:
    """One lane's running state: the last tokens' logits and two words of context."""

    __slots__ = (
        "_before",
        "_clause",
        "_count",
        "_head",
        "_long",
        "_long_sum",
        "_previous",
        "_short_sum",
    )

    def __init__(self, head: _Compiled, clause: str) -> None:
        self._head = head
        self._clause = clause
        self._count = 0
        self._before = "^"
        self._previous = "^"
        self._long: deque[float] = deque([0.0] * WINDOWS[1], maxlen=WINDOWS[1])
        self._long_sum = 0.0
        self._short_sum = 0.0

    def feed(self, tokens: Sequence[str]) -> float:
        """Score the next tokens; return the highest smoothed logit among them."""
        head = self._head
        table, mask, (mix_short, mix_long) = head.table, head.mask, head.mix
        window = self._long
        short, long = WINDOWS
        best = -np.inf
        for word in map(shape, tokens):
            pair, skip = pair_features(self._before, self._previous, word, mask)
            logit = head.bias + head.word(word) + table[pair] + table[skip]
            self._short_sum += logit - window[long - short]
            self._long_sum += logit - window[0]
            window.append(logit)
            self._count += 1
            seen = max(self._count, head.floor)
            score = mix_short * self._short_sum / min(seen, short)
            score += mix_long * self._long_sum / min(seen, long)
            best = max(best, score)
            self._before, self._previous = self._previous, word
        return float(best + head.offset)

    def attribution(self) -> str:
        """Name the restricted clause that is reported."""
        return self._clause
