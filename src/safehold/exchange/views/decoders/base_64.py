"""Base64, plain and URL-safe, wrapped in lines or cut in pieces of whole groups."""

import binascii
import re
import zlib
from collections.abc import Iterator

from safehold.exchange.views.interface import Found, ViewSource, Work
from safehold.exchange.views.plausibility import SHORT_COST, text_of

_TOKEN = re.compile(r"[A-Za-z0-9+/_-]{11,}+(?:\r?\n[A-Za-z0-9+/_-]{2,}+)*+={0,2}")
_PIECES = re.compile(
    r"(?:[A-Za-z0-9+/_-]{4,76}+=?[ \t\r\n]{1,2}){2,}+(?:[A-Za-z0-9+/_-]{2,}+={0,2})?"
)
_MIXED_CASE = re.compile(r"[a-z0-9][A-Z]|[A-Za-z][0-9][A-Za-z]|=")
_STANDARD = str.maketrans("-_", "+/")
_COMPRESSED = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b\x08")
_MOST_INFLATED = 65_536
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
        plain = text_of(raw) or _inflated(raw)
        if plain is not None:
            return skipped, plain
    return None


def _inflated(raw: bytes) -> str | None:
    """Return the text that compressed bytes (zlib, gzip) hold, as far as they are there."""
    if not raw.startswith(_COMPRESSED):
        return None
    try:
        plain = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(raw, _MOST_INFLATED)
    except zlib.error:
        return None
    return text_of(plain)


def _raw(piece: str) -> bytes:
    core = piece[: len(piece) - (len(piece) % 4 == 1)]
    return binascii.a2b_base64(core + "=" * (-len(core) % 4))
