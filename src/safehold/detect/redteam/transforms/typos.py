"""What hurried or stubborn fingers do: leet, swaps, drops, doubles, cases."""

import re
import zlib

from safehold.detect.redteam.transforms.interface import Family, Transform

_LEET = str.maketrans("aeiost", "431057")
_HEAVY = {
    "a": "4",
    "b": "8",
    "c": "(",
    "d": "|)",
    "e": "3",
    "g": "6",
    "h": "#",
    "i": "1",
    "k": "|<",
    "l": "|",
    "n": "|\\|",
    "o": "0",
    "s": "$",
    "t": "7",
    "v": "\\/",
    "w": "\\/\\/",
}
_NEXT = str.maketrans("qwertyuiopasdfghjklzxcvbnm", "wertyuioposdfghjklkxcvbnmn")
_WORD = re.compile(r"[A-Za-z]+")


def _dice(word: str, sides: int) -> int:
    """Return a repeatable throw that depends on the word."""
    return zlib.crc32(word.encode()) % sides


def _heavy(text: str) -> str:
    return "".join(_HEAVY.get(mark, mark) for mark in text.lower())


def _swapped(text: str) -> str:
    def swap(match: re.Match[str]) -> str:
        word = match[0]
        if len(word) < 4:
            return word
        at = 1 + _dice(word, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :] if at + 1 < len(word) else word

    return _WORD.sub(swap, text)


def _scrambled(text: str) -> str:
    """Keep the first and last letter of each word and turn the middle round."""
    return _WORD.sub(
        lambda m: m[0][:1] + m[0][1:-1][::-1] + m[0][-1:] if len(m[0]) > 1 else m[0], text
    )


def _vowels_out(text: str) -> str:
    return _WORD.sub(lambda m: m[0][0] + re.sub(r"[aeiou]", "", m[0][1:]), text)


def _dropped(text: str) -> str:
    def drop(match: re.Match[str]) -> str:
        word = match[0]
        at = 1 + _dice(word, max(1, len(word) - 1))
        return word[:at] + word[at + 1 :] if len(word) > 3 else word

    return _WORD.sub(drop, text)


def _doubled(text: str) -> str:
    return "".join(mark * 2 if mark.isalpha() else mark for mark in text)


def _alternating(text: str) -> str:
    return "".join(mark.upper() if at % 2 else mark.lower() for at, mark in enumerate(text))


def _random_capitals(text: str) -> str:
    return "".join(
        mark.upper() if _dice(f"{at}{mark}", 2) else mark.lower() for at, mark in enumerate(text)
    )


def _neighbours(text: str) -> str:
    return "".join(
        mark.translate(_NEXT) if mark.isalpha() and at % 9 == 4 else mark
        for at, mark in enumerate(text)
    )


def _punctuated(text: str) -> str:
    marks = ",;.!~"
    return " ".join(word + marks[_dice(word, len(marks))] for word in text.split())


def _inner_spaces(text: str) -> str:
    return _WORD.sub(
        lambda m: f"{m[0][: len(m[0]) // 2]} {m[0][len(m[0]) // 2 :]}" if len(m[0]) > 4 else m[0],
        text,
    )


def _stars(text: str) -> str:
    return _WORD.sub(lambda m: m[0][:1] + "*" + m[0][2:] if len(m[0]) > 4 else m[0], text)


_T = Family.TYPING
TYPING: tuple[Transform, ...] = (
    Transform("leet", _T, lambda text: text.lower().translate(_LEET)),
    Transform("leet-heavy", _T, _heavy, "", None, 1.4),
    Transform("swapped-letters", _T, _swapped),
    Transform("scrambled-middles", _T, _scrambled),
    Transform("vowels-out", _T, _vowels_out),
    Transform("dropped-letters", _T, _dropped),
    Transform("doubled-letters", _T, _doubled, "", None, 2),
    Transform("alternating-case", _T, _alternating),
    Transform("random-capitals", _T, _random_capitals),
    Transform("neighbour-keys", _T, _neighbours),
    Transform("punctuated", _T, _punctuated, "", None, 1.2),
    Transform("inner-spaces", _T, _inner_spaces),
    Transform("starred", _T, _stars),
)
