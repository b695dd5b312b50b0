"""What a reader makes of a text: normalised, and without what is put around each word.

A reader skips markup, brackets and a filler that comes back with every word; a scorer of words and
their neighbours does not, so a constant affix hides a text from it. The reader's form has words,
numbers and sentence marks alone. It is a stream: words in, words out, the same for any split at
white space.
"""

import re
from collections import deque
from operator import and_, eq

from safehold.exchange.views.normalise import MARKS, normalise

_PLAIN = re.compile(r"[A-Za-z0-9]+(?:['\-][A-Za-z0-9]+)*[.,;:]?")
_CALM = re.compile(rf"\s*(?:{_PLAIN.pattern}\s+)*")
_ANSI = re.compile(r"(?:\x1b|\\e|\\033|\\x1b|\\u001b)?\[[0-9;]{0,8}m")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,60}>")
_CLOCK = re.compile(r"\d\d:\d\d:\d\d[,.]\d{3}|-->")
_MARKUP = ((":", _CLOCK, " "), ("](", _LINK, r"\1"), ("<", _TAG, " "))
_LETTERS = rf"(?:(?!_)[\w{MARKS}])+"
_RUNS = re.compile(rf"{_LETTERS}(?:['\u2019.,:/\-]{_LETTERS})*[%°]?")
_LAST_MARK = re.compile(r"[.,;:]\s*\Z")
_PERIODS = (2, 3, 4)
_SPAN = 32
_MANY = 4


class Reader:
    """The reader's form of a growing text.

    `feed` takes whole words and returns how a reader sees them. `differs` says whether the last
    32 words differ enough from what stood there to be worth a score of their own: one hidden or
    look-alike character, or marks or fillers at 4 of them.
    """

    __slots__ = ("_before", "_latin", "_runs", "_sum", "_weights")

    def __init__(self) -> None:
        self._before: deque[str] = deque(maxlen=max(_PERIODS) * 2 + 2)
        self._weights: deque[int] = deque([0] * _SPAN, maxlen=_SPAN)
        self._sum = 0
        self._runs: list[str] = []
        self._latin = ""

    @property
    def differs(self) -> bool:
        """Whether a reader sees something else than what stands there."""
        return self._sum >= _MANY

    def _weigh(self, weight: int) -> None:
        """Note what the next word weighs; the one that leaves the span weighs no more."""
        self._sum += weight - self._weights[0]
        self._weights.append(weight)

    def feed(self, text: str) -> str:
        """Return the reader's form of the next words, each followed by a blank."""
        plain = text
        if not text.isascii() or not text.isprintable():
            plain = normalise(_ANSI.sub("", text), self._latin)
        hidden = plain != text
        self._latin = (self._latin + plain)[-256:]
        for mark, pattern, shown_as in _MARKUP:
            if mark in plain:
                plain, count = pattern.subn(shown_as, plain)
                for _ in range(count):
                    self._weigh(1)
        if hidden:
            self._weigh(_MANY)
        shown = [seen for word in plain.split() if (seen := self._word(word))]
        return " ".join(shown) + " " if shown else ""

    def calm(self, text: str) -> list[str] | None:
        """Return the words of a text that a reader sees as it stands, whole words alone.

        None where it must be fed word by word. Nothing changes: `went` notes that it was passed.
        """
        if self._sum or not text.isascii() or not text.isprintable():
            return None
        if "](" in text or not _CALM.fullmatch(text):
            return None
        words, before = text.split(), self._before
        if len(words) == 1:
            return None if words[0] in before and self._comes_back(words[0]) else words
        said = [*before, *words]
        for period in _PERIODS:
            again = list(map(eq, said, said[period:]))
            if any(map(and_, again, again[period:])):
                return None
        return words

    def _comes_back(self, word: str) -> bool:
        """Whether the next word stands before it twice at one distance, as a filler does."""
        before, count = self._before, len(self._before)
        for period in _PERIODS:
            if count < period * 2:
                return False
            if before[-period] == word == before[-period * 2]:
                return True
        return False

    def went(self, words: list[str], text: str) -> str:
        """Note that a calm text was passed, and return its reader's form, as `feed` does."""
        self._before.extend(words)
        self._latin = (self._latin + text)[-256:]
        self._runs = []
        return " ".join(words) + " " if words else ""

    def _word(self, word: str) -> str:
        if _PLAIN.fullmatch(word):
            seen, marked = word, 0
            self._runs = []
        else:
            seen, marked = self._unmarked(word)
        filler = self._is_filler(word)
        self._weigh(1 if marked or filler else 0)
        return "" if filler else seen

    def _unmarked(self, word: str) -> tuple[str, int]:
        """Return a word without marks and constant parts, and whether that changed it."""
        runs = _RUNS.findall(word)
        before, self._runs = self._runs, runs
        if len(runs) > 1:
            if runs[0] == runs[-1] and len(runs) == 2:
                runs = runs[:1]
            elif len(before) > 1:
                runs = _varying(runs, before)
        seen = " ".join(runs)
        mark = _LAST_MARK.search(word)
        if mark and seen:
            seen += mark[0]
        return seen, int(seen != word)

    def _is_filler(self, word: str) -> bool:
        """Tell whether this word came back between changing ones, the third time at one distance.

        A phrase that repeats as a whole ("and so on and so on") has no filler.
        """
        before = self._before
        known = word in before
        before.append(word)
        if not known:
            return False
        last = len(before) - 1
        return any(
            last > period * 2
            and before[last - period] == word == before[last - period * 2]
            and before[last - 1] != before[last - 1 - period]
            for period in _PERIODS
        )


def _varying(runs: list[str], before: list[str]) -> list[str]:
    """Return the parts of a word that are not the same at the same end of the word before it."""
    start, end = 0, len(runs)
    while start < end - 1 and start < len(before) - 1 and runs[start] == before[start]:
        start += 1
    while end > start + 1 and len(runs) - end < len(before) - 1:
        if runs[end - 1] != before[len(before) - 1 - (len(runs) - end)]:
            break
        end -= 1
    return runs[start:end]


def readable(text: str) -> str | None:
    """Return a whole text as a reader sees it; None where that is worth no score of its own."""
    reader = Reader()
    shown: list[str] = []
    differs = False
    for line in text.splitlines():
        words = line.split()
        for start in range(0, len(words), _SPAN // 2):
            part = " ".join(words[start : start + _SPAN // 2])
            calm = reader.calm(f"{part} ")
            shown.append(reader.feed(part) if calm is None else reader.went(calm, part))
            differs = differs or reader.differs
    return "".join(shown) if differs else None
