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
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

WINDOW: Final = 96
"""Tokens that are scored together."""
_CACHE_WORDS: Final = 50_000
_CACHE_PAIRS: Final = 20_000
_STEP: Final = 8
"""Tokens from one window of a prompt to the next."""
_MANY: Final = 4
"""Windows of one text from which on they are summed together."""
_FRESH: Final = 4096
"""Tokens after which the running sums are made anew, so that rounding can't add up."""

Weights = npt.NDArray[np.float32]
_Numbers = npt.NDArray[Any]
_Entry = tuple[tuple[int, int], tuple[int, ...]]
"""A token's rows: of its word, of its pair with the word before, and of its n-grams."""


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

    __slots__ = ("_cache", "_pairs", "bias", "floor", "mask", "table")

    def __init__(self, head: WindowHead) -> None:
        rows = len(head.table)
        if rows == 0 or rows & (rows - 1):
            raise ValueError(f"a weight table needs a power of two of rows, got {rows}")
        self.table = array.array("f", head.table.astype(np.float32).tobytes())
        self.mask = rows - 1
        self.bias = head.bias
        self.floor = head.floor
        self._cache: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._pairs: dict[tuple[str, str], _Entry] = {}

    def word(self, word: str) -> tuple[int, tuple[int, ...]]:
        found = self._cache.get(word)
        if found is None:
            found = word_rows(word, self.mask)
            if len(self._cache) >= _CACHE_WORDS:
                self._cache.clear()
            self._cache[word] = found
        return found

    def entry(self, previous: str, token: str) -> _Entry:
        """Return a token's rows behind another one; the same few pairs come again and again."""
        found = self._pairs.get((previous, token))
        if found is None:
            word, grams = self.word(token)
            found = ((word, pair_row(previous, token, self.mask)), grams)
            if len(self._pairs) >= _CACHE_PAIRS:
                self._pairs.clear()
            self._pairs[previous, token] = found
        return found


def _before(rows: _Numbers, owner: _Numbers) -> _Numbers:
    """Return of each row which token had it before, -1 for none."""
    count = len(rows)
    bits = count.bit_length()
    keys = (rows << bits) | np.arange(count)
    keys.sort()  # by row, then by place: one sort of plain numbers
    places = keys & ((1 << bits) - 1)
    again = np.flatnonzero((keys[1:] >> bits) == (keys[:-1] >> bits))
    found = np.full(count, -1)
    found[places[again + 1]] = owner[places[again]]
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
        self._window: deque[_Entry] = deque()
        self._grams: dict[int, int] = {}
        self._words: dict[int, int] = {}
        self._sums = [0.0, 0.0]
        self._previous = "^"
        self._fresh = 0

    def feed(self, tokens: Sequence[str]) -> float:
        """Score the next tokens; return the highest logit of a window that ends among them."""
        if self._whole:
            return self._whole_text(tokens)
        head, window = self._head, self._window
        best = -math.inf
        for token in tokens:
            own, grams = entry = head.entry(self._previous, token)
            self._previous = token
            window.append(entry)
            self._enter(self._words, own, 1)
            self._enter(self._grams, grams, 0)
            if len(window) > WINDOW:
                old, old_grams = window.popleft()
                self._leave(self._words, old, 1)
                self._leave(self._grams, old_grams, 0)
            self._fresh += 1
            if self._fresh >= _FRESH:
                self._refresh()
            best = max(best, self._logit())
        return best

    def _whole_text(self, tokens: Sequence[str]) -> float:
        """Score the windows of a prompt's tokens, each by itself: few are asked for."""
        head, known, before = self._head, len(self._window), self._previous
        entries = [*self._window]
        for token in tokens:
            entries.append(head.entry(before, token))
            before = token
        self._previous = before
        if len(entries) == known:
            return -math.inf
        shift = self._fresh - known
        first = max(WINDOW, known + 1)
        first += -(first + shift) % _STEP
        ends = [*range(first, len(entries), _STEP), len(entries)]
        self._fresh += len(tokens)
        if len(ends) < _MANY:
            best = max(self._of(entries[max(0, end - WINDOW) : end]) for end in ends)
        else:
            best = self._hottest(entries, ends)
        self._window = deque(entries[-WINDOW:])
        return best

    def _hottest(self, entries: Sequence[_Entry], ends: Sequence[int]) -> float:
        """Return the highest logit of the windows that end at these entries, all at once.

        A row counts where it comes first: in the windows that begin behind the token that had it
        before, begin no later than its own token, and end behind that.
        """
        rows = np.fromiter(chain.from_iterable(chain.from_iterable(entries)), np.int64)
        sizes = np.fromiter((len(grams) + 2 for _, grams in entries), np.int64)
        owner = np.repeat(np.arange(len(entries)), sizes)
        weights = np.frombuffer(self._head.table, np.float32)[rows].astype(np.float64)
        kind = np.zeros(len(rows), np.int64)  # 1 for a word's own row and its pair's
        heads = np.cumsum(sizes) - sizes
        kind[heads] = kind[heads + 1] = 1
        last = np.array(ends)
        first = np.maximum(0, last - WINDOW)
        begin = np.maximum(
            np.searchsorted(first, _before(rows + kind * (self._head.mask + 1), owner), "right"),
            np.searchsorted(last, owner, "right"),
        )
        behind = np.searchsorted(first, owner, "right")
        size = len(ends) + 1
        held = begin < behind
        begin, behind = (begin + kind * size)[held], (behind + kind * size)[held]
        sums, counts = (
            np.cumsum(
                (
                    np.bincount(begin, given, 2 * size) - np.bincount(behind, given, 2 * size)
                ).reshape(2, size),
                axis=1,
            )[:, :-1]
            for given in (weights[held], None)
        )
        short = np.sqrt(np.minimum(1.0, (last - first) / self._head.floor))
        halves = (sums / np.sqrt(np.maximum(counts, 1))).sum(axis=0)
        return float((self._head.bias + short * halves).max())

    def _of(self, window: Sequence[_Entry]) -> float:
        """Return the logit of a window: the sums over its distinct rows."""
        grams: set[int] = set().union(*{id(one): one for _, one in window}.values())
        words: set[int] = set().union(*[own for own, _ in window])
        weight = self._head.table.__getitem__
        return self._scaled(
            len(window), sum(map(weight, grams)), len(grams), sum(map(weight, words)), len(words)
        )

    def attribution(self) -> str:
        """Name the restricted clause that is reported."""
        return self._clause

    def _logit(self) -> float:
        """Return the window's logit; a short one is divided as a window of `floor` tokens."""
        grams, words = self._sums
        return self._scaled(len(self._window), grams, len(self._grams), words, len(self._words))

    def _scaled(
        self, tokens: int, grams: float, gram_count: int, words: float, word_count: int
    ) -> float:
        short = math.sqrt(min(1.0, tokens / self._head.floor))
        halves = grams / math.sqrt(gram_count or 1) + words / math.sqrt(word_count or 1)
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
