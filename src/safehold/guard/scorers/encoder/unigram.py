"""Unigram tokenisation as XLM-RoBERTa's pieces need it, for a vocabulary of any size.

Of all ways to cut a word into pieces the one with the highest sum of log-probabilities is taken
(Kudo, ACL 2018). White space begins a piece and never stands inside one, so each word is cut by
itself. Text is folded (NFKC, lower case): a disguise by width or capitals changes nothing.
"""

import unicodedata
from collections.abc import Sequence
from typing import Final

SPACE: Final = "\u2581"
"""What stands for the white space before a word."""
BEGIN, PAD, END, UNKNOWN = 0, 1, 2, 3
"""Ids of the special pieces, as XLM-RoBERTa numbers them; they are the first four."""
_CACHE_WORDS: Final = 20_000
_CACHED_CHARS: Final = 32
_PENALTY: Final = 10.0


class Unigram:
    """Turns text into vocabulary ids."""

    def __init__(self, pieces: Sequence[str], scores: Sequence[float]) -> None:
        """Take the pieces and their log-probabilities; a piece's id is its position.

        Raises:
            ValueError: Pieces and scores differ in number, or there is nothing but specials.
        """
        if len(pieces) != len(scores) or len(pieces) <= UNKNOWN + 1:
            raise ValueError(f"{len(pieces)} pieces with {len(scores)} scores are no vocabulary")
        self._known = {
            piece: (number, score)
            for number, (piece, score) in enumerate(zip(pieces, scores, strict=True))
            if number > UNKNOWN
        }
        self._longest = max(map(len, self._known))
        self._unknown = min(scores[UNKNOWN + 1 :]) - _PENALTY
        self._cache: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special pieces."""
        ids: list[int] = []
        for word in unicodedata.normalize("NFKC", text).lower().split():
            ids.extend(self._pieces(word))
        return ids

    def _pieces(self, word: str) -> tuple[int, ...]:
        found = self._cache.get(word)
        if found is None:
            found = self._cut(SPACE + word)
            if len(word) <= _CACHED_CHARS:
                if len(self._cache) >= _CACHE_WORDS:
                    self._cache.clear()
                self._cache[word] = found
        return found

    def _cut(self, word: str) -> tuple[int, ...]:
        """Return the best cut (Viterbi); unknown characters beside each other are one piece."""
        known, longest = self._known, self._longest
        best = [0.0] + [-1e30] * len(word)
        back = [(0, UNKNOWN)] * (len(word) + 1)
        for start in range(len(word)):
            score = best[start]
            if score + self._unknown > best[start + 1]:
                best[start + 1], back[start + 1] = score + self._unknown, (start, UNKNOWN)
            for end in range(start + 1, min(len(word), start + longest) + 1):
                piece = known.get(word[start:end])
                if piece is not None and score + piece[1] > best[end]:
                    best[end], back[end] = score + piece[1], (start, piece[0])
        ids: list[int] = []
        end = len(word)
        while end:
            end, number = back[end]
            if number != UNKNOWN or not ids or ids[-1] != UNKNOWN:
                ids.append(number)
        return tuple(reversed(ids))
