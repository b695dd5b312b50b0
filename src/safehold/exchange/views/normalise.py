"""The first view: what a text looks like to a reader, in plain characters."""

import re
import unicodedata

from safehold.exchange.views.confusables import ENCLOSED, LOOKALIKES

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# Characters that show nothing: zero-width, joiners, soft hyphen, bidi controls, fillers,
# invisible operators, variation selectors, tags.
INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_INVISIBLE = re.compile(f"[{INVISIBLE}]+")
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
