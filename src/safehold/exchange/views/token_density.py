"""Where a text is no language: long tokens, and runs of tokens with digits and signs."""

import re

_TOKEN = re.compile(r"\S+")
_SIGN = re.compile(r"[0-9%&\\=+<>@#_^`~|{}\[\]*$]|[.\-/]{2}")
_LONG = 16
_SHORT = 3
# Short tokens inside a run belong to it, unless they are words of a sentence around it.
_WORDS = frozenset(
    {"a", "an", "and", "for", "i", "in", "is", "it", "me", "my", "of", "or", "the", "to", "you"}
)


def dense_spans(text: str) -> list[tuple[int, int]]:
    """Return spans of at least 16 characters in which encodings may lie, in the text's order."""
    found: list[tuple[int, int]] = []
    start = end = lead = 0
    last_short = False
    for match in _TOKEN.finditer(text):
        token = match[0]
        short = len(token) <= _SHORT and token.lower().strip(".,:;") not in _WORDS
        if len(token) >= _LONG or _SIGN.search(token):
            if not end:
                start = lead if last_short else match.start()
            end = match.end()
        elif short and end:
            end = match.end()
        elif end:
            if end - start >= _LONG:
                found.append((start, end))
            start = end = 0
        if short and not last_short:
            lead = match.start()
        last_short = short
    if end - start >= _LONG:
        found.append((start, end))
    return found
