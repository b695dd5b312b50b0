"""Text written backwards: whole, in parts, or word by word; and bidi overrides that show it so."""

import re
from collections.abc import Iterator

from safehold.exchange.views.decoders._ciphered import running, runs, widened
from safehold.exchange.views.decoders._envelopes import opened
from safehold.exchange.views.english_likeness import Letters, lowest_window
from safehold.exchange.views.interface import Found, ViewSource, Work

_WINDOW = 24
_GAIN = 0.3
_GOOD = 0.55
_SURE_GAIN = 0.5
_MIN_LETTERS = 12
_SHORT = 28
_SHORT_TARE = 0.3
_TARE = 0.1
_WORD = re.compile(r"[A-Za-z']+")
_OVERRIDE = re.compile("[\u202e\u202b\u2067]([^\u202c\u2069]{4,})")
_MARKS = "?!.,;)('"
_COST = 1500
_OPENS = 0.3


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield the text, or stretches of it, that read as English from the other end."""
    letters = source.letters
    if letters.count >= _MIN_LETTERS:
        gain = letters.backwards_gain()
        if lowest_window(-gain, _WINDOW) < -_GAIN:
            whole = _turned(source.text, 0, work) if float(gain.mean()) > _GAIN else None
            if whole is not None:
                yield whole
            else:
                sums = running(gain)
                for begin, stop in runs(letters, gain - _TARE):
                    start, end = widened(source, sums, *_with_marks(source.text, begin, stop))
                    found = _turned(source.text[start:end], start, work)
                    if found is not None:
                        yield found
    for start, end in source.dense:
        part = source.text[start:end]
        if not work.take(_COST):
            return
        turned = opened(part[::-1], work)
        if turned is not None and turned > (opened(part, work) or _OPENS):
            yield Found(start, end, part[::-1], "reversed")


def find_bidi(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield what stands under a right-to-left override, as it is shown: from the other end."""
    if source.ascii:
        return
    for match in _OVERRIDE.finditer(source.text):
        if not work.take(len(match[0])):
            return
        yield Found(match.start(), match.end(), match[1][::-1], "bidi")


def _with_marks(text: str, start: int, end: int) -> tuple[int, int]:
    """Take in the punctuation that touches a span: at its beginning now, at its end once turned."""
    while start > 0 and text[start - 1] in _MARKS:
        start -= 1
    while end < len(text) and text[end] in _MARKS:
        end += 1
    return start, end


def _turned(text: str, offset: int, work: Work) -> Found | None:
    if not work.take(8 * len(text) + _COST):
        return None
    forwards = Letters(text)
    if forwards.count < _MIN_LETTERS or float(forwards.backwards_gain().mean()) < _GAIN:
        return None
    whole = text[::-1]
    words = _WORD.sub(lambda word: word[0][::-1], text)
    best = max((whole, words), key=lambda reading: Letters(reading).mean())
    score = Letters(best).mean()
    short = _SHORT_TARE if forwards.count < _SHORT else 0.0
    if score < _GOOD + short or score - forwards.mean() < _SURE_GAIN + short:
        return None
    # Backwards words read best in either order; the order of the words tells by capitals and stops.
    how = (
        "reversed" if best == whole or _ends_well(whole) >= _ends_well(words) else "reversed-words"
    )
    plain = whole if how == "reversed" else words
    return Found(offset, offset + len(text), plain, how)


def _ends_well(text: str) -> int:
    return int(text[-1:] in ".?!") + int(text[:1].isupper()) - int(text[:1] in ".?!")
