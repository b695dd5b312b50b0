"""Words pulled apart: s p a c e d, d.o.t.t.e.d, h-y-p-h-e-n-e-d."""

import re
from collections import Counter
from collections.abc import Iterator

from safehold.exchange.views.decoders._envelopes import opened
from safehold.exchange.views.interface import Found, ViewSource, Work
from safehold.exchange.views.plausibility import SHORT_COST, meaningful

_SEPARATORS = " \t.\\-_*|~·•,/+\u00a0"
_EVEN = re.compile(rf"(?<!\S)\S([{_SEPARATORS}])(?:[\s\S]\1){{3,}}+(?:\S(?!\w))?")
_UNEVEN = re.compile(rf"(?<![^\W_])[^\W_](?:[{_SEPARATORS}]{{1,4}}+[^\W_](?![^\W_])){{4,}}+")
_GAP = re.compile(rf"[{_SEPARATORS}]+")
_DENSE = 0.6
_MIN_DIGITS = 24
_MIN_SINGLES = 3


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield single characters with one separator between them, or with gaps that end words."""
    if not source.digits and source.letters.singles < _MIN_SINGLES and source.longest > 1:
        return
    last = 0
    for pattern in (_EVEN, _UNEVEN):
        for match in pattern.finditer(source.text):
            part = match[0]
            if not work.take(4 * len(part) + SHORT_COST):
                return
            if match.start() < last:
                continue
            if pattern is _EVEN:
                plain = part[::2]
            else:
                gaps = _GAP.findall(part)
                [(usual, _)] = Counter(gaps).most_common(1)
                words = ["" if gap == usual else " " for gap in gaps]
                plain = "".join(map("".join, zip(_GAP.split(part), [*words, ""], strict=True)))
            dense = sum(map(str.isalnum, plain)) >= _DENSE * len(plain)
            if not any(map(str.isalpha, plain)) and len(plain) < _MIN_DIGITS:
                continue
            if (dense and meaningful(plain)) or opened(plain, work) is not None:
                last = match.end()
                yield Found(match.start(), match.end(), plain, "spaced")
