"""Text hidden in characters that show nothing: tags, variation selectors, zero-width bits."""

import re
from collections.abc import Iterator

from safehold.exchange.views.interface import Found, ViewSource, Work
from safehold.exchange.views.plausibility import text_of

_TAGS = re.compile("[\U000e0001-\U000e007f](?:[\u200b\u200c\u200d\ufeff]?[\U000e0001-\U000e007f])+")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{3,}")
_BITS = re.compile("[\u200b-\u200f\u2060-\u2064\u206a-\u206f\ufeff\u00ad]{16,}")
_TAG_BASE = 0xE0000
_SUPPLEMENT = 0xE0100


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield what invisible characters spell; reads the text before it is normalised."""
    if source.ascii:
        return
    for match in _TAGS.finditer(source.text):
        if not work.take(len(match[0])):
            return
        plain = "".join(chr(ord(c) - _TAG_BASE) for c in match[0] if ord(c) > _TAG_BASE)
        yield Found(match.start(), match.end(), plain.replace("\x7f", ""), "tags")
    for match in _SELECTORS.finditer(source.text):
        if not work.take(len(match[0])):
            return
        raw = bytes(
            ord(c) - _SUPPLEMENT + 16 if ord(c) >= _SUPPLEMENT else ord(c) & 15 for c in match[0]
        )
        selected = text_of(raw)
        if selected is not None:
            yield Found(match.start(), match.end(), selected, "variation-selectors")
    for match in _BITS.finditer(source.text):
        if not work.take(4 * len(match[0])):
            return
        bits = _from_bits(match[0])
        if bits is not None:
            yield Found(match.start(), match.end(), bits, "zero-width")


def _from_bits(run: str) -> str | None:
    kinds = sorted(set(run))
    if len(kinds) not in (2, 3):
        return None
    if len(kinds) == 3:
        kinds.remove(min(kinds, key=run.count))
        run = "".join(c for c in run if c in kinds)
    for zero, one in (kinds, kinds[::-1]):
        digits = run.translate({ord(zero): "0", ord(one): "1"})
        for width in (8, 7):
            if len(digits) % width == 0:
                raw = bytes(int(digits[i : i + width], 2) for i in range(0, len(digits), width))
                plain = text_of(raw)
                if plain is not None:
                    return plain
    return None
