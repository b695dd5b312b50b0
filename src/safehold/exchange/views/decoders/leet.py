"""Leet: digits and signs in place of letters they look like."""

import re
from collections.abc import Iterator
from itertools import product

from safehold.exchange.views.english_likeness import likeness
from safehold.exchange.views.interface import Found, ViewSource, Work

_SURE = str.maketrans("03457@$68€£9", "oeastasgbelg")
_ONE = re.compile(r"[1!|]")
_TOKEN = re.compile(r"(?<![A-Za-z0-9@$|])[A-Za-z0-9@$!|€£]{2,24}+(?![A-Za-z0-9@$|])")
_HINT = re.compile(r"[A-Za-z][013457@$8!|][A-Za-z0-9@$]|(?<![\w.])[013457@$][A-Za-z]{2}")
_LETTER = re.compile(r"[A-Za-z]")
_SIGN = re.compile(r"[0-9@$!|€£]")
_HEX = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_WORDLIKE = 0.35
_MIN_WORDS = 2
_COST = 800
_MAX_ONES = 3
_MIN_SHARE = 0.3
_NEAR = 40
_LONE_WORD = 0.9
_LONE_CHARS = 4
_INSIDE = re.compile(r"[A-Za-z][0-9@$!|€£]+[A-Za-z]|[0-9@$][A-Za-z]+[0-9@$]")
_WORD = re.compile(r"\w+")
_SURE_WORDS = 4
_DIGEST_CHARS = 6
_TWO = frozenset(
    "am an as at be by do go he hi if in is it me my no of on or so to up us we".split()
)


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield the stretch from the first to the last leet word with its words made plain.

    Signs between letters count for more than numbers at a word's end (`R10`, `60min`), and a lone
    word must be a very likely one, so that `mp3` changes nothing.
    """
    if not (source.digits or _SIGN.search(source.text)) or not _HINT.search(source.text):
        return
    words = _words(source.text, work)
    strong = [word for word in words if _INSIDE.search(source.text[word[0] : word[1]])]
    if not strong or (len(strong) < _MIN_WORDS and not _sure(strong[0][2])):
        return
    words = [word for word in words if word[0] >= strong[0][0] - _NEAR]
    words = [word for word in words if word[1] <= strong[-1][1] + _NEAR]
    among = len(_WORD.findall(source.text, words[0][0], words[-1][1]))
    if len(words) < _MIN_SHARE * among:
        words = strong
    first, last = words[0][0], words[-1][1]
    pieces, at = [], first
    for start, end, plain in words:
        pieces += [source.text[at:start], plain]
        at = end
    yield Found(first, last, "".join(pieces), "leet")


def _words(text: str, work: Work) -> list[tuple[int, int, str]]:
    """Return the leet words of a text: where each begins and ends, and what it says."""
    words: list[tuple[int, int, str]] = []
    for match in _TOKEN.finditer(text):
        token, end = match[0], match.end()
        if not _SIGN.search(token):
            continue
        if not work.take(_COST):
            break
        if token[-1] in "!|":
            token, end = token[:-1], end - 1
        beside = text[max(0, match.start() - 1) : match.end() + 1]
        if "-" in (beside[:1], beside[-1:]) and _HEX.fullmatch(token):
            continue  # a group of a UUID
        plain = _plain(token, sure=len(words) >= _SURE_WORDS)
        if plain is not None:
            words.append((match.start(), end, plain))
    return words


def _plain(token: str, *, sure: bool) -> str | None:
    """Return the word that a token is in leet; numbers only `sure` in the middle of leet."""
    if _HEX.fullmatch(token) and len(token) >= _DIGEST_CHARS:
        return None
    if not _LETTER.search(token) and not (sure and len(token) == 2):
        return None
    plain = _best(token)
    if not plain.isalpha() or plain == token:
        return None
    wordlike = plain.lower() in _TWO if len(plain) == 2 else likeness(plain) >= _WORDLIKE
    return plain if wordlike else None


def _sure(word: str) -> bool:
    return len(word) >= _LONE_CHARS and likeness(word) >= _LONE_WORD


def _best(token: str) -> str:
    """Return the likeliest reading: a one, a bar or an exclamation mark may be i or l."""
    plain = token.translate(_SURE)
    pieces = _ONE.split(plain)
    ones = min(len(pieces) - 1, _MAX_ONES)
    if not ones:
        return plain
    readings = []
    for choice in product("il", repeat=ones):
        letters = [*choice, *"i" * (len(pieces) - 1 - ones), ""]
        readings.append("".join(map("".join, zip(pieces, letters, strict=True))))
    return max(readings, key=likeness)
