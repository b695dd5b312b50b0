"""A text in the first letters of words or lines: acrostics, and words that stand for letters."""

import re
from collections.abc import Iterator

from safehold.exchange.views.english_likeness import likeness
from safehold.exchange.views.interface import Found, ViewSource, Work

_LINE = re.compile(r"^[ \t>*\-\d.)]*([A-Za-z])", re.MULTILINE)
_WORD = re.compile(r"(?<![\w'])[A-Za-z](?=[A-Za-z'\-]*)")
_LEAST = 28
_SAMPLE = 300
_ENGLISH = 0.4
_FEW_LETTERS = 2
_RUN = re.compile(r"[\w']+|[^\w']+")
_MOST = 1200


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield what the first letters of the lines, or of the words, spell."""
    text = source.text
    if not source.ascii and source.letters.count < len(text) // _FEW_LETTERS:
        return
    if not work.take(2 * len(text) + 600):
        return
    lines = "".join(_LINE.findall(text))
    words = "".join(_WORD.findall(text))
    for letters, how in ((lines, "line-initials"), (words, "initials")):
        if len(letters) >= _LEAST and _spells(letters[:_SAMPLE].lower()):
            yield Found(0, len(text), letters.lower(), how)


class InitialsStream:
    """The same for a growing text, however far apart the lines are, in bounded memory."""

    __slots__ = ("_fresh", "_inside", "_letters", "_newline")

    def __init__(self) -> None:
        self._inside = False
        self._newline = True
        self._letters = {"line": "", "word": ""}
        self._fresh = {"line": 0, "word": 0}

    def feed(self, text: str) -> list[str]:
        """Take the next characters; return what the first letters spell, without spaces.

        Each reading holds all that was spelt so far and takes the place of the one before.
        """
        for run in _RUN.findall(text):
            first = run[0]
            if not (first.isalnum() or first in "_'"):
                self._inside = False
                self._newline = self._newline or "\n" in run
                continue
            if not self._inside and first.isascii() and first.isalpha():
                self._add("word", first)
                if self._newline:
                    self._add("line", first)
            if not first.isdigit():  # a number before the words of a line does not begin it
                self._newline = False
            self._inside = True
        found = []
        for kind, letters in self._letters.items():
            if self._fresh[kind] >= _LEAST and _spells(letters[-_SAMPLE:]):
                self._fresh[kind] = 0
                found.append(letters)
        return found

    def _add(self, kind: str, letter: str) -> None:
        self._letters[kind] = (self._letters[kind] + letter.lower())[-_MOST:]
        self._fresh[kind] += 1


def _spells(letters: str) -> bool:
    return len(set(letters)) >= 8 and likeness(letters) >= _ENGLISH
