"""Text that an attacker wrote, made inert and visible for a page."""

import unicodedata

from markupsafe import Markup, escape

from safehold.trust.text import is_hidden

SHOWN_CHARS = 20_000
WHOLE_CHARS = 2_000_000
_MARKS = 3
_LIST = "<i class=hid>{}</i>"


def visible(text: str, limit: int = SHOWN_CHARS) -> Markup:
    """Return markup in which nothing of the text acts: every hidden character is spelt out.

    Controls, bidirectional and zero-width characters, lone surrogates and all but the first three
    of a pile of combining marks become escapes in a frame; beyond `limit` characters only a count
    is shown.
    """
    parts: list[str] = []
    plain: list[str] = []
    pile = 0
    for one in text[:limit]:
        pile = pile + 1 if unicodedata.combining(one) else 0
        if (one not in "\n\t" and is_hidden(one)) or pile > _MARKS:
            if plain:
                parts.append(str(escape("".join(plain))))
                plain.clear()
            parts.append(_LIST.format(f"\\u{{{ord(one):x}}}"))
        else:
            plain.append(one)
    parts.append(str(escape("".join(plain))))
    if len(text) > limit:
        parts.append(f"<i class=more> … {len(text) - limit:,} more characters</i>")
    return Markup("".join(parts))  # noqa: S704 - every piece is escaped above


def one_line(text: str, limit: int = 120) -> Markup:
    """Return a name or a short text in one line: newlines and tabs are spelt out too."""
    return visible(text.replace("\n", "⏎").replace("\t", "⇥"), limit)
