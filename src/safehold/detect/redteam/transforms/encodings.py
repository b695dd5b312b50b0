"""Encodings of bytes and characters by other characters."""

import base64
import binascii
import html
import quopri
import re
import urllib.parse

from safehold.detect.redteam.transforms.interface import Family, Transform

_MORSE = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz0123456789.,?'!/()&:;=+-_\"@",
        [
            ".-",
            "-...",
            "-.-.",
            "-..",
            ".",
            "..-.",
            "--.",
            "....",
            "..",
            ".---",
            "-.-",
            ".-..",
            "--",
            "-.",
            "---",
            ".--.",
            "--.-",
            ".-.",
            "...",
            "-",
            "..-",
            "...-",
            ".--",
            "-..-",
            "-.--",
            "--..",
            "-----",
            ".----",
            "..---",
            "...--",
            "....-",
            ".....",
            "-....",
            "--...",
            "---..",
            "----.",
            ".-.-.-",
            "--..--",
            "..--..",
            ".----.",
            "-.-.--",
            "-..-.",
            "-.--.",
            "-.--.-",
            ".-...",
            "---...",
            "-.-.-.",
            "-...-",
            ".-.-.",
            "-....-",
            "..--.-",
            ".-..-.",
            ".--.-.",
        ],
        strict=True,
    )
)
_NATO = [
    "alfa",
    "bravo",
    "charlie",
    "delta",
    "echo",
    "foxtrot",
    "golf",
    "hotel",
    "india",
    "juliett",
    "kilo",
    "lima",
    "mike",
    "november",
    "oscar",
    "papa",
    "quebec",
    "romeo",
    "sierra",
    "tango",
    "uniform",
    "victor",
    "whiskey",
    "xray",
    "yankee",
    "zulu",
]
_BRAILLE = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz,.?!'-",
        "⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵⠂⠲⠦⠖⠄⠤",
        strict=True,
    )
)
_DIGITS = dict(zip("1234567890", "abcdefghij", strict=True))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _unbase64(text: str) -> str:
    return base64.b64decode(text).decode()


def _base32(text: str) -> str:
    return base64.b32encode(text.encode()).decode()


def _base85(text: str) -> str:
    return base64.b85encode(text.encode()).decode()


def _ascii85(text: str) -> str:
    return base64.a85encode(text.encode(), adobe=True).decode()


def _hexadecimal(text: str) -> str:
    return text.encode().hex(" ")


def _base64url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _base2048(text: str) -> str:
    """Eleven bits a character, as base2048 does, over one run of CJK ideographs."""
    return _packed(text, bits=11, first=0x4E00)


def _emoji(text: str) -> str:
    """Six bits a character over a run of emoji (ecoji packs ten over a table of its own)."""
    return _packed(text, bits=6, first=0x1F400)


def _packed(text: str, *, bits: int, first: int) -> str:
    stream = "".join(f"{byte:08b}" for byte in text.encode())
    stream += "0" * (-len(stream) % bits)
    chunks = (stream[start : start + bits] for start in range(0, len(stream), bits))
    return "".join(chr(first + int(chunk, 2)) for chunk in chunks)


def _binary(text: str) -> str:
    return " ".join(f"{byte:08b}" for byte in text.encode())


def _octal(text: str) -> str:
    return " ".join(f"{byte:03o}" for byte in text.encode())


def _decimal(text: str) -> str:
    return " ".join(str(byte) for byte in text.encode())


def _charcodes(text: str) -> str:
    return f"String.fromCharCode({','.join(str(ord(mark)) for mark in text)})"


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _entities(text: str) -> str:
    return "".join(f"&#{ord(mark)};" for mark in text)


def _entities_hex(text: str) -> str:
    return "".join(f"&#x{ord(mark):x};" for mark in text)


def _escapes(text: str) -> str:
    return "".join(f"\\u{ord(mark):04x}" for mark in text if ord(mark) <= 0xFFFF)


