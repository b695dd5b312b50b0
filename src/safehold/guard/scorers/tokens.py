"""The guard's own tokens: words, numbers and marks, cut the same way whatever the deltas were.

A token is a run of letters, a number with its separators, one CJK character, or one mark.
`TokenStream` cuts only behind white space (or after every `MAX_RUN` characters of a run without
any), so any split of a text into deltas gives the same tokens.
"""

import re
import unicodedata

MAX_RUN = 64
"""A run without white space is cut into pieces of this many characters."""

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(
    rf"[{_CJK}]|\d+(?:[.,:/]\d+)*|[^\W\d_{_CJK}]{{1,24}}|[^\w\s]",
)
_GRAVITY = re.compile(r"[01][.,]\d{3}")
_LONG_RUN = re.compile(rf"\S{{{MAX_RUN + 1}}}")
_PIECE = re.compile(rf"\S{{1,{MAX_RUN}}}")


def tokens(text: str) -> list[str]:
    """Return the tokens of a whole text, folded for case and width."""
    if text.isascii() and (len(text) <= MAX_RUN or not _LONG_RUN.search(text)):
        return _TOKEN.findall(text.lower())
    return [
        token
        for piece in _PIECE.findall(text)
        for token in _TOKEN.findall(unicodedata.normalize("NFKC", piece).lower())
    ]


def shape(token: str) -> str:
    """Fold numbers to their shape: the amount matters less than that there is one."""
    if not token[0].isdigit():
        return token
    if _GRAVITY.fullmatch(token):
        return "<sg>"
    if ":" in token or "/" in token:
        return "<ratio>"
    return f"<n{min(len(token), 4)}>"


class TokenStream:
    """Cuts a growing text into tokens; the tail that may still change stays inside."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = ""

    @property
    def pending(self) -> int:
        """Characters fed but not cut yet."""
        return len(self._tail)

    def feed(self, text: str) -> tuple[list[str], int]:
        """Return the new complete tokens and how many characters they and their spaces span."""
        buffer = self._tail + text
        cut = _last_space(buffer)
        cut += (len(buffer) - cut - 1) // MAX_RUN * MAX_RUN if len(buffer) > cut else 0
        self._tail = buffer[cut:]
        return (tokens(buffer[:cut]) if cut else []), cut

    def finish(self) -> tuple[list[str], int]:
        """Return the tokens of the tail; the stream is then empty."""
        tail, self._tail = self._tail, ""
        return tokens(tail), len(tail)


def _last_space(text: str) -> int:
    """Return the offset just behind the last white space, 0 if there is none."""
    for offset in range(len(text) - 1, -1, -1):
        if text[offset].isspace():
            return offset + 1
    return 0
