"""C2SP signed notes: text, signature lines, and the keys that make and check them."""

import base64
import binascii
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from enum import IntEnum

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from safehold.trust.log.interface import LogError, LogTamperError

MAX_NOTE_BYTES = 1_000_000
MAX_SIGNATURES = 100
_ED25519_BYTES = 32
_ID_BYTES = 4
_EM_DASH = "\u2014"


class Algorithm(IntEnum):
    """Signature type bytes of the specification that are used here."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


class VerifierKey(msgspec.Struct, frozen=True):
    """A name and an Ed25519 public key for one algorithm; printed as a vkey."""

    name: str
    algorithm: Algorithm
    public: bytes

    @property
    def id(self) -> bytes:
        """The four bytes that name the key in a signature line."""
        material = self.name.encode() + b"\n" + bytes([self.algorithm]) + self.public
        return hashlib.sha256(material).digest()[:_ID_BYTES]

    @property
    def label(self) -> str:
        """`name+id`, which names the key in leaves."""
        return f"{self.name}+{self.id.hex()}"

    def __str__(self) -> str:
        blob = base64.b64encode(bytes([self.algorithm]) + self.public).decode()
        return f"{self.label}+{blob}"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Tell whether the raw Ed25519 signature is this key's over the message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True


def check_name(name: str) -> str:
    """Return the name if a note may carry it.

    Raises:
        LogError: empty, or with a space, a plus or a control character.
    """
    bad = any(char == "+" or char.isspace() or unicodedata.category(char) == "Cc" for char in name)
    if not name or bad:
        raise LogError("expected a key name without spaces, plus and control characters")
    return name


def parse_vkey(text: str) -> VerifierKey:
    """Return the key of `name+hash+base64`.

    Raises:
        LogError: malformed, of another algorithm, or its hash is not its own.
    """
    match = re.fullmatch(r"([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)", text.strip())
    if match is None:
        raise LogError("expected a verifier key: name+hash+base64")
    try:
        blob = base64.b64decode(match[3], validate=True)
        algorithm = Algorithm(blob[0])
    except (binascii.Error, IndexError, ValueError) as error:
        raise LogError("expected an Ed25519 verifier key of type 1 or 4") from error
    if len(blob) != 1 + _ED25519_BYTES:
        raise LogError("expected an Ed25519 verifier key of 32 bytes")
    key = VerifierKey(name=check_name(match[1]), algorithm=algorithm, public=blob[1:])
    if key.id.hex() != match[2]:
        raise LogError(f"expected the key hash {key.id.hex()}, got {match[2]}")
    return key


class SigningKey:
    """A private note key. Its text form is Go's: `PRIVATE+KEY+name+hash+base64`."""

    def __init__(
        self, name: str, private: Ed25519PrivateKey, algorithm: Algorithm = Algorithm.ED25519
    ) -> None:
        self._private = private
        public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.verifier = VerifierKey(name=check_name(name), algorithm=algorithm, public=public)

    @classmethod
    def generate(cls, name: str, algorithm: Algorithm = Algorithm.ED25519) -> "SigningKey":
        """Return a new key."""
        return cls(name, Ed25519PrivateKey.generate(), algorithm)

    @classmethod
    def parse(cls, text: str) -> "SigningKey":
        """Return the key of its text form.

        Raises:
            LogError: malformed; the message never holds the key.
        """
        fields = text.strip().split("+", 4)
        try:
            prefix, kind, name, given, body = fields
            blob = base64.b64decode(body, validate=True)
            algorithm = Algorithm(blob[0])
            private = Ed25519PrivateKey.from_private_bytes(blob[1:])
        except (ValueError, IndexError) as error:
            raise LogError("expected a note private key: PRIVATE+KEY+name+hash+base64") from error
        key = cls(name, private, algorithm)
        if (prefix, kind) != ("PRIVATE", "KEY") or key.verifier.id.hex() != given:
            raise LogError("expected a note private key whose hash is its own")
        return key

    def text(self) -> str:
        """Return the private text form: keep it secret."""
        raw = self._private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        blob = base64.b64encode(bytes([self.verifier.algorithm]) + raw).decode()
        return f"PRIVATE+KEY+{self.verifier.label}+{blob}"

    def sign(self, message: bytes) -> bytes:
        """Return the raw Ed25519 signature of a message."""
        return self._private.sign(message)


class Signature(msgspec.Struct, frozen=True):
    """One signature line: the key's name and id, and the bytes after the id."""

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """Return the line with its newline."""
        return f"{_EM_DASH} {self.name} {base64.b64encode(self.key_id + self.value).decode()}\n"


class Note(msgspec.Struct, frozen=True):
    """A text (ending in a newline) and its signatures, not yet believed."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return self.text + "\n" + "".join(one.line() for one in self.signatures)

    def of(self, key: VerifierKey) -> Signature | None:
        """Return the first signature that claims to be the key's."""
        return next(
            (one for one in self.signatures if (one.name, one.key_id) == (key.name, key.id)), None
        )

    def verify(self, keys: Sequence[VerifierKey]) -> tuple[VerifierKey, ...]:
        """Return the plain Ed25519 keys among `keys` whose signatures verify.

        Raises:
            LogTamperError: a known key's signature is false, or no known key signed.
        """
        # 1. Unknown keys are ignored; a known key's signature must verify.
        verified: list[VerifierKey] = []
        for key in keys:
            signature = self.of(key)
            if signature is None:
                continue
            if not key.verifies(signature.value, self.text.encode()):
                raise LogTamperError(f"the note's signature by {key.name} is false")
            verified.append(key)
        # 2. At least one known key signed: an empty key list verifies nothing.
        if not verified:
            raise LogTamperError("the note is signed by no known key")
        return tuple(verified)


def sign_note(text: str, key: SigningKey) -> Note:
    """Return the text signed by one key."""
    value = key.sign(text.encode())
    verifier = key.verifier
    return Note(text, (Signature(name=verifier.name, key_id=verifier.id, value=value),))


def parse_note(data: bytes) -> Note:
    """Return the note of its bytes.

    Raises:
        LogError: not UTF-8, with control characters, without text or signatures, or too large.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise LogError(f"expected a note of at most {MAX_NOTE_BYTES} bytes")
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise LogError("expected a note in UTF-8") from error
    if any(char < " " and char != "\n" for char in whole):
        raise LogError("expected a note without control characters")
    text, separator, lines = whole.rpartition("\n\n")
    if not separator or not lines.endswith("\n"):
        raise LogError("expected a note: text, an empty line, signature lines")
    rows = lines[:-1].split("\n")
    if len(rows) > MAX_SIGNATURES:
        raise LogError(f"expected at most {MAX_SIGNATURES} signatures")
    return Note(text=text + "\n", signatures=tuple(_signature(row) for row in rows))


def _signature(row: str) -> Signature:
    match = re.fullmatch(rf"{_EM_DASH} ([^ ]+) ([A-Za-z0-9+/=]+)", row)
    if match is None:
        raise LogError("expected a signature line: em dash, key name, base64")
    try:
        blob = base64.b64decode(match[2], validate=True)
    except binascii.Error as error:
        raise LogError("expected a signature in base64") from error
    if len(blob) <= _ID_BYTES:
        raise LogError("expected a signature with a key id")
    return Signature(name=check_name(match[1]), key_id=blob[:_ID_BYTES], value=blob[_ID_BYTES:])
