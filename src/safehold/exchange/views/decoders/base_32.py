"""Base32 (RFC 4648), upper or lower case."""

import base64
import binascii
import re
from collections.abc import Iterator

from safehold.exchange.views.interface import Found, ViewSource, Work
from safehold.exchange.views.plausibility import SHORT_COST, text_of

_TOKEN = re.compile(r"(?<![A-Za-z0-9])(?:[A-Z2-7]{16,}+|[a-z2-7]{16,}+)={0,6}")
_SPLIT = re.compile(r"(?<![A-Za-z0-9])(?:[A-Z2-7]{8,76}+=*\s){1,}+(?:[A-Z2-7]{2,}+={0,6})?")
_MIN_TOKEN = 16
_LENGTHS = {0: 0, 2: 2, 4: 4, 5: 5, 7: 7}


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield tokens that decode to readable text."""
    if not source.mixed and source.longest < _MIN_TOKEN:
        return
    for pattern in (_TOKEN, _SPLIT):
        for match in pattern.finditer(source.text):
            if not work.take(4 * len(match[0]) + SHORT_COST):
                return
            plain = decode("".join(match[0].split()))
            if plain is not None:
                yield Found(match.start(), match.end(), plain, "base32")


def decode(token: str) -> str | None:
    """Return the text of one token, or None."""
    core = token.replace("=", "").upper()
    core = core[: len(core) - len(core) % 8 + _LENGTHS.get(len(core) % 8, 0)]
    try:
        return text_of(base64.b32decode(core + "=" * (-len(core) % 8)))
    except binascii.Error:
        return None
