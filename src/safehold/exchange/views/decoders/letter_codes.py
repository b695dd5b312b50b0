"""Letters as numbers or strokes: alphabet places, Polybius square, multitap, tap code, Bacon."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from safehold.exchange.views.english_likeness import Letters
from safehold.exchange.views.interface import Found, ViewSource, Work
from safehold.exchange.views.plausibility import ENGLISH, SHORT_COST

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SQUARE = _LETTERS.replace("j", "")
_TAP_SQUARE = _LETTERS.replace("k", "")
_KEYS = dict(
    zip("23456789", ("abc", "def", "ghi", "jkl", "mno", "pqrs", "tuv", "wxyz"), strict=True)
)
_NUMBERS = re.compile(
    r"(?<![\w.])[0-9]{1,4}(?!\w)(?:(?:[\s,;:\-/|]|\([^\w\s]\)){1,5}+[0-9]{1,4}(?!\w)){7,}+"
)
_TAPS = re.compile(r"(?<!\S)\.{1,5}(?:[ ,/|\n]{1,3}\.{1,5}(?!\S)){9,}+")
_BACON = re.compile(r"(?<!\w)(?:[ab]{5}(?:[\s/|]{1,3}(?![^\sab/|])|\b)){6,}", re.IGNORECASE)
_GROUP = re.compile(r"[0-9]+|[A-Za-z]{5}")
_TAPPED = re.compile(r"\.+")
_MIN_LETTERS = 12
_SAMPLE = 400
_BREAK = re.compile(r"[/|\n]|\s{2}")
_LONG = 60
_UNSPACED = 0.3


def _place(group: str) -> str | None:
    number = int(group)
    if number in (0, len(_LETTERS) + 1):
        return " "
    return _LETTERS[number - 1] if number <= len(_LETTERS) else None


def _polybius(group: str) -> str | None:
    if not re.fullmatch("[1-5][1-5]", group):
        return None
    return _SQUARE[(int(group[0]) - 1) * 5 + int(group[1]) - 1]


def _multitap(group: str) -> str | None:
    if group in ("0", "1"):
        return " "
    letters = _KEYS.get(group[0], "")
    whole = len(group) <= len(letters) and len(set(group)) == 1
    return letters[len(group) - 1] if whole else None


def _bacon(group: str) -> str | None:
    number = int(group.lower().replace("a", "0").replace("b", "1"), 2)
    return _LETTERS[number] if number < len(_LETTERS) else None


_READINGS: tuple[tuple[str, Callable[[str], str | None]], ...] = (
    ("letter-numbers", _place),
    ("polybius", _polybius),
    ("multitap", _multitap),
)


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield runs of numbers, dots or a-and-b groups that spell words."""
    if source.digits:
        for match in _NUMBERS.finditer(source.text):
            if not work.take(8 * len(match[0]) + SHORT_COST):
                return
            for how, read in _READINGS:
                yield from _spelled(match, read, how)
    for match in _TAPS.finditer(source.text):
        if not work.take(4 * len(match[0]) + SHORT_COST):
            return
        taps = [len(group) for group in _TAPPED.findall(match[0])]
        pairs = zip(taps[::2], taps[1::2], strict=False)
        text = "".join(_TAP_SQUARE[(row - 1) * 5 + column - 1] for row, column in pairs)
        if _spells(text):
            yield Found(match.start(), match.end(), text, "tap-code")
    for match in _BACON.finditer(source.text):
        if not work.take(4 * len(match[0]) + SHORT_COST):
            return
        yield from _spelled(match, _bacon, "bacon")


def _spells(text: str) -> bool:
    letters = Letters(text[:_SAMPLE])
    # Without spaces a text is less like English; a longer one is surer.
    least = _UNSPACED if letters.count >= _LONG else ENGLISH
    return letters.count >= _MIN_LETTERS and letters.mean() >= least


def _spelled(match: re.Match[str], read: Callable[[str], str | None], how: str) -> Iterator[Found]:
    letters: Sequence[str | None] = [read(group) for group in _GROUP.findall(match[0])]
    if None in letters:
        return
    gaps = _GROUP.split(match[0])[1:-1]
    usual = Counter(gaps).most_common(1)[0][0]
    pieces: list[str] = [letters[0] or ""]
    for gap, letter in zip(gaps, letters[1:], strict=True):
        if gap != usual or _BREAK.search(gap):
            pieces.append(" ")
        pieces.append(letter or "")
    text = "".join(pieces)
    if _spells(text):
        yield Found(match.start(), match.end(), text, how)
