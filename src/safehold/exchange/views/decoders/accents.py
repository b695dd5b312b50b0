"""English under accents that no word needs."""

import re
import unicodedata
from collections.abc import Iterator

from safehold.exchange.views.english_likeness import likeness
from safehold.exchange.views.interface import Found, ViewSource, Work

_ACCENTED = re.compile("[\u00c0-\u024f\u1e00-\u1eff]")
_MARKS = re.compile("[\u0300-\u036f]")
_SHARE = 0.12
_GOOD = 1.0


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield the text without accents when it has many and is English without them."""
    if source.ascii:
        return
    text = source.text
    accented = len(_ACCENTED.findall(text))
    if accented < _SHARE * len(text) or not work.take(4 * len(text)):
        return
    plain = _MARKS.sub("", unicodedata.normalize("NFKD", text))
    if likeness(plain) >= _GOOD:
        yield Found(0, len(text), plain, "accents")
