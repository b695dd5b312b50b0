"""Looking one encoding ahead: does a reading hold base64, escapes, codes … that open?

A cipher of English is told by its English. A cipher of base64 or of escapes is told only by
undoing it and finding that what comes out opens.
"""

import re
from itertools import islice

from safehold.exchange.views.decoders import (
    base_16,
    base_32,
    base_64,
    base_85,
    char_codes,
    escapes,
    morse,
    nato,
    uu,
)
from safehold.exchange.views.english_likeness import Letters, likeness, mirrored, rotations
from safehold.exchange.views.interface import Find, ViewSource, Work

# What a text must look like for a decoder to be worth asking, whatever its letters are moved to.
_SHAPES: tuple[tuple[re.Pattern[str], Find], ...] = (
    (re.compile(r"[0-9A-Za-z]{16}|(?:[0-9A-Za-z]{2}[\s:,\-]){6}"), base_16.find),
    (re.compile(r"[A-Z2-7]{16}|[a-z2-7]{16}|(?:[A-Z2-7]{8,}=*\s){2}"), base_32.find),
    (re.compile(r"[A-Za-z0-9+/_-]{16}"), base_64.find),
    (re.compile(r"[!-~]{24}|<~"), base_85.find),
    (re.compile(r"^[!-M][ -`]{16,84}$", re.MULTILINE), uu.find),
    (re.compile(r"(?:%[0-9A-Za-z]{2}){4}"), escapes.find_url),
    (re.compile(r"(?:&#[A-Za-z]?[0-9A-Za-z]{2,6};){4}"), escapes.find_html),
    (re.compile(r"(?:=[0-9A-Za-z]{2}){4}"), escapes.find_quoted_printable),
    (
        re.compile(r"(?:\\[A-Za-z][0-9A-Za-z]{2,8}){4}|(?:[A-Z]\+[0-9A-Z]{4,6}\s){4}"),
        escapes.find_unicode,
    ),
    (re.compile(r"(?:\d{2,7}[\s,;:|/\-]+){5}"), char_codes.find),
    (re.compile(r"[01]{16}|(?:[01]{7,8}[\s,]+){3}"), char_codes.find_binary),
    (re.compile(r"(?:[.\-·_]{1,7}[\s/|]+){6}"), morse.find),
    (re.compile(r"(?i:alpha|echo|oscar|tango|india|november|sierra|romeo)"), nato.find),
)
SAMPLE = 192
_WORDLIKE = 0.3
_COST = 600
_COVERED = 0.6


def opened(text: str, work: Work) -> float | None:
    """Return how English is what opens in a text's beginning; None when nothing English does."""
    sample = text[:SAMPLE]
    finds = [find for shape, find in _SHAPES if shape.search(sample)]
    if not finds or not work.take(len(finds) * _COST):
        return None
    source = ViewSource(sample)
    best = None
    for find in finds:
        for part in islice(find(source, work), 2):
            if part.end - part.start < _COVERED * len(sample.strip()):
                continue
            score = readable(part.text)
            if score >= _WORDLIKE and (best is None or score > best):
                best = score
    return best


def readable(text: str) -> float:
    """Return how English a text is; of invisible or other scripts, what still lets it pass."""
    if not text.isascii():
        return _WORDLIKE
    letters = Letters(text[:SAMPLE])
    return max(letters.mean(), likeness(text[:SAMPLE][::-1]) - _WORDLIKE)


def ciphered(text: str) -> float:
    """Return how English a text is under the best letter cipher."""
    codes = Letters(text[:SAMPLE]).codes
    return max(float(rotations(codes).max()), mirrored(codes))
