# ruff: noqa: SIM905, RUF001 - word lists read best as words; ambiguous characters are the point
"""What hides a text: the inverse of each decoder in `safehold.exchange.views`, for tests."""

import base64
import binascii
import quopri
import re
from collections.abc import Callable, Iterator
from string import ascii_lowercase, ascii_uppercase
from typing import NamedTuple

_MORSE = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz0123456789.,?=",
        ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- "
        ".-- -..- -.-- --.. ----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----. .-.-.- "
        "--..-- ..--.. -...-".split(),
        strict=True,
    )
)
_NATO = dict(
    zip(
        ascii_lowercase + "0123456789",
        "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november "
        "oscar papa quebec romeo sierra tango uniform victor whiskey x-ray yankee zulu zero one "
        "two three four five six seven eight nine".split(),
        strict=True,
    )
)
_BRAILLE = dict(
    zip(
        ascii_lowercase + " ,.?",
        "⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵⠀⠂⠲⠦",
        strict=True,
    )
)
_UPSIDE_DOWN = str.maketrans("abcdefghijklmnopqrstuvwxyz.,?", "ɐqɔpǝɟƃɥᴉɾʞlɯuodbɹsʇnʌʍxʎz˙‘¿")
_LEET = str.maketrans("aeostAEOST", "4305743057")
_LOOKALIKE = str.maketrans("aceopxyi", "асеорхуі")


class FakeEncoder(NamedTuple):
    """An encoder, and what of a text it keeps.

    `caseless` loses capitals; `wordy` can only carry English words, not, say, base64;
    `letters_only` drops what is neither a letter, a digit nor a space; `narrow` can only carry
    ASCII; `vague` can't be undone exactly.
    """

    encode: Callable[[str], str]
    caseless: bool = False
    wordy: bool = False
    letters_only: bool = False
    narrow: bool = False
    vague: bool = False


def _rotated(places: int) -> Callable[[str], str]:
    lower = ascii_lowercase[places:] + ascii_lowercase[:places]
    table = str.maketrans(ascii_lowercase + ascii_uppercase, lower + lower.upper())
    return lambda text: text.translate(table)


def _atbash(text: str) -> str:
    table = str.maketrans(
        ascii_lowercase + ascii_uppercase, ascii_lowercase[::-1] + ascii_uppercase[::-1]
    )
    return text.translate(table)


def _rot47(text: str) -> str:
    return "".join(chr(33 + (ord(c) - 33 + 47) % 94) if "!" <= c <= "~" else c for c in text)


def _morse(text: str) -> str:
    words = text.lower().split()
    return " / ".join(" ".join(_MORSE[c] for c in word if c in _MORSE) for word in words)


def _nato(text: str) -> str:
    words = text.lower().split()
    return " / ".join(" ".join(_NATO[c] for c in word if c in _NATO) for word in words)


def _pig_latin(text: str) -> str:
    def pigged(match: re.Match[str]) -> str:
        word = match[0]
        cut = re.match(r"[^aeiou]*", word)
        moved = cut[0] if cut else ""
        return word + "way" if not moved else word[len(moved) :] + moved + "ay"

    return re.sub("[a-z]+", pigged, text.lower())


def _uu(text: str) -> str:
    raw = text.encode()
    lines = [binascii.b2a_uu(raw[i : i + 45]).decode() for i in range(0, len(raw), 45)]
    return "begin 644 file\n" + "".join(lines) + "`\nend"


def _zero_width(text: str) -> str:
    bits = "".join(f"{byte:08b}" for byte in text.encode())
    return bits.replace("0", "\u200b").replace("1", "\u200c")


def _selectors(text: str) -> str:
    return "".join(
        chr(0xFE00 + byte) if byte < 16 else chr(0xE0100 + byte - 16) for byte in text.encode()
    )


def _units(text: str) -> Iterator[int]:
    raw = text.encode("utf-16-be")
    return (int.from_bytes(raw[i : i + 2]) for i in range(0, len(raw), 2))


