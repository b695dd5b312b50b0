"""Classical ciphers: substitution and transposition of letters."""

import codecs
import string
from collections.abc import Callable

from safehold.detect.redteam.transforms.interface import Family, Transform

_LOWER, _UPPER = string.ascii_lowercase, string.ascii_uppercase
_KEY = "lemon"
_PAD = "garden"
_SHUFFLED = "qazwsxedcrfvtgbyhnujmikolp"
_ROWS = "qwertyuiop", "asdfghjkl", "zxcvbnm"


def _substitute(alphabet: str) -> Callable[[str], str]:
    table = str.maketrans(_LOWER + _UPPER, alphabet + alphabet.upper())
    return lambda text: text.translate(table)


def _reverse_of(alphabet: str) -> Callable[[str], str]:
    table = str.maketrans(alphabet + alphabet.upper(), _LOWER + _UPPER)
    return lambda text: text.translate(table)


def _caesar(shift: int) -> str:
    return _LOWER[shift:] + _LOWER[:shift]


def _affine() -> str:
    return "".join(_LOWER[(5 * index + 8) % 26] for index in range(26))


def _next_key() -> str:
    """Give each letter its right-hand neighbour on the keyboard."""
    table = {here: row[(at + 1) % len(row)] for row in _ROWS for at, here in enumerate(row)}
    return "".join(table[letter] for letter in _LOWER)


def _rot47(text: str) -> str:
    return "".join(
        chr(33 + (ord(mark) - 33 + 47) % 94) if "!" <= mark <= "~" else mark for mark in text
    )


def _vigenere(text: str) -> str:
    out: list[str] = []
    turn = 0
    for mark in text:
        if mark.isascii() and mark.isalpha():
            base = 97 if mark.islower() else 65
            shift = ord(_KEY[turn % len(_KEY)]) - 97
            out.append(chr(base + (ord(mark) - base + shift) % 26))
            turn += 1
        else:
            out.append(mark)
    return "".join(out)


def _xor(text: str) -> str:
    data = text.encode()
    return bytes(byte ^ ord(_PAD[at % len(_PAD)]) for at, byte in enumerate(data)).hex()


def _rail_fence(text: str) -> str:
    rails: list[list[str]] = [[], [], []]
    for at, mark in enumerate(text):
        rails[(0, 1, 2, 1)[at % 4]].append(mark)
    return "".join("".join(rail) for rail in rails)


def _columns(text: str) -> str:
    width = 6
    padded = text + "_" * (-len(text) % width)
    return "".join(padded[column::width] for column in (2, 0, 4, 1, 5, 3))


def _letters_to_numbers(text: str) -> str:
    return " / ".join(
        "-".join(
            str(ord(mark) - 96) if mark.isascii() and mark.isalpha() else f"'{mark}'"
            for mark in word
        )
        for word in text.lower().split()
    )


def _polybius(text: str) -> str:
    square = _LOWER.replace("j", "")
    return " / ".join(
        " ".join(
            f"{square.index(mark) // 5 + 1}{square.index(mark) % 5 + 1}"
            if mark in square
            else f"({mark})"
            for mark in word.replace("j", "i")
        )
        for word in text.lower().split()
    )


def _bacon(text: str) -> str:
    return " ".join(
        f"{ord(mark) - 97:05b}".replace("0", "A").replace("1", "B")
        if mark.isascii() and mark.isalpha()
        else mark
        for mark in text.lower()
    )


def _rot13(text: str) -> str:
    return codecs.encode(text, "rot13")


_C = Family.CIPHER
CIPHERS: tuple[Transform, ...] = (
    Transform("rot13", _C, _rot13, "ROT13", _rot13),
    Transform("rot47", _C, _rot47, "ROT47", _rot47),
    Transform(
        "caesar-3", _C, _substitute(_caesar(3)), "a Caesar shift of 3", _reverse_of(_caesar(3))
    ),
    Transform(
        "caesar-7", _C, _substitute(_caesar(7)), "a Caesar shift of 7", _reverse_of(_caesar(7))
    ),
    Transform(
        "atbash", _C, _substitute(_LOWER[::-1]), "Atbash (a=z, b=y, ...)", _substitute(_LOWER[::-1])
    ),
    Transform(
        "affine", _C, _substitute(_affine()), "an affine cipher, x -> 5x+8", _reverse_of(_affine())
    ),
    Transform(
        "bijection",
        _C,
        _substitute(_SHUFFLED),
        f"a private alphabet: abcdefghijklmnopqrstuvwxyz is written {_SHUFFLED}",
        _reverse_of(_SHUFFLED),
    ),
    Transform(
        "keyboard-shift",
        _C,
        _substitute(_next_key()),
        "each letter typed one key to the right",
        _reverse_of(_next_key()),
    ),
    Transform("vigenere", _C, _vigenere, f"a Vigenère cipher with the key {_KEY}"),
    Transform("xor-hex", _C, _xor, f"bytes XORed with '{_PAD}', in hexadecimal", None, 2),
    Transform("rail-fence", _C, _rail_fence, "a rail fence of three rails"),
    Transform("columns", _C, _columns, "a transposition in six columns, read 3 1 5 2 6 4"),
    Transform("letter-numbers", _C, _letters_to_numbers, "a=1, b=2, ...", None, 2.8),
    Transform("polybius", _C, _polybius, "a Polybius square (i=j)", None, 3),
    Transform("bacon", _C, _bacon, "Bacon's cipher, A=0 and B=1", None, 6),
)
