"""Letters or syllables put into every word: filler letters, "ubbi dubbi", "op" languages.

What is put in comes back far too often to be language. Two kinds: the same letters at every second
to fourth place of each word, and one short string before or behind many letters. The reading that
takes it out must be much more English than the text.
"""

import re
from collections import Counter
from collections.abc import Iterator
from operator import add

from safehold.exchange.views.english_likeness import Letters, likeness
from safehold.exchange.views.interface import Found, ViewSource, Work
from safehold.exchange.views.plausibility import ENGLISH

_WORD = re.compile(r"[A-Za-z]+")
_SAMPLE = 600
_LEAST = 40
_GAIN = 0.35
_SHARE = 0.14
_MOST_TRIED = 8
_CONSTANT = 0.9
_ONE = 1


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield the text without what was put into its words."""
    text = source.text
    letters = source.letters if len(text) <= _SAMPLE else Letters(text[:_SAMPLE])
    before = letters.mean()
    if letters.count < _LEAST or before >= 1.0:
        return
    if not work.take(20 * len(text) + 12_000):
        return
    sample = text[:_SAMPLE]
    best, reading, how = max(ENGLISH, before + _GAIN), "", ""
    for period in (2, 3, 4):
        plain = _thinned(sample, period)
        if plain is not None and (score := _worth(plain)) > best:
            best, reading, how = score, _thinned(text, period) or plain, "filler-letters"
    for inserted in _often(sample):
        pattern = re.compile(inserted, re.IGNORECASE)
        if (score := likeness(pattern.sub("", sample))) > best:
            best, reading, how = score, pattern.sub("", text), "filler-syllables"
    if reading:
        yield Found(0, len(text), reading, how)


def _worth(plain: str) -> float:
    words = plain.split()
    return likeness("".join(words) if len(words) > len(plain) // 3 else plain)


def _thinned(text: str, period: int) -> str | None:
    """Return the words without the places that hold the same letter in nearly all of them."""
    words = _WORD.findall(text)
    places = [Counter("".join(word[at::period] for word in words).lower()) for at in range(period)]
    kept = {
        at
        for at, counts in enumerate(places)
        if counts and counts.most_common(1)[0][1] < _CONSTANT * counts.total()
    }
    if not kept or len(kept) == period:
        return None
    if len(kept) > _ONE and period == 4:
        return None

    def thin(match: re.Match[str]) -> str:
        return "".join(letter for at, letter in enumerate(match[0]) if at % period in kept)

    plain = _WORD.sub(thin, text)
    short = sum(len(word) <= period for word in words) > 0.9 * len(words)
    return re.sub(r"(?<=[A-Za-z])\s(?=[A-Za-z])", "", plain) if short else plain


def _often(text: str) -> list[str]:
    """Return the short strings that make up far more of the letters than language repeats."""
    lower = "".join(_WORD.findall(text.lower()))
    found: list[tuple[int, str]] = []
    pairs = list(map(add, lower, lower[1:]))
    for size, grams in ((2, pairs), (3, map(add, pairs, lower[2:]))):
        counts = Counter(grams)
        found += [
            (count * size, gram)
            for gram, count in counts.most_common(_MOST_TRIED // 2)
            if count * size >= _SHARE * len(lower)
        ]
    return [gram for _, gram in sorted(found, reverse=True)]
