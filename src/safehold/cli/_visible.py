"""Hostile text made harmless for a terminal."""

import unicodedata

_KEPT = frozenset("\n\t")
_SELECTORS = frozenset(map(chr, range(0xE0100, 0xE01F0)))  # no font shows them; they can carry text


def visible(text: str) -> str:
    """Return the text with control, bidi, invisible and lone surrogate characters as escapes.

    Prompts and replies are hostile: an escape sequence could rewrite what a reviewer sees.
    """
    return "".join(
        f"\\u{{{ord(character):x}}}"
        if character not in _KEPT
        and (unicodedata.category(character).startswith("C") or character in _SELECTORS)
        else character
        for character in text
    )
