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
_MARKED_LATIN = re.compile(r"(?<=[A-Za-z])[\u0300-\u036f\u0489\u20d0-\u20f0]+")
_WORD = re.compile(r"[^\W\d_]+")
_LATIN = re.compile(r"[A-Za-z]")
_ALIKE = str.maketrans(LOOKALIKES)
_ENCLOSED = str.maketrans(ENCLOSED)


def normalise(text: str) -> str:
    """Return the text without what is invisible, compatibility forms and look-alikes made plain.

    Look-alikes (Cyrillic, Greek and others) become Latin only in words that mix alphabets or, in
    text that is otherwise Latin, consist of look-alikes alone; Russian stays Russian.

    Source: Unicode TR15 (NFKC), TR36 and TR39 (confusables).
    """
    if text.isascii():
        return text if text.isprintable() else _CONTROLS.sub("", text)
    plain = unicodedata.normalize("NFKC", _INVISIBLE.sub("", _CONTROLS.sub("", text)))
    plain = _INVISIBLE.sub("", plain).translate(_ENCLOSED)
    if plain.isascii():
        return plain
    plain = _MARKED_LATIN.sub("", plain)
    mostly_latin = len(_LATIN.findall(plain[:4096])) * 2 > sum(
        character.isalpha() for character in plain[:4096]
    )

    def made_plain(match: re.Match[str]) -> str:
        word = match[0]
        if word.isascii():
            return word
        latin = word.translate(_ALIKE)
        mixed = _LATIN.search(word) is not None
        return latin if latin.isascii() and (mixed or mostly_latin) else word

    return _WORD.sub(made_plain, plain)
