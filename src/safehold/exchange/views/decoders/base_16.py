"""Base16: hexadecimal bytes, run together or with separators or prefixes."""

import re
from collections.abc import Iterator

from safehold.exchange.views.interface import Found, ViewSource, Work
from safehold.exchange.views.plausibility import SHORT_COST, text_of

_RUN = re.compile(r"(?<![0-9A-Za-z])(?:0x)?((?:[0-9A-Fa-f]{2}){6,}+)(?![0-9A-Za-z])")
_APART = re.compile(
    r"(?<![0-9A-Za-z])(?:0x)?[0-9A-Fa-f]{2}(?:(?:[,;:]?\s|[:,\-.])(?:0x)?[0-9A-Fa-f]{2}"
    r"(?![0-9A-Za-z])){5,}+"
)
_NOT_DIGITS = re.compile(r"0x|[^0-9A-Fa-f]")
_LINES = re.compile(r"(?<![0-9A-Za-z])(?:(?:[0-9A-Fa-f]{2}){6,}+\s){1,}+(?:[0-9A-Fa-f]{2})*+")


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield runs that decode to readable text."""
    if not source.digits:  # every printable byte has a digit in it
        return
    for pattern in (_RUN, _APART, _LINES):
        for match in pattern.finditer(source.text):
            if not work.take(2 * len(match[0]) + SHORT_COST):
                return
            digits = _NOT_DIGITS.sub("", match[0])
            if len(digits) % 2 == 0:
                plain = text_of(bytes.fromhex(digits))
                if plain is not None:
                    yield Found(match.start(), match.end(), plain, "base16")
