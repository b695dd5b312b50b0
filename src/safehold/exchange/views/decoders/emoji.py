"""Regional indicator letters, which show as flags or letters in squares."""

import re
from collections.abc import Iterator

from safehold.exchange.views.interface import Found, ViewSource, Work
from safehold.exchange.views.plausibility import SHORT_COST, meaningful

_FIRST = 0x1F1E6
_FLAG = 2
_LETTER = "[\U0001f1e6-\U0001f1ff]"
_RUN = re.compile(rf"{_LETTER}(?:[ ,.?!'\-\u200b\u200c\u2060]{{0,3}}+{_LETTER}){{3,}}+")
_SPREAD = re.compile(rf"(?<={_LETTER})[ \u200b\u200c\u2060](?={_LETTER})")
_EACH = re.compile(_LETTER)


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield runs of regional letters as text; flags in a row spell nothing and are left."""
    if source.ascii:
        return
    for match in _RUN.finditer(source.text):
        part = match[0]
        if not work.take(4 * len(part) + SHORT_COST):
            return
        if all(len(group) == _FLAG for group in part.split()):
            continue
        if len(_SPREAD.findall(part)) > 0.8 * (len(_EACH.findall(part)) - 1):
            part = _SPREAD.sub("", part)
        plain = "".join(chr(ord("a") + ord(c) - _FIRST) if ord(c) >= _FIRST else c for c in part)
        if meaningful(plain):
            yield Found(match.start(), match.end(), plain, "regional")
