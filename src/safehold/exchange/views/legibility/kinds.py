"""Blobs that ordinary answers hold, told by parsing them, not by their look.

Each kind has an allowance in characters for one lane: what an ordinary answer needs, and no more.
Bytes must look like bytes: a text behind a picture's first bytes is no picture.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from safehold.exchange.views.legibility.spans import shared

_B64: Final = r"[A-Za-z0-9+/]"
_LEAST_BYTES: Final = 24


class _Kind(msgspec.Struct, frozen=True):
    name: str
    pattern: re.Pattern[str]
    parsed: Callable[["re.Match[str]"], bool]
    allowance: int


def typed(text: str, spans: Sequence[tuple[int, int]]) -> int:
    """Return how many characters of the spans lie in parsed blobs, up to each kind's allowance."""
    credit = 0
    for kind in KINDS:
        found = 0
        for match in kind.pattern.finditer(text):
            if found >= kind.allowance:
                break
            # The windows that a blob's characters make implausible reach over its ends.
            inside = shared(spans, match.start() - _EDGE, match.end() + _EDGE)
            if inside and kind.parsed(match):
                found += inside
        credit += min(found, kind.allowance)
    return credit


_EDGE: Final = 30


def _decoded(text: str) -> bytes:
    core = re.sub(r"\s+", "", text).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return binascii.a2b_base64(core[: len(core) // 4 * 4])
    except binascii.Error:
        return b""


def _bytes_like(raw: bytes) -> bool:
    """Tell bytes of keys, digests and compressed data from text, also under a one-byte key."""
    if len(raw) < _LEAST_BYTES:
        return True
    high = sum(byte >> 7 for byte in raw) / len(raw)
    return 0.25 <= high <= 0.75 and len(set(raw)) >= min(len(raw), 256) * 0.4


def _der(match: "re.Match[str]") -> bool:
    raw = _decoded(match["body"])
    armoured = "PGP" in match["label"] and bool(raw) and raw[0] >= 0x80
    return (armoured or raw[:1] == b"\x30") and _bytes_like(raw[8:])


def _ssh(match: "re.Match[str]") -> bool:
    raw = _decoded(match["body"])
    name = match["name"].encode()
    return (
        raw[:4] == len(name).to_bytes(4, "big")
        and raw[4 : 4 + len(name)] == name
        and (_bytes_like(raw[4 + len(name) + 12 :]))
    )


def _jwt(match: "re.Match[str]") -> bool:
    try:
        head = json.loads(base64.urlsafe_b64decode(match["head"] + "=" * (-len(match["head"]) % 4)))
    except (ValueError, RecursionError):
        return False
    return isinstance(head, dict) and "alg" in head and _bytes_like(_decoded(match["sign"] or ""))


def _digest(match: "re.Match[str]") -> bool:
    return _bytes_like(_decoded(match["body"]))


def _image(match: "re.Match[str]") -> bool:
    raw = _decoded(match["body"])
    magics = (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"%PDF-")
    return raw.startswith(magics) and _bytes_like(raw[64:])


def _always(match: "re.Match[str]") -> bool:
    del match
    return True


_RESIDUES: Final = "ACDEFGHIKLMNPQRSTVWY"


def _protein(match: "re.Match[str]") -> bool:
    body = re.sub(r"\s", "", match[0])
    return all(body.count(letter) <= len(body) * 0.16 for letter in _RESIDUES)


def _molecule(match: "re.Match[str]") -> bool:
    body = match[0]
    atoms = re.sub(r"\[[^\[\]]{1,12}\]|Cl|Br|[BCNOPSFIbcnops]|[0-9%()=#@+\-/\\.]", "", body)
    return not atoms and body.count("(") == body.count(")") and "C" in body.upper()


_SAN: Final = r"(?:[KQRBN]?[a-h]?[1-8]?x?[a-h][1-8](?:=[QRBN])?|O-O(?:-O)?)[+#]?[!?]{0,2}"

KINDS: Final = (
    _Kind(
        "armour",
        re.compile(rf"-----BEGIN (?P<label>[A-Z0-9 ]+)-----\s+(?P<body>(?:{_B64}+=*\s*)+)"),
        _der,
        8_000,
    ),
    _Kind(
        "ssh",
        re.compile(
            r"(?P<name>ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-nistp\d+) "
            rf"(?P<body>AAAA{_B64}+)"
        ),
        _ssh,
        3_000,
    ),
    _Kind(
        "jwt",
        re.compile(r"(?P<head>eyJ[\w-]+)\.[\w-]+(?:\.(?P<sign>[\w-]*))?"),
        _jwt,
        3_000,
    ),
    _Kind(
        "digest",
        re.compile(
            rf"(?:sha(?:1|256|384|512)[-:=]|SHA256:)(?P<body>{_B64}{{27,86}})(?!{_B64})={{0,2}}",
            re.IGNORECASE,
        ),
        _digest,
        16_000,
    ),
    _Kind(
        "image",
        re.compile(
            rf"(?P<body>(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|JVBER){_B64}{{40,}}(?:\s{_B64}+)*)"
        ),
        _image,
        40_000,
    ),
    _Kind("genes", re.compile(r"(?<![A-Za-z])[ACGTUN]{20,}(?:\s[ACGTUN]{10,})*"), _always, 900),
    _Kind(
        "protein",
        re.compile(rf"(?<![A-Za-z])[{_RESIDUES}]{{30,}}(?:\s[{_RESIDUES}]{{10,}})*\*?"),
        _protein,
        450,
    ),
    _Kind(
        "chess", re.compile(rf"(?:\d+\.(?:\.\.)?\s*{_SAN}\s+(?:{_SAN}\s+)?){{4,}}"), _always, 3_000
    ),
    _Kind(
        "molecule", re.compile(r"(?<!\S)[A-Za-z0-9@+\-\[\]()=#/\\%.]{12,}(?!\S)"), _molecule, 400
    ),
)
