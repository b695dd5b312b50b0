"""Is what a decoder got a text, or the rubbish that decoding ordinary text gives?"""

import base64
import binascii
import re
from collections.abc import Callable

from safehold.exchange.views.english_likeness import Letters, likeness, mirrored, rotations

ENGLISH = 0.55
"""Bits per letter from which a short text reads as English; see `likeness`."""

_CIPHER = 0.9
"""The same for the best of many readings, of which some reading of rubbish will look good."""

SHORT_COST = 3000
"""Work of judging a short text in many readings; see `Work`."""

_SHORT_BYTES = 24
"""Random bytes of this length are printable text with a chance below 1e-10."""

_SAMPLE_CHARS = 160
_MIN_LETTERS = 5
_LOOSE_END = 6
_RUBBISH = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufff9-\uffff\ud800-\udfff]")
_STRUCTURED = re.compile(
    r"[\s.\-/|]{9,}"
    r"|(?:\d{2,3}[\s,;]+){5,}(?:\d{1,3})?"
    r"|(?:[01]{7,8}[\s,;]*){3,}"
    r"|(?:[0-9A-Fa-f]{2}[\s:]){6,}(?:[0-9A-Fa-f]{1,2})?"
    r"|(?:(?:\\u|\\x|%|=|&#x?|U\+|0x)[0-9A-Fa-f]{2,6};?\s*){4,}(?:\\u|\\x|\\|%|=|&#?|U)?"
)
_TOKEN_SAMPLE = 64
_DENSE = re.compile(r"[!-~]{15,}")
_BASE_85 = (base64.b85decode, base64.a85decode)
_ARMOUR = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,6}|<~[!-uz\s]{8,}~>")


def text_of(raw: bytes) -> str | None:
    """Return the text that decoded bytes are, or None when they are none.

    Long printable ASCII is text by its improbability; short results must also mean something, and
    other scripts must keep to one or two alphabets.
    """
    raw = raw.rstrip(b"\0")
    if not raw:
        return None
    if raw[1::2].count(0) * 4 >= len(raw) and not raw[::2].count(0):
        text = raw.decode("utf-16-le", "replace")
    elif raw[::2].count(0) * 4 >= len(raw):
        text = raw.decode("utf-16-be", "replace")
    else:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            # The end of a growing or cut text may lack the rest of its last character.
            if error.start < len(raw) - 3 or error.start < _SHORT_BYTES // 2:
                return None
            text = raw[: error.start].decode("utf-8")
    if _RUBBISH.search(text):
        return None
    if not text.isascii():
        return text if _one_alphabet(text) else None
    if len(text) >= _SHORT_BYTES or meaningful(text):
        return text
    return None


def meaningful(text: str) -> bool:
    """Tell whether a short text is English, a simple cipher of it, or an encoding again."""
    sample = text[:_SAMPLE_CHARS]
    letters = Letters(sample)
    if letters.count >= _MIN_LETTERS:
        if letters.mean() >= ENGLISH:
            return True
        if letters.count * 2 >= len(sample):
            best = max(rotations(letters.codes).max(), mirrored(letters.codes))
            if max(best, likeness(sample[::-1])) >= _CIPHER:
                return True
    structured = _STRUCTURED.match(sample)
    if structured is not None and len(structured[0]) + _LOOSE_END >= len(sample):
        return True
    return armoured(sample)


def armoured(text: str) -> bool:
    """Tell whether a text is bytes in base16, 32, 64 or 85 whose beginning is readable."""
    match = _ARMOUR.search(text)
    if match is not None and any(map(_readable, _readings(match[0][:_TOKEN_SAMPLE]))):
        return True
    dense = _DENSE.match(text)
    if dense is None or (match is not None and match[0] == dense[0]):
        return False
    return any(_readable(_try85(dense[0][:40], decoder)) for decoder in _BASE_85)


def _readings(token: str) -> list[bytes]:
    found = []
    core = token.rstrip("=")
    if token.startswith("<~"):
        found.append(_try85(token[2:].rstrip(">~")[:40], base64.a85decode))
    elif re.fullmatch(r"[0-9A-Fa-f]+", core):
        found.append(bytes.fromhex(core[: len(core) // 2 * 2]))
    else:
        if re.fullmatch(r"[A-Z2-7]+|[a-z2-7]+", core):
            found.append(_try32(core.upper()))
        found.append(_try64(core.replace("-", "+").replace("_", "/")))
    return found


def _try64(core: str) -> bytes:
    return binascii.a2b_base64(core[: len(core) // 4 * 4])


def _try32(core: str) -> bytes:
    return base64.b32decode(core[: len(core) // 8 * 8])


def _try85(token: str, decoder: Callable[[str], bytes]) -> bytes:
    try:
        return decoder(token)
    except ValueError:
        return b""


def _readable(raw: bytes) -> bool:
    """Tell printable ASCII text with mostly letters, digits and spaces from random bytes."""
    common = sum(chr(byte).isalnum() or byte in b" .,/+=-\n" for byte in raw if byte < 128)
    return len(raw) >= 8 and common >= 0.9 * len(raw)


def _one_alphabet(text: str) -> bool:
    """Tell one writing system from the scatter of code points that random bytes give."""
    others = [character for character in text if character > "\x7f"]
    blocks = {ord(character) >> 8 for character in others}
    if len(text) >= _SHORT_BYTES and len(blocks) * 6 <= len(others):
        return True
    if len(blocks) > 2 and not all("\u2e80" <= c <= "\ud7ff" or c > "\uf900" for c in others):
        return False
    if len(others) * 2 < len(text):
        return len(text) >= _SHORT_BYTES or all(
            character < "\u0250" or "\u2010" <= character < "\u2100" or character >= "\U0001f300"
            for character in others
        )
    return len(text) >= 4 and len(blocks) * 3 <= max(len(others), 3)
