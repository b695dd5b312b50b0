r"""Words that are spread over the places of a structure, read in order.

`{"t": "warm"}`, `w1=warm`, `say("warm")`, `\emph{warm}`, `(w warm)`, `<a w="warm"/>`, `(1,'warm')`:
what stands around the words differs from format to format, and is the same at each word. So no
format is parsed. A word's *place* is the mark before it and the marks behind it; words of one place
that follow each other through the text are one reading. It is given where they look like running
words and are told apart by marks, which prose, settings and lock files are not.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from safehold.exchange.views.normalise import MARKS

_LETTERS: Final = rf"(?:(?!_)[\w{MARKS}])+"
_WORD: Final = rf"{_LETTERS}(?:['\u2019\-.]{_LETTERS})*" + (r"(?:[.,:;!?](?=[\"'`<)\]}|\n]))?")
"""A word, with a sentence's mark where a mark of the structure follows it."""
_SENTENCE_MARKS: Final = ".,:;!?"
_LETTERS_ONLY: Final = re.compile(rf"(?:[^\W\d_]|[{MARKS}])+")
_ITEM: Final = re.compile(_WORD)
_RUN: Final = re.compile(f"{_WORD}(?: {_WORD}){{0,4}}")
_CLOSERS: Final = str.maketrans(dict.fromkeys("]})>;,|&\n", ","))
_MARKS: Final = frozenset("\"'`=:;<>(){}[]|\\/&#@*_~\u00ab\u00bb\u201c\u201d\u300c\u300d")
_ENDS: Final = frozenset(",\n")
"""Marks that tell of a place only where one stands on either side: rows and columns."""
_NAMES: Final = frozenset(":=")
"""Marks behind names: settings are full of names, so words there must read like a sentence."""
_LEAST: Final = 6
"""Words of a reading; fewer ask for nothing."""
_SHARE: Final = 1 / 9
"""Share of the words between a reading's first and last one that are its own."""
_STEADY: Final = 0.7
"""Share of the steps from one word to the next that are the usual step."""
_LAGS: Final = (1, 2, 3)
"""Words of one place in a record."""
_FILLER: Final = 0.25
"""Share of a place's words that no word of a language has."""
_WORDS: Final = 0.7
"""Share of a reading's items that are words of letters alone, capitals at most in front."""
_DISTINCT: Final = 0.5
_SHORT: Final = 3
_SENTENCE: Final = 0.2
"""Share of words of up to three letters in a sentence."""
_CODES: Final = 0.75
"""Share of words of up to three Latin letters from which on they are codes of countries or such."""
_READINGS: Final = 2
_NAMED: Final = 6
"""Different words that a structure has of its own."""
_AS_OFTEN: Final = 4
"""Words of the reading to one such word."""
_MISSED: Final = 3
"""Words that a reading may lack; with four somebody can ask for something."""
_MOST_DRESS: Final = 16
"""Characters of a structure to one of what it says."""
_STRETCH: Final = 6_000
"""Characters of a text that are looked at: a request of one word a line fits."""


class _Placed(msgspec.Struct, frozen=True):
    at: int
    text: str
    place: tuple[str, str]
    marked: bool


def slotted(text: str) -> tuple[str, ...]:
    """Return what the words of a text say that are spread over a structure, the longest first.

    At most two readings; () for a text without such places. Of a longer text the first 6,000
    characters are read.
    """
    text = text[:_STRETCH]
    if _MARKS.isdisjoint(text) and "," not in text:
        return ()
    found: dict[str, int] = {}
    for cut in (_ITEM, _RUN):
        items = list(_items(text, cut))
        for reading in _readings(items):
            found.setdefault(reading, len(reading))
    ranked = sorted(found, key=lambda one: -found[one])
    kept: list[str] = []
    for one in ranked:
        if not any(one in longer for longer in kept):
            kept.append(one)
    return tuple(kept[:_READINGS])


