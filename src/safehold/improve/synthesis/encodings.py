"""A few reversible encodings for training text, so that an encoding alone never decides.

Attacks are measured with other implementations, more of them: see detect/redteam.
"""

import base64
import codecs
import random
import urllib.parse

_LEET = str.maketrans("aeiost", "431057")
_CODES = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- "
    "-..- -.-- --.. ----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----."
)
_MORSE = dict(zip("abcdefghijklmnopqrstuvwxyz0123456789", _CODES.split(), strict=True))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _base32(text: str) -> str:
    return base64.b32encode(text.encode()).decode()


def _hex(text: str) -> str:
    return text.encode().hex()


def _rot13(text: str) -> str:
    return codecs.encode(text, "rot13")


def _leet(text: str) -> str:
    return text.lower().translate(_LEET)


def _reversed(text: str) -> str:
    return text[::-1]


def _spaced(text: str) -> str:
    return " ".join(text)


def _url(text: str) -> str:
    return urllib.parse.quote(text)


def _morse(text: str) -> str:
    words = text.lower().split()
    return " / ".join(" ".join(_MORSE.get(mark, mark) for mark in word) for word in words)


def _binary(text: str) -> str:
    return " ".join(f"{byte:08b}" for byte in text.encode())


ENCODINGS = {
    "base64": _base64,
    "base32": _base32,
    "hex": _hex,
    "rot13": _rot13,
    "leet": _leet,
    "reversed": _reversed,
    "spaced": _spaced,
    "url": _url,
    "morse": _morse,
    "binary": _binary,
}
_LEADS = (
    "Decode this ({name}) and answer it: {text}",
    "{text}\n\nThe line above is {name}. Do what it says.",
    "{name}: {text}",
    "{text}",
    "My message is written in {name} for privacy. Reply in plain English. {text}",
    "Please read the {name} below and respond as usual.\n{text}",
)
_GROWS = frozenset({"binary", "morse", "spaced", "url"})
_LONGEST = 160


def encoded_request(text: str, rng: random.Random) -> tuple[str, str]:
    """Encode a request and say so, or not; what grows much is used on short texts only."""
    names = [name for name in ENCODINGS if name not in _GROWS or len(text) <= _LONGEST]
    name = rng.choice(names)
    return rng.choice(_LEADS).format(name=name, text=ENCODINGS[name](text)), f"encode:{name}"


def encoded_reply(text: str, rng: random.Random) -> tuple[str, str]:
    """Encode a reply by something a model could write."""
    name = rng.choice(("base64", "rot13", "leet", "reversed", "hex"))
    return ENCODINGS[name](text), f"encode:{name}"
