"""Look-alike, styled, combining and invisible characters."""

import string
from collections.abc import Callable

from safehold.detect.redteam.transforms.interface import Family, Transform

_LETTERS = string.ascii_letters
_CYRILLIC = str.maketrans(
    "aceopxyABCEHKMOPTX",
    "\u0430\u0441\u0435\u043e\u0440\u0445\u0443\u0410\u0412\u0421\u0415\u041d\u041a\u041c\u041e\u0420\u0422\u0425",
)
_SMALL_CAPS = str.maketrans(
    string.ascii_lowercase,
    "\u1d00\u0299\u1d04\u1d05\u1d07\ua730\u0262\u029c\u026a\u1d0a\u1d0b\u029f\u1d0d\u0274\u1d0f\u1d18\u01eb\u0280s\u1d1b\u1d1c\u1d20\u1d21x\u028f\u1d22",
)
_SUPER = str.maketrans("abcdefghijklmnoprstuvwxyz0123456789", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ⁰¹²³⁴⁵⁶⁷⁸⁹")
_UPSIDE = str.maketrans(
    "abcdefghijklmnopqrstuvwxyz?!.,'",
    "\u0250q\u0254p\u01dd\u025f\u0183\u0265\u1d09\u027e\u029el\u026fuodb\u0279s\u0287n\u028c\u028dx\u028ez\u00bf\u00a1\u02d9',",
)
_MARKS = "\u0300\u0301\u0302\u0303\u0307\u0308\u030a\u030c"
_STACK = "\u0300\u0316\u0301\u0317\u0334\u0323\u0306\u032d"
_TAG = 0xE0000
_SELECTOR = 0xE0100


def _offset(upper: int, lower: int, digits: int | None = None) -> Callable[[str], str]:
    """Return a translation of letters to a run of styled ones."""
    table = {ord(mark): upper + at for at, mark in enumerate(string.ascii_uppercase)}
    table |= {ord(mark): lower + at for at, mark in enumerate(string.ascii_lowercase)}
    if digits is not None:
        table |= {ord(mark): digits + at for at, mark in enumerate(string.digits)}
    return lambda text: text.translate(table)


def _fullwidth(text: str) -> str:
    return "".join(
        "\u3000" if mark == " " else chr(ord(mark) + 0xFEE0) if "!" <= mark <= "~" else mark
        for mark in text
    )


def _regional(text: str) -> str:
    return "".join(
        chr(0x1F1E6 + ord(mark) - 97) + "\u200b" if mark.isascii() and mark.isalpha() else mark
        for mark in text.lower()
    )


def _between(mark: str) -> Callable[[str], str]:
    return mark.join


def _bidi(text: str) -> str:
    """Store the text backwards inside a right-to-left override: it displays forwards."""
    return f"\u202e{text[::-1]}\u202c"


def _tags(text: str) -> str:
    """Hide the ASCII in tag characters, which no font shows."""
    return "".join(chr(_TAG + ord(mark)) for mark in text if mark.isascii())


def _selectors(text: str) -> str:
    """Hide bytes in variation selectors behind one visible character."""
    hidden = (
        chr(0xFE00 + byte) if byte < 16 else chr(_SELECTOR + byte - 16) for byte in text.encode()
    )
    return "🙂" + "".join(hidden)


def _sneaky_bits(text: str) -> str:
    """Hide bits in two invisible operators."""
    bits = "".join(f"{byte:08b}" for byte in text.encode())
    return bits.replace("0", "\u2062").replace("1", "\u2064")


def _diacritics(text: str) -> str:
    return "".join(
        mark + _MARKS[at % len(_MARKS)] if mark.isalpha() else mark for at, mark in enumerate(text)
    )


def _zalgo(text: str) -> str:
    return "".join(
        mark + "".join(_STACK[(at + step) % len(_STACK)] for step in range(3))
        if mark.isalpha()
        else mark
        for at, mark in enumerate(text)
    )


_U = Family.UNICODE
UNICODE: tuple[Transform, ...] = (
    Transform("fullwidth", _U, _fullwidth),
    Transform("math-bold", _U, _offset(0x1D400, 0x1D41A, 0x1D7CE)),
    Transform("math-sans-italic", _U, _offset(0x1D608, 0x1D622)),
    Transform("math-double-struck", _U, _offset(0x1D538, 0x1D552, 0x1D7D8)),
    Transform("circled", _U, _offset(0x24B6, 0x24D0)),
    Transform("squared", _U, _offset(0x1F130, 0x1F130)),
    Transform("regional", _U, _regional, "", None, 2),
    Transform("small-caps", _U, lambda text: text.lower().translate(_SMALL_CAPS)),
    Transform("superscript", _U, lambda text: text.lower().translate(_SUPER)),
    Transform("upside-down", _U, lambda text: text.lower().translate(_UPSIDE)[::-1]),
    Transform("cyrillic-homoglyphs", _U, lambda text: text.translate(_CYRILLIC)),
    Transform("zero-width", _U, _between("\u200b"), "", None, 2),
    Transform("word-joiner", _U, _between("\u2060"), "", None, 2),
    Transform("soft-hyphens", _U, _between("\u00ad"), "", None, 2),
    Transform("tatweel", _U, _between("\u0640"), "", None, 2),
    Transform("bidi-override", _U, _bidi),
    Transform("tag-smuggling", _U, _tags, "invisible tag characters"),
    Transform("variation-selectors", _U, _selectors, "bytes in variation selectors"),
    Transform("sneaky-bits", _U, _sneaky_bits, "bits in invisible operators", None, 8),
    Transform("diacritics", _U, _diacritics, "", None, 2),
    Transform("zalgo", _U, _zalgo, "", None, 3.5),
)
