r"""Text that a person writes and another person reads before signing: one type for all of it.

What a requester writes is shown to an approver, on a terminal and in a browser. So no text may
move a cursor, turn the reading direction, hide a character or be drawn over another line. `\Z` and
not `$` ends every pattern: `$` would let one newline in (Python's `re`).
"""

import re
import unicodedata
from typing import Annotated

import msgspec

# Controls (Cc), formats (Cf), separators of lines (Zl, Zp), surrogates, private use, characters
# that are drawn as nothing (Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties),
# the blanks that look like nothing, and marks that strike a letter through or enclose it.
# Written out, so that every reader has the same table.
_RANGES = (
    (0x00, 0x1F),
    (0x7F, 0x9F),
    (0xAD, 0xAD),
    (0x334, 0x338),
    (0x34F, 0x34F),
    (0x488, 0x489),
    (0x600, 0x605),
    (0x61C, 0x61C),
    (0x6DD, 0x6DD),
    (0x70F, 0x70F),
    (0x890, 0x891),
    (0x8E2, 0x8E2),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0x20D2, 0x20D3),
    (0x20D8, 0x20DA),
    (0x20DD, 0x20E0),
    (0x20E2, 0x20E6),
    (0x20EA, 0x20EB),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xD800, 0xF8FF),
    (0xFDD0, 0xFDEF),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0xFFFE, 0xFFFF),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0x10FFFF),
)

# Blocks and runs of marks that are drawn above or below a letter: piled up they reach other lines.
_MARKS = (
    (0x300, 0x36F),
    (0x483, 0x487),
    (0x591, 0x5C7),
    (0x610, 0x61A),
    (0x64B, 0x65F),
    (0x670, 0x670),
    (0x6D6, 0x6ED),
    (0x711, 0x711),
    (0x730, 0x74A),
    (0x7A6, 0x7B0),
    (0x7EB, 0x7F3),
    (0x816, 0x82D),
    (0x859, 0x85B),
    (0x898, 0x902),
    (0x93A, 0x93A),
    (0x93C, 0x93C),
    (0x941, 0x948),
    (0x94D, 0x94D),
    (0x951, 0x957),
    (0xE31, 0xE31),
    (0xE34, 0xE3A),
    (0xE47, 0xE4E),
    (0xEB1, 0xEB1),
    (0xEB4, 0xEBC),
    (0xEC8, 0xECE),
    (0xF18, 0xF19),
    (0xF71, 0xF84),
    (0xF8D, 0xFBC),
    (0x102D, 0x103A),
    (0x135D, 0x135F),
    (0x17B7, 0x17D3),
    (0x1AB0, 0x1AFF),
    (0x1CD0, 0x1CF9),
    (0x1DC0, 0x1DFF),
    (0x20D0, 0x20F0),
    (0x2CEF, 0x2CF1),
    (0x2DE0, 0x2DFF),
    (0x302A, 0x302D),
    (0x3099, 0x309A),
    (0xA66F, 0xA67D),
    (0xA69E, 0xA69F),
    (0xA6F0, 0xA6F1),
    (0xA8E0, 0xA8F1),
    (0xFE20, 0xFE2F),
)
MOST_MARKS = 4
"""Marks in a row on one letter (Unicode Technical Standard 39, section 5.4)."""


def _class_of(ranges: tuple[tuple[int, int], ...]) -> str:
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


_FORBIDDEN = _class_of(_RANGES)
_IN_A_DOCUMENT = _class_of(((0x00, 0x08), (0x0B, 0x1F), *_RANGES[1:]))
_NO_PILE = f"(?!(?s:.*)[{_class_of(_MARKS)}]{{{MOST_MARKS + 1}}})"
LINE_PATTERN = f"^{_NO_PILE}[^{_FORBIDDEN}]+\\Z"
NAME_PATTERN = f"^(?!.*(?:p-[0-9a-f]{{16}}|\\(t-)){_NO_PILE}[^{_FORBIDDEN}]+\\Z"

Line = Annotated[str, msgspec.Meta(min_length=1, max_length=400, pattern=LINE_PATTERN)]
"""One line of visible text."""