def _unescapes(text: str) -> str:
    return re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), text)


def _backslash_hex(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def _quoted_printable(text: str) -> str:
    """Every byte as =XX; MIME's encoding leaves plain letters, which would hide nothing."""
    return "".join(f"={byte:02X}" for byte in text.encode())


def _unquoted_printable(text: str) -> str:
    return quopri.decodestring(text).decode()


def _uuencode(text: str) -> str:
    data = text.encode()
    lines = (binascii.b2a_uu(data[start : start + 45]) for start in range(0, len(data), 45))
    return "begin 644 message\n" + b"".join(lines).decode() + "`\nend"


def _mime_word(text: str) -> str:
    return f"=?utf-8?B?{_base64(text)}?="


def _morse(text: str) -> str:
    words = text.lower().split()
    return " / ".join(" ".join(_MORSE[mark] for mark in word if mark in _MORSE) for word in words)


def _nato(text: str) -> str:
    words = text.lower().split()
    return " | ".join(
        " ".join(
            _NATO[ord(mark) - 97] if mark.isascii() and mark.isalpha() else mark for mark in word
        )
        for word in words
    )


def _braille(text: str) -> str:
    out: list[str] = []
    number = False
    for mark in text.lower():
        if mark in _DIGITS:
            out.append(("" if number else "⠼") + _BRAILLE[_DIGITS[mark]])
        else:
            out.append(_BRAILLE.get(mark, mark))
        number = mark in _DIGITS
    return "".join(out)


_E = Family.ENCODING
ENCODINGS: tuple[Transform, ...] = (
    Transform("base64", _E, _base64, "Base64", _unbase64, 1.4),
    Transform("base64url", _E, _base64url, "URL-safe Base64 without padding", None, 1.4),
    Transform("base32", _E, _base32, "Base32", lambda t: base64.b32decode(t).decode(), 1.6),
    Transform("hex", _E, _hexadecimal, "hexadecimal", lambda t: bytes.fromhex(t).decode(), 3),
    Transform("base85", _E, _base85, "Base85", lambda t: base64.b85decode(t).decode(), 1.3),
    Transform(
        "ascii85", _E, _ascii85, "Ascii85", lambda t: base64.a85decode(t, adobe=True).decode(), 1.3
    ),
    Transform("base2048", _E, _base2048, "base2048 over the ideographs from U+4E00", None, 0.8),
    Transform("emoji-bits", _E, _emoji, "six bits an emoji, from U+1F400", None, 1.4),
    Transform("binary", _E, _binary, "binary ASCII", None, 9),
    Transform("octal", _E, _octal, "octal ASCII", None, 4),
    Transform("decimal", _E, _decimal, "decimal ASCII codes", None, 3.6),
    Transform("charcodes", _E, _charcodes, "JavaScript character codes", None, 4),
    Transform("percent", _E, _percent, "URL encoding", urllib.parse.unquote, 3),
    Transform("entities", _E, _entities, "HTML entities", html.unescape, 5.5),
    Transform("entities-hex", _E, _entities_hex, "hexadecimal HTML entities", html.unescape, 6),
    Transform("unicode-escapes", _E, _escapes, "Unicode escapes", _unescapes, 6),
    Transform("hex-escapes", _E, _backslash_hex, "C hex escapes", None, 4),
    Transform(
        "quoted-printable", _E, _quoted_printable, "quoted-printable", _unquoted_printable, 3
    ),
    Transform("uuencode", _E, _uuencode, "uuencode", None, 1.5),
    Transform("mime-word", _E, _mime_word, "a MIME encoded word", None, 1.5),
    Transform("morse", _E, _morse, "Morse code", None, 4),
    Transform("nato", _E, _nato, "the NATO spelling alphabet", None, 6),
    Transform("braille", _E, _braille, "Braille", None, 1.1),
)
