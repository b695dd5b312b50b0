"""Uuencoded lines, with or without their `begin` and `end`."""

import binascii
import re
from collections.abc import Iterator

from safehold.exchange.views.interface import Found, ViewSource, Work
from safehold.exchange.views.plausibility import text_of

_LINES = re.compile(
    r"(?:^begin [0-7]{3,4} [^\n]*\n)?((?:^[!-M][ -`]{4,84}$\n?){1,}+)(?:^`? *\n)?(?:^end$)?",
    re.MULTILINE,
)
_GROUP = 3


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield blocks of lines whose first character tells their length truly."""
    if not any(line and line == line.upper() for line in source.text.split("\n")):
        return  # uuencoding has no small letters
    for match in _LINES.finditer(source.text):
        if not work.take(2 * len(match[0])):
            return
        raw = b""
        for line in match[1].splitlines():
            claimed = ord(line[0]) - 32
            if len(line.rstrip(" ")) - 1 > -(-claimed // _GROUP) * 4 + 1:
                break
            try:
                raw += binascii.a2b_uu(line)
            except binascii.Error:
                break
        plain = text_of(raw) if raw else None
        if plain is not None:
            yield Found(match.start(), match.end(), plain, "uu")
