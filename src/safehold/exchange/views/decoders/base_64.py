"""Base64, plain and URL-safe, wrapped in lines or cut in pieces of whole groups."""

import binascii
import re
from collections.abc import Iterator

from safehold.exchange.views.interface import Found, ViewSource, Work
from safehold.exchange.views.plausibility import SHORT_COST, text_of

_TOKEN = re.compile(r"[A-Za-z0-9+/_-]{11,}+(?:\r?\n[A-Za-z0-9+/_-]{2,}+)*+={0,2}")
_PIECES = re.compile(
    r"(?:[A-Za-z0-9+/_-]{4,76}+=?[ \t\r\n]{1,2}){2,}+(?:[A-Za-z0-9+/_-]{2,}+={0,2})?"
)
_MIXED_CASE = re.compile(r"[a-z0-9][A-Z]|[A-Za-z][0-9][A-Za-z]|=")
_STANDARD = str.maketrans("-_", "+/")
_SPACES = re.compile(r"\s+")


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield what decodes to readable text, at any of the four alignments."""
    if not source.mixed:
        return
    text = source.text
    last = 0
    for pattern in (_TOKEN, _PIECES):
        for match in pattern.finditer(text):
            token = match[0]
            if match.start() < last and pattern is _TOKEN:
                continue
            if not work.take(4 * len(token) + SHORT_COST):
                return
            if not _MIXED_CASE.search(token):
                continue  # words, which decode to bytes that are no text
            decoded = decode(_SPACES.sub("", token))
            if decoded is None and "\n" in token and pattern is _TOKEN:
                continue
            if decoded is not None:
                skipped, plain = decoded
                last = match.end()
                yield Found(match.start() + skipped, match.end(), plain, "base64")


def decode(token: str) -> tuple[int, str] | None:
    """Return how many foreign characters came first, and the text; None when it is none."""
    pieces = [piece for piece in re.split("=+", token.translate(_STANDARD)) if piece]
    for skipped in range(4):
        raw = b"".join(map(_raw, [pieces[0][skipped:], *pieces[1:]]))
        plain = text_of(raw)
        if plain is not None:
            return skipped, plain
    return None


def _raw(piece: str) -> bytes:
    core = piece[: len(piece) - (len(piece) % 4 == 1)]
    return binascii.a2b_base64(core + "=" * (-len(core) % 4))
