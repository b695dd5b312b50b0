"""Braille patterns, uncontracted English (grade 1)."""

import re
from collections.abc import Iterator

from safehold.exchange.views.interface import Found, ViewSource, Work

_RUN = re.compile("[\u2800-\u28ff][\u2800-\u28ff \\t\\n]{1,}[\u2800-\u28ff]")
_BLANK = "\u2800"
_NUMBER, _CAPITAL, _LETTER = "⠼", "⠠", "⠰"
_PLAIN = dict(
    zip(
        "⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵⠂⠆⠒⠲⠖⠦⠔⠤⠄⠌⠶",
        "abcdefghijklmnopqrstuvwxyz,;:.!?*-'/\"",
        strict=True,
    )
) | {_BLANK: " "}
_DIGITS = dict(zip("⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚", "1234567890", strict=True))


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield runs of patterns as text, with number and capital signs obeyed."""
    if source.ascii:
        return
    for match in _RUN.finditer(source.text):
        if not work.take(2 * len(match[0])):
            return
        yield Found(match.start(), match.end(), _read(match[0]), "braille")


def _read(patterns: str) -> str:
    letters: list[str] = []
    number = capital = False
    for pattern in patterns:
        if pattern == _NUMBER:
            number = True
        elif pattern == _CAPITAL:
            capital = True
        elif pattern == _LETTER:
            number = False
        elif number and pattern in _DIGITS:
            letters.append(_DIGITS[pattern])
        else:
            number = False
            letter = _PLAIN.get(pattern, pattern if pattern.isspace() else "")
            letters.append(letter.upper() if capital else letter)
            capital = False
    return "".join(letters)
