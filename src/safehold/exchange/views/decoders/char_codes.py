"""Characters as numbers: decimal, octal and binary."""

import re
from collections.abc import Iterator

from safehold.exchange.views.interface import Found, ViewSource, Work
from safehold.exchange.views.plausibility import SHORT_COST, meaningful, text_of

_NUMBERS = re.compile(r"(?<![\w.])\d{2,7}(?:(?:[,;]?\s{1,2}|[,;:\-|/])\d{2,7}(?!\w)){4,}+")
_BITS = re.compile(r"(?<!\w)[01]{7,8}(?:[\s,;\-]{0,2}+[01]{7,8})++")
_GROUP = re.compile(r"\d+")
_BIT_GROUP = re.compile(r"[01]+")
_MAX_CODE = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)
_LEAST_CODE = 9
_MIN_BITS = 24
_BYTE = 8
_ASCII = 0x7F
_MIN_HIDING = 10
# Where characters live that only ever hide text: zero-width, braille, wide, turned, flags, tags.
_HIDING = frozenset({0x00, 0x01, 0x02, 0x1D, 0x20, 0x28, 0xFE, 0xFF, 0x1F1, 0xE00, 0xE01})
_RUBBISH = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield lists of numbers that spell something."""
    if not source.digits:
        return
    for match in _NUMBERS.finditer(source.text):
        if not work.take(8 * len(match[0]) + SHORT_COST):
            return
        groups = _GROUP.findall(match[0])
        for base, how in ((10, "decimal"), (8, "octal")):
            plain = _spelled(groups, base)
            if plain is not None:
                yield Found(match.start(), match.end(), plain, how)


def find_binary(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield runs of ones and zeros, of seven or eight to the character, that spell something."""
    if not source.digits:
        return
    for match in _BITS.finditer(source.text):
        if not work.take(4 * len(match[0]) + SHORT_COST):
            return
        groups = _BIT_GROUP.findall(match[0])
        alike = len({len(group) for group in groups}) == 1 and len(groups) > 1
        if alike and len(groups[0]) > _BYTE:  # sixteen or more to the character
            wide = _spelled(groups, 2)
            if wide is not None:
                yield Found(match.start(), match.end(), wide, "binary")
                continue
        if alike and len(groups[0]) <= _BYTE:
            raw = bytes(int(group, 2) for group in groups)
        else:
            bits = "".join(groups)
            if len(bits) < _MIN_BITS or len(bits) % 8:
                continue
            raw = int(bits, 2).to_bytes(len(bits) // 8, "big")
        plain = text_of(raw)
        if plain is not None:
            yield Found(match.start(), match.end(), plain, "binary")


def _spelled(groups: list[str], base: int) -> str | None:
    try:
        codes = [int(group, base) for group in groups]
    except ValueError:
        return None
    if any(c < _LEAST_CODE or c > _MAX_CODE or c in _SURROGATES for c in codes):
        return None
    text = "".join(map(chr, codes))
    if _RUBBISH.search(text):
        return None
    # Prices and years are numbers too: a list must spell words, or an encoding of words.
    if text.isascii():
        return text if meaningful(text) else None
    alphabets = {code >> 8 for code in codes if code > _ASCII}
    hiding = alphabets <= _HIDING and len(text) >= _MIN_HIDING
    return text if hiding or (" " in text and len(alphabets) <= 2) else None
