"""The first view: what a text looks like to a reader, in plain characters."""

import re
import unicodedata

from safehold.exchange.views.confusables import ENCLOSED, LOOKALIKES

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# Characters that show nothing: zero-width, joiners, soft hyphen, bidi controls, fillers,
# invisible operators, variation selectors, tags; and what only lengthens the stroke between two
# letters (Joining_Type C of Unicode: tatweel and its kin in N'Ko, Arabic, Mongolian).
INVISIBLE = (
    "\u0640\u07fa\u0883-\u0885"
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180a-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_INVISIBLE = re.compile(f"[{INVISIBLE}]+")
MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1-\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u06d6-\u06ed\u0711\u0730-\u074a\u07a6-\u07b0\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963"
    "\u0981-\u0983\u09bc-\u09cd\u09d7\u09e2\u09e3\u0a01-\u0a03\u0a3c-\u0a51\u0a70\u0a71\u0a75"
    "\u0a81-\u0a83\u0abc-\u0acd\u0ae2\u0ae3\u0b01-\u0b03\u0b3c-\u0b57\u0b62\u0b63\u0b82\u0bbe-\u0bcd\u0bd7"
    "\u0c00-\u0c04\u0c3c-\u0c56\u0c62\u0c63\u0c81-\u0c83\u0cbc-\u0cd6\u0ce2\u0ce3\u0d00-\u0d03\u0d3b-\u0d4d"
    "\u0d57\u0d62\u0d63\u0d81-\u0d83\u0dca-\u0df3\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc"
    "\u0ec8-\u0ece\u0f18\u0f19\u0f35\u0f37\u0f39\u0f71-\u0f84\u0f86\u0f87\u0f8d-\u0fbc\u102b-\u103e"
    "\u1056-\u1059\u105e-\u1064\u135d-\u135f\u1712-\u1714\u17b4-\u17d3\u17dd\u18a9\u1920-\u193b\u1a17-\u1a1b"
    "\u1b00-\u1b04\u1b34-\u1b44\u20d0-\u20f0\u302a-\u302f\u3099\u309a\ua823-\ua827\ua880\ua881\ua8b4-\ua8c5"
)
"""Vowel signs and other marks of scripts that write them, which are parts of words and no `\\w`."""
_MARKED_LATIN = re.compile(r"(?<=[A-Za-z])[\u0300-\u036f\u0488\u0489\u20d0-\u20f0]+")
_WORD = re.compile(r"[^\W\d_]+")
_LATIN = re.compile(r"[A-Za-z]")
_ALIKE = str.maketrans(LOOKALIKES)
_ENCLOSED = str.maketrans(ENCLOSED)


_SMALL_FORMS = (
    "\u1d00\u0299\u1d04\u1d05\u1d07\ua730\u0262\u029c\u026a\u1d0a\u1d0b\u029f\u1d0d\u0274\u1d0f\u1d18\ua7af"
    "\u0280\ua731\u1d1b\u1d1c\u1d20\u1d21\u028f\u1d22"
)
_SMALL_CAPITALS = str.maketrans(_SMALL_FORMS, "abcdefghijklmnopqrstuvwyz")
# No language is written in small capitals; one alone inside a word may be phonetic.
_SMALL = re.compile(rf"[{_SMALL_FORMS}]{{2,}}|\b[{_SMALL_FORMS}]\b")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def normalise(text: str, before: str = "") -> str:
    """Return the text without what is invisible, compatibility forms and look-alikes made plain.

    Look-alikes (Cyrillic, Greek and others) become Latin only in words that mix alphabets or, in
    text that is otherwise Latin, consist of look-alikes alone; Russian stays Russian. `before` is
    what stood before the text, which counts there. Half a surrogate pair becomes U+FFFD.

    Source: Unicode TR15 (NFKC), TR36 and TR39 (confusables).
    """
    if text.isascii():
        return text if text.isprintable() else _CONTROLS.sub("", text)
    if _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    plain = unicodedata.normalize("NFKC", _INVISIBLE.sub("", _CONTROLS.sub("", text)))
    plain = _INVISIBLE.sub("", plain).translate(_ENCLOSED)
    plain = _SMALL.sub(lambda word: word[0].translate(_SMALL_CAPITALS), plain)
    if plain.isascii():
        return plain
    plain = _MARKED_LATIN.sub("", plain)
    sample = before + plain[:4096]
    mostly_latin = len(_LATIN.findall(sample)) * 2 > sum(map(str.isalpha, sample))

    def made_plain(match: re.Match[str]) -> str:
        word = match[0]
        if word.isascii():
            return word
        latin = word.translate(_ALIKE)
        mixed = _LATIN.search(word) is not None
        return latin if latin.isascii() and (mixed or mostly_latin) else word

    return _WORD.sub(made_plain, plain)
