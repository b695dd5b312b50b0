"""WordPiece tokenisation as BERT does it (Devlin et al., NAACL 2019), for a vocabulary of any size.

Uncased: text is lower-cased, accents are stripped, white space and marks split words, CJK
characters stand alone. A vocabulary that was cut down still spells every word it lost, since it
keeps all single characters.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence

PAD, UNKNOWN, CLASSIFY, SEPARATE = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
_MAX_WORD = 100
_CACHE_WORDS = 20_000
_PRINTABLE = re.compile(r"[ -~\t\n\r]*")
_ASCII_WORD = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")


class WordPiece:
    """Turns text into vocabulary ids."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        """Take the vocabulary; a piece's id is its position.

        Raises:
            ValueError: A special token is missing.
        """
        self._ids: Mapping[str, int] = {piece: index for index, piece in enumerate(vocabulary)}
        missing = {PAD, UNKNOWN, CLASSIFY, SEPARATE} - self._ids.keys()
        if missing:
            raise ValueError(f"the vocabulary lacks {sorted(missing)}")
        self.pad = self._ids[PAD]
        self.unknown = self._ids[UNKNOWN]
        self.classify = self._ids[CLASSIFY]
        self.separate = self._ids[SEPARATE]
        self._cache: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens."""
        ids: list[int] = []
        for word in _words(text):
            ids.extend(self._pieces(word))
        return ids

    def pair(self, prompt: str, reply: str, limits: tuple[int, int]) -> tuple[list[int], list[int]]:
        """Return the ids and segment numbers of `[CLS] prompt [SEP]`, then `reply [SEP]` if any.

        `limits` bounds the ids of prompt and reply; what is cut off is the beginning.
        """
        first = self.encode(prompt)[-limits[0] :]
        ids = [self.classify, *first, self.separate]
        kinds = [0] * len(ids)
        if reply:
            second = self.encode(reply)[-limits[1] :]
            ids += [*second, self.separate]
            kinds += [1] * (len(second) + 1)
        return ids, kinds

    def _pieces(self, word: str) -> tuple[int, ...]:
        found = self._cache.get(word)
        if found is None:
            found = self._split(word)
            if len(self._cache) >= _CACHE_WORDS:
                self._cache.clear()
            self._cache[word] = found
        return found

    def _split(self, word: str) -> tuple[int, ...]:
        """Return the greedy longest-match-first pieces of a word."""
        if len(word) > _MAX_WORD:
            return (self.unknown,)
        ids: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                piece = self._ids.get(prefix + word[start:end])
                if piece is not None:
                    ids.append(piece)
                    start = end
                    break
            else:
                return (self.unknown,)
        return tuple(ids)


def _words(text: str) -> list[str]:
    """Return the lower-cased, accent-free words and marks of a text."""
    if text.isascii() and _PRINTABLE.fullmatch(text):
        return _ASCII_WORD.findall(text.lower())
    cleaned: list[str] = []
    for char in text:
        if char in "\t\n\r":
            cleaned.append(" ")
        elif char == "\ufffd" or unicodedata.category(char).startswith("C"):
            continue
        elif _is_cjk(char):
            cleaned.append(f" {char} ")
        else:
            cleaned.append(" " if char.isspace() else char)
    plain = unicodedata.normalize("NFD", "".join(cleaned))
    kept = "".join(char for char in plain if unicodedata.category(char) != "Mn").lower()
    return "".join(f" {char} " if _is_mark(char) else char for char in kept).split()


def _is_mark(char: str) -> bool:
    """Say whether BERT treats a character as punctuation: every ASCII mark, and Unicode's P*."""
    if char.isascii():
        return not (char.isalnum() or char.isspace())
    return unicodedata.category(char).startswith("P")


def _is_cjk(char: str) -> bool:
    """Say whether a character is a CJK ideograph, which stands alone."""
    code = ord(char)
    return (
        0x4E00 <= code <= 0x9FFF
        or 0x3400 <= code <= 0x4DBF
        or 0x20000 <= code <= 0x2CEAF
        or 0xF900 <= code <= 0xFAFF
    )
