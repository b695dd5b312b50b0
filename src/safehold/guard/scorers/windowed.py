"""Stage 1: a streaming linear scorer on the *set* of n-grams in a sliding window.

Features of a window of `WINDOW` tokens: the distinct character n-grams of 3 to 5 of its words, and
its distinct words and neighbouring pairs, hashed into one table. Each half is divided by the root
of its number of features, so that a text can't reach a score by repeating itself or by being long:
a token that comes again adds nothing, one that leaves takes its share along. The score of a text is
its hottest window's. A prompt is there whole: its windows are full ones, or all of a shorter text.
A reply grows: each of its tokens ends a window, and one that is not full yet is damped.
"""

import array
import math
import zlib
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

WINDOW: Final = 96
"""Tokens that are scored together."""
_CACHE_WORDS: Final = 50_000
_STEP: Final = 8
"""Tokens from one window of a prompt to the next."""
_FRESH: Final = 4096
"""Tokens after which the running sums are made anew, so that rounding can't add up."""

Weights = npt.NDArray[np.float32]


class WindowHead(msgspec.Struct, frozen=True):
    """The weights of one surface: a table with a power of two of rows, a bias, a least window.

    A window of fewer than `floor` tokens is divided as if it had `floor` of them.
    """

    table: Weights
    bias: float
    floor: int


def word_rows(word: str, mask: int) -> tuple[int, tuple[int, ...]]:
    """Return the table row of a token as a word, and the distinct rows of its n-grams."""
    padded = f" {word} ".encode()
    grams = {
        zlib.crc32(padded[start : start + size]) & mask
        for size in (3, 4, 5)
        for start in range(len(padded) - size + 1)
    }
    return zlib.crc32(b"w" + word.encode()) & mask, tuple(sorted(grams))


def pair_row(previous: str, word: str, mask: int) -> int:
    """Return the table row of a token behind another."""
    return zlib.crc32(f"b{previous} {word}".encode()) & mask


class WindowScorer:
    """A stream scorer with one head for prompts and one for replies."""

    def __init__(self, name: str, prompt: WindowHead, reply: WindowHead, clause: str) -> None:
        """Take the heads; `clause` is reported when the scorer alone must name one."""
        self.name = name
        self.reply_head = reply
        self._prompt = _CompiledWindow(prompt)
        self._reply = _CompiledWindow(reply)
        self._clause = clause

    def with_prompt(self, head: WindowHead) -> "WindowScorer":
        """Return the scorer with another head for prompts."""
        return WindowScorer(self.name, head, self.reply_head, self._clause)

    def open_prompt(self) -> "WindowLane":
        """Start scoring prompt text."""
        return WindowLane(self._prompt, self._clause, whole=True)

    def open_reply(self) -> "WindowLane":
        """Start scoring a lane of a reply."""
        return WindowLane(self._reply, self._clause, whole=False)


class _CompiledWindow:
    """A head with its table as a list of floats (fast to index) and a bounded word cache."""

    __slots__ = ("_cache", "bias", "floor", "mask", "table")

    def __init__(self, head: WindowHead) -> None:
        rows = len(head.table)
        if rows == 0 or rows & (rows - 1):
            raise ValueError(f"a weight table needs a power of two of rows, got {rows}")
        self.table = array.array("f", head.table.astype(np.float32).tobytes())
        self.mask = rows - 1
        self.bias = head.bias
        self.floor = head.floor
        self._cache: dict[str, tuple[int, tuple[int, ...]]] = {}

    def word(self, word: str) -> tuple[int, tuple[int, ...]]:
        found = self._cache.get(word)
        if found is None:
            found = word_rows(word, self.mask)
            if len(self._cache) >= _CACHE_WORDS:
                self._cache.clear()
            self._cache[word] = found
        return found


class WindowLane:
    """One lane's running state: the window's features, how often each is in it, and their sums."""

    __slots__ = (
        "_clause",
        "_fresh",
        "_grams",
        "_head",
        "_previous",
        "_sums",
        "_whole",
        "_window",
        "_words",
    )

    def __init__(self, head: _CompiledWindow, clause: str, *, whole: bool) -> None:
        self._whole = whole
        self._head = head
        self._clause = clause
        self._window: deque[tuple[tuple[int, int], tuple[int, ...]]] = deque()
        self._grams: dict[int, int] = {}
        self._words: dict[int, int] = {}
        self._sums = [0.0, 0.0]
        self._previous = "^"
        self._fresh = 0

    def feed(self, tokens: Sequence[str]) -> float:
        """Score the next tokens; return the highest logit of a window that ends among them."""
        head, window = self._head, self._window
        best = -math.inf
        for token in tokens:
            word, grams = head.word(token)
            own = (word, pair_row(self._previous, token, head.mask))
            self._previous = token
            window.append((own, grams))
            self._enter(self._words, own, 1)
            self._enter(self._grams, grams, 0)
            if len(window) > WINDOW:
                old, old_grams = window.popleft()
                self._leave(self._words, old, 1)
                self._leave(self._grams, old_grams, 0)
            self._fresh += 1
            if self._fresh >= _FRESH:
                self._refresh()
            if not self._whole or (len(window) == WINDOW and self._fresh % _STEP == 0):
                best = max(best, self._logit())
        if self._whole and tokens:
            best = max(best, self._logit())
        return best

    def attribution(self) -> str:
        """Name the restricted clause that is reported."""
        return self._clause

    def _logit(self) -> float:
        """Return the window's logit; a short one is divided as a window of `floor` tokens."""
        short = math.sqrt(min(1.0, len(self._window) / self._head.floor))
        grams, words = len(self._grams), len(self._words)
        halves = (self._sums[0] / math.sqrt(grams or 1)) + (self._sums[1] / math.sqrt(words or 1))
        return self._head.bias + short * halves

    def _enter(self, counts: dict[int, int], rows: Sequence[int], half: int) -> None:
        table = self._head.table
        for row in rows:
            seen = counts.get(row, 0)
            counts[row] = seen + 1
            if not seen:
                self._sums[half] += table[row]

    def _leave(self, counts: dict[int, int], rows: Sequence[int], half: int) -> None:
        table = self._head.table
        for row in rows:
            left = counts[row] - 1
            if left:
                counts[row] = left
            else:
                del counts[row]
                self._sums[half] -= table[row]

    def _refresh(self) -> None:
        table = self._head.table
        self._fresh = 0
        self._sums = [
            math.fsum(table[row] for row in counts) for counts in (self._grams, self._words)
        ]
