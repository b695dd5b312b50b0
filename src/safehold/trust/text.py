r"""Text that a person writes and another person reads before signing: one type for all of it.

What a requester writes is shown to an approver, on a terminal and in a browser. So no text may
move a cursor, turn the reading direction or hide a character. `\Z` and not `$` ends every
pattern: `$` would let one newline in (Python's `re`).
"""

import unicodedata
from typing import Annotated

import msgspec

# Controls (Cc), formats (Cf), separators of lines (Zl, Zp), surrogates, private use, characters
# that are drawn as nothing (Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties) and
# the blanks that look like nothing. Written out, so that every reader has the same table.
_RANGES = (
    (0x00, 0x1F),
    (0x7F, 0x9F),
    (0xAD, 0xAD),
    (0x34F, 0x34F),
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


def _class_of(ranges: tuple[tuple[int, int], ...]) -> str:
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


_FORBIDDEN = _class_of(_RANGES)
_IN_A_DOCUMENT = _class_of(((0x00, 0x08), (0x0B, 0x1F), *_RANGES[1:]))
LINE_PATTERN = f"^[^{_FORBIDDEN}]+\\Z"

Line = Annotated[str, msgspec.Meta(min_length=1, max_length=400, pattern=LINE_PATTERN)]
"""One line of visible text."""

Fact = Annotated[str, msgspec.Meta(min_length=1, max_length=1000, pattern=LINE_PATTERN)]
"""One longer line of visible text."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=120, pattern=LINE_PATTERN)]
"""The name of a person or a team."""

Document = Annotated[str, msgspec.Meta(pattern=f"^[^{_IN_A_DOCUMENT}]*\\Z")]
"""Lines of visible text, with newlines and tabs: a policy file."""

# Letters of other scripts that are drawn as a Latin letter (a part of Unicode's confusables.txt),
# and the Latin ones and digits that are drawn alike.
_PAIRS = (
    "аa еe оo рp сc уy хx іi јj ѕs һh ԁd ԛq ԝw ӏi вb нh кk мm тt гr ьb "  # noqa: RUF001 - the point
    "αa εe οo ρp υu νv ιi κk τt χx γy ωw ηn ցg հh ոn սu օo ɡg ɑa ıi ǀi 0o 1i |i li"  # noqa: RUF001 - the point
)
_DRAWN_ALIKE = {ord(pair[0]): pair[1] for pair in _PAIRS.split()}


def drawn(name: str) -> str:
    """Return what a name looks like: two names with one value can be taken for one another.

    Case, accents, width, spaces and punctuation do not count, and letters that are drawn alike
    in Latin, Greek, Cyrillic and Armenian are one.
    """
    plain = unicodedata.normalize("NFKD", name).casefold().translate(_DRAWN_ALIKE)
    joined = plain.replace("rn", "m").replace("vv", "w")
    return "".join(one for one in joined if one.isalnum())


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


def is_hidden(character: str) -> bool:
    """Tell whether one character may stand in no line."""
    return any(first <= ord(character) <= last for first, last in _RANGES)