def spread_over(text: str, reading: str) -> bool:
    """Return whether a text is a structure that says a reading and hardly anything else.

    The words that are not the reading's are the structure's own: names, few, one beside each word.
    """
    said = _LETTERS_ONLY.findall(reading.casefold())
    read = set(said)
    others = Counter(one for one in _LETTERS_ONLY.findall(text.casefold()) if one not in read)
    rare = sum(count * _AS_OFTEN < len(said) for count in others.values())
    return (
        len(reading) * _MOST_DRESS >= len(text) and len(others) - rare <= _NAMED and rare <= _MISSED
    )


def _items(text: str, cut: re.Pattern[str]) -> Iterator[_Placed]:
    """Yield the text's words, or its runs of up to five, each with its place."""
    matches = list(cut.finditer(text))
    for number, match in enumerate(matches):
        before = text[matches[number - 1].end() if number else 0 : match.start()]
        end = matches[number + 1].start() if number + 1 < len(matches) else None
        after = text[match.end() : end]
        left, right = _near(before)[-2:], _near(after)[:2]
        marked = not _MARKS.isdisjoint(left + right) or {left[-1:], right[:1]} <= _ENDS
        yield _Placed(number, match[0], (left[-1:], right.translate(_CLOSERS)), marked)


def _near(between: str) -> str:
    """Return the marks between two words; a line's end is one, blanks are none."""
    return re.sub(r"\n+", "\n", between.replace(" ", "").replace("\t", ","))


def _readings(items: Sequence[_Placed]) -> Iterator[str]:
    places: dict[tuple[str, str], list[_Placed]] = {}
    for one in items:
        if one.marked:
            places.setdefault(one.place, []).append(one)
    _end(items, places)
    for place, own in places.items():
        if len(own) < _LEAST or len(own) < _SHARE * (own[-1].at - own[0].at + 1):
            continue
        if not any(_steady([one.at for one in own], lag) for lag in _LAGS):
            continue
        words = _varying([one.text for one in own])
        if len(words) >= _LEAST and _runs(words, named=not _NAMES.isdisjoint(place[1])):
            yield " ".join(words)


def _is_word(text: str) -> bool:
    return _LETTERS_ONLY.fullmatch(text) is not None and text[1:] == text[1:].lower()


def _varying(words: Sequence[str]) -> list[str]:
    """Return the words without what stands in every record, such as the record's kind."""
    bare = [word.rstrip(_SENTENCE_MARKS) for word in words]
    if 2 * sum(one != word for one, word in zip(bare, words, strict=True)) > len(words):
        words = bare  # a mark behind every word is the structure's
    counts = Counter(words)
    least = max(_LEAST // 2 + 1, _FILLER * len(words))
    return [word for word in words if counts[word] < least]


def _steady(places: Sequence[int], lag: int) -> bool:
    """Whether nearly all steps from a word to the so-manieth behind it are as long."""
    steps = Counter(after - before for before, after in zip(places, places[lag:], strict=False))
    return steps.total() > 0 and steps.most_common(1)[0][1] >= _STEADY * steps.total()


def _end(items: Sequence[_Placed], places: dict[tuple[str, str], list[_Placed]]) -> None:
    """Put the text's last word, behind which fewer marks stand, where it belongs."""
    last = items[-1] if items else None
    if last is None or len(places.get(last.place, ())) > 1:
        return
    for place, own in places.items():
        if place != last.place and place[0] == last.place[0] and place[1].startswith(last.place[1]):
            own.append(last)
            return


def _runs(words: Sequence[str], *, named: bool) -> bool:
    """Whether these look like running words: letters, seldom the same, not all of them names."""
    plain = sum(_is_word(one.rstrip(_SENTENCE_MARKS)) for one in words)
    small = sum(one == one.lower() for one in words)
    short = sum(len(one) <= _SHORT for one in words)
    return (
        plain >= _WORDS * len(words)
        and small >= _DISTINCT * len(words)
        and len(set(words)) >= _DISTINCT * len(words)
        and (not named or short >= _SENTENCE * len(words))
        and (short <= _CODES * len(words) or not "".join(words).isascii())
    )