Fact = Annotated[str, msgspec.Meta(min_length=1, max_length=1000, pattern=LINE_PATTERN)]
"""One longer line of visible text."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=120, pattern=NAME_PATTERN)]
"""The name of a person or a team: without what looks like an id, for that stands behind it."""

Document = Annotated[str, msgspec.Meta(pattern=f"^{_NO_PILE}[^{_IN_A_DOCUMENT}]*\\Z")]
"""Lines of visible text, with newlines and tabs: a policy file."""

# Letters of other scripts that are drawn as a Latin letter (a part of Unicode's confusables.txt),
# and the Latin ones and digits that are drawn alike.
_PAIRS = (
    "аa еe оo рp сc уy хx іi јj ѕs һh ԁd ԛq ԝw ӏi вb нh кk мm тt гr ьb "  # noqa: RUF001 - the point
    "αa εe οo ρp υu νv ιi κk τt χx γy ωw ηn ցg հh ոn սu օo ɡg ɑa ıi ǀi 0o 1i |i li"  # noqa: RUF001 - the point
)
_DRAWN_ALIKE = {ord(pair[0]): pair[1] for pair in _PAIRS.split()}


# The letters of Unicode that are one of A to Z with something about it, or a small capital.
_LATIN = re.compile(
    r"LATIN (?:SMALL LETTER|CAPITAL LETTER|LETTER SMALL CAPITAL) "
    r"(?:DOTLESS |SCRIPT |OPEN |LONG |REVERSED )?([A-Z])(?: WITH .*)?\Z"
)
# Scripts in common use (Unicode Standard Annex 31, table 5), as the names of letters begin.
_SCRIPTS = frozenset(
    (
        *("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "ETHIOPIC", "HEBREW", "ARABIC"),
        *("THAANA", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU"),
        *("KANNADA", "MALAYALAM", "SINHALA", "THAI", "LAO", "TIBETAN", "MYANMAR", "KHMER"),
        *("HANGUL", "HIRAGANA", "KATAKANA", "BOPOMOFO", "CJK"),
    )
)
_TOGETHER = frozenset({"HANGUL", "HIRAGANA", "KATAKANA", "BOPOMOFO", "CJK"})
"""Scripts that one word may mix with each other."""


def drawn(name: str) -> str:
    """Return what a name looks like: two names with one value can be taken for one another.

    Case, accents, strokes, width, spaces and punctuation do not count, digits of all scripts are
    one, and letters that are drawn alike in Latin, Greek, Cyrillic and Armenian are one.
    """
    plain = unicodedata.normalize("NFKD", name).casefold().translate(_DRAWN_ALIKE)
    ascii_ = "".join(_plainest(one) for one in plain).translate(_DRAWN_ALIKE)
    joined = ascii_.replace("rn", "m").replace("vv", "w")
    return "".join(one for one in joined if one.isalnum())


def _plainest(one: str) -> str:
    if one.isascii():
        return one
    digit = unicodedata.digit(one, None)
    if digit is not None:
        return str(digit)
    found = _LATIN.match(unicodedata.name(one, ""))
    return one if found is None else found[1].lower()


def odd_word(name: str) -> str | None:
    """Return a word that mixes scripts or is of one out of common use; None: there is none.

    Letters of two scripts in one word are how one name is dressed up as another, and scripts out
    of use have letters that are drawn like Latin ones.
    """
    for word in re.findall(r"[^\W\d_]+", unicodedata.normalize("NFKC", name)):
        scripts = {unicodedata.name(one, "?").split(" ")[0].split("-")[0] for one in word}
        if not scripts <= _SCRIPTS or (len(scripts) > 1 and not scripts <= _TOGETHER):
            return str(word)
    return None


def shown(text: str) -> str:
    """Return the text as it is shown to an approver.

    Characters that no field may hold are written as escapes (defence in depth: a type has refused
    them), and text that mixes Latin letters with another script is followed by its escaped form.
    """
    safe = "".join(
        f"\\u{{{ord(one):x}}}" if one not in "\n\t" and is_hidden(one) else one for one in text
    )
    scripts = {unicodedata.name(one, "?").split(" ")[0] for one in safe if one.isalpha()}
    if "LATIN" in scripts and len(scripts) > 1:
        spelt = "".join(one if one.isascii() else f"\\u{{{ord(one):x}}}" for one in safe)
        return f"{safe} [mixed alphabets: {spelt}]"
    return safe


def in_short(error: msgspec.ValidationError) -> str:
    """Return what a document was refused for, without the tables of characters above."""
    return re.sub(r"matching regex '.{200,}'", "of plain visible text", str(error))


def is_hidden(character: str) -> bool:
    """Tell whether one character may stand in no line."""
    return any(first <= ord(character) <= last for first, last in _RANGES)