ENCODERS: dict[str, FakeEncoder] = {
    "base64": FakeEncoder(lambda text: base64.b64encode(text.encode()).decode()),
    "base64-url": FakeEncoder(
        lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    ),
    "base64-lines": FakeEncoder(lambda text: base64.encodebytes(text.encode()).decode().strip()),
    "base32": FakeEncoder(lambda text: base64.b32encode(text.encode()).decode()),
    "base16": FakeEncoder(lambda text: text.encode().hex()),
    "base16-apart": FakeEncoder(lambda text: text.encode().hex(" ")),
    "base16-upper": FakeEncoder(lambda text: text.encode().hex(":").upper()),
    "ascii85": FakeEncoder(lambda text: base64.a85encode(text.encode()).decode()),
    "ascii85-framed": FakeEncoder(
        lambda text: base64.a85encode(text.encode(), adobe=True).decode()
    ),
    "base85": FakeEncoder(lambda text: base64.b85encode(text.encode()).decode()),
    **{f"rot{places}": FakeEncoder(_rotated(places)) for places in range(1, 26)},
    "rot47": FakeEncoder(_rot47, narrow=True),
    "atbash": FakeEncoder(_atbash),
    "reversed": FakeEncoder(lambda text: text[::-1]),
    "spaced": FakeEncoder(" ".join),
    "dotted": FakeEncoder(".".join),
    "morse": FakeEncoder(_morse, caseless=True, letters_only=True),
    "nato": FakeEncoder(_nato, caseless=True, letters_only=True),
    "braille": FakeEncoder(
        lambda text: "".join(_BRAILLE.get(c, "") for c in text.lower()), caseless=True, wordy=True
    ),
    "url": FakeEncoder(lambda text: "".join(f"%{byte:02X}" for byte in text.encode())),
    "html": FakeEncoder(lambda text: "".join(f"&#{ord(c)};" for c in text)),
    "html-hex": FakeEncoder(lambda text: "".join(f"&#x{ord(c):x};" for c in text)),
    "quoted-printable": FakeEncoder(lambda text: "".join(f"={byte:02X}" for byte in text.encode())),
    "mime": FakeEncoder(lambda text: quopri.encodestring(text.encode(), quotetabs=True).decode()),
    "uu": FakeEncoder(_uu),
    "binary": FakeEncoder(lambda text: " ".join(f"{byte:08b}" for byte in text.encode())),
    "binary-run": FakeEncoder(lambda text: "".join(f"{byte:08b}" for byte in text.encode())),
    "decimal": FakeEncoder(lambda text: " ".join(str(ord(c)) for c in text)),
    "decimal-commas": FakeEncoder(lambda text: ", ".join(str(ord(c)) for c in text)),
    "octal": FakeEncoder(lambda text: " ".join(f"{ord(c):03o}" for c in text)),
    "backslash-u": FakeEncoder(lambda text: "".join(f"\\u{unit:04x}" for unit in _units(text))),
    "backslash-x": FakeEncoder(lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode())),
    "u-plus": FakeEncoder(lambda text: " ".join(f"U+{ord(c):04X}" for c in text)),
    "tags": FakeEncoder(lambda text: "".join(chr(0xE0000 + ord(c)) for c in text), narrow=True),
    "selectors": FakeEncoder(_selectors),
    "zero-width": FakeEncoder(_zero_width),
    "joiners": FakeEncoder("\u200b".join),
    "soft-hyphens": FakeEncoder("\u00ad".join),
    "full-width": FakeEncoder(
        lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
    ),
    "bidi": FakeEncoder(lambda text: f"\u202e{text[::-1]}\u202c"),
    "regional": FakeEncoder(
        lambda text: "".join(
            chr(0x1F1E6 + ord(c) - 97) if c.isalpha() else c for c in text.lower()
        ),
        caseless=True,
        wordy=True,
    ),
    "upside-down": FakeEncoder(
        lambda text: text.lower().translate(_UPSIDE_DOWN)[::-1], caseless=True, wordy=True
    ),
    "zalgo": FakeEncoder(
        lambda text: "".join(c + "\u0337\u0321" if c.isalpha() else c for c in text)
    ),
    "lookalikes": FakeEncoder(lambda text: text.translate(_LOOKALIKE), wordy=True),
    "leet": FakeEncoder(lambda text: text.translate(_LEET), wordy=True),
    "pig-latin": FakeEncoder(_pig_latin, caseless=True, wordy=True, vague=True),
}
