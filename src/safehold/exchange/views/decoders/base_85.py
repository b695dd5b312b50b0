"""Base85: Ascii85 (Adobe, with or without its brackets), RFC 1924 as Python and git write it."""

import base64
import re
from collections.abc import Callable, Iterator

from safehold.exchange.views.interface import Found, ViewSource, Work
from safehold.exchange.views.plausibility import text_of

_FRAMED = re.compile(r"<~([!-uz\s]{5,}?)~>")
_TOKEN = re.compile(r"(?<!\S)[!-~]{15,}+(?!\S)")
_SYMBOL = re.compile(r"[^A-Za-z0-9+/=_\-.,:]")
_MAX_TOKEN = 16_384
_SLOW = 12
_MIN_TOKEN = 15
_MIN_SYMBOLS = 2


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield tokens that decode to readable text under one of the alphabets."""
    for match in _FRAMED.finditer(source.text):
        if not work.take(_SLOW * len(match[0])):
            return
        plain = _decode(match[1], base64.a85decode)
        if plain is not None:
            yield Found(match.start(), match.end(), plain, "ascii85")
    if source.longest < _MIN_TOKEN:
        return
    for match in _TOKEN.finditer(source.text):
        token = match[0][:_MAX_TOKEN]
        if token.startswith("<~") or len(_SYMBOL.findall(token[:64])) < _MIN_SYMBOLS:
            continue  # words, addresses, other bases
        if not work.take(_SLOW * len(token)):
            return
        for name, decoder in (("base85", base64.b85decode), ("ascii85", base64.a85decode)):
            plain = _decode(token, decoder)
            if plain is not None:
                yield Found(match.start(), match.end(), plain, name)
                break


def _decode(token: str, decoder: Callable[[str], bytes]) -> str | None:
    try:
        # Random tokens fail in the first groups, so a sample saves the slow decoding of the rest.
        if text_of(decoder(token[:40])) is None:
            return None
        return text_of(decoder(token))
    except ValueError:
        return None
