"""SSH keys and SSHSIG signatures (OpenSSH PROTOCOL.sshsig, PROTOCOL.u2f), Ed25519 only."""

import base64
import binascii
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from safehold.trust.people.interface import PeopleError, SignatureError, SshKey
from safehold.trust.people.material import ED25519, SK_ED25519, thumbprint

_ED25519_BYTES = 32
"""RFC 8032, section 5.1.5."""

MAGIC = b"SSHSIG"
MAX_SIGNATURE_BYTES = 4096
_HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_ARMOUR_HEAD = "-----BEGIN SSH SIGNATURE-----"
_ARMOUR_TAIL = "-----END SSH SIGNATURE-----"
# PROTOCOL.u2f: the authenticator's flags. A touch alone is what a thief of the key can give too.
_USER_PRESENT = 0x01
_USER_VERIFIED = 0x04


class _SshReader:
    """Reads the length-prefixed fields of RFC 4251 §5; leftovers and shortfalls refuse."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise SignatureError("expected a whole SSH structure, got a truncated one")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        return self.take(self.uint32())

    def end(self) -> None:
        if self._at != len(self._data):
            raise SignatureError("expected the end of an SSH structure, got more bytes")


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def parse_public_key(line: str) -> SshKey:
    """Return the key of one authorized_keys or `.pub` line (its comment is dropped).

    Raises:
        PeopleError: not an Ed25519 or security-key Ed25519 public key.
    """
    fields = line.split()
    known = {ED25519.decode(), SK_ED25519.decode()}
    if len(fields) <= 1 or fields[0] not in known:
        raise PeopleError(f"expected one public key line of type {' or '.join(sorted(known))}")
    try:
        blob = base64.b64decode(fields[1], validate=True)
        _public_of(blob)
    except (binascii.Error, SignatureError) as error:
        raise PeopleError("expected a well-formed SSH public key") from error
    if _SshReader(blob).string() != fields[0].encode():
        raise PeopleError("expected the type of the line to be the type inside the key")
    return SshKey(public=f"{fields[0]} {base64.b64encode(blob).decode()}")


def fingerprint(blob: bytes) -> str:
    """Return the fingerprint that `ssh-keygen -l` prints."""
    return thumbprint(blob)


def ssh_key_of(public: bytes) -> SshKey:
    """Return the SSH form of a raw Ed25519 public key."""
    blob = _string(ED25519) + _string(public)
    return parse_public_key(f"ssh-ed25519 {base64.b64encode(blob).decode()}")


def _public_of(blob: bytes) -> tuple[bytes, bytes | None]:
    """Return the raw public key, and the application of a security key (None: a plain key)."""
    reader = _SshReader(blob)
    kind = reader.string()
    public = reader.string()
    if len(public) != _ED25519_BYTES or kind not in {ED25519, SK_ED25519}:
        raise SignatureError("expected an Ed25519 public key of 32 bytes")
    application = reader.string() if kind == SK_ED25519 else None
    reader.end()
    return public, application


def dearmour(text: str) -> str:
    """Return the base64 between the armour lines, as one line (or a bare one unchanged)."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if lines and lines[0] == _ARMOUR_HEAD:
        if lines[-1] != _ARMOUR_TAIL:
            raise SignatureError(f"expected the signature to end with {_ARMOUR_TAIL}")
        lines = lines[1:-1]
    return "".join(lines)


def armour(signature: str) -> str:
    """Return the text that `ssh-keygen -Y verify` reads."""
    rows = [signature[at : at + 70] for at in range(0, len(signature), 70)]
    return "\n".join([_ARMOUR_HEAD, *rows, _ARMOUR_TAIL, ""])


def embedded_key(signature: str) -> SshKey:
    """Return the key that a signature names: it proves nothing before the signature verifies.

    Raises:
        SignatureError: not an SSHSIG.
        PeopleError: a key of another type.
    """
    try:
        reader = _SshReader(base64.b64decode(signature, validate=True))
    except (binascii.Error, ValueError) as error:
        raise SignatureError("expected a base64 SSHSIG") from error
    if reader.take(6) != MAGIC or reader.uint32() != 1:
        raise SignatureError("expected an SSHSIG of version 1")
    blob = reader.string()
    kind = _SshReader(blob).string().decode("ascii", "replace")
    return parse_public_key(f"{kind} {base64.b64encode(blob).decode()}")


def verify_sshsig(key: SshKey, message: bytes, signature: str, *, namespace: str) -> int:
    """Verify a signature and return the security key's counter (0 for a plain key).

    Raises:
        SignatureError: any step fails.
    """
    try:
        blob = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureError("expected a base64 SSHSIG") from error
    if len(blob) > MAX_SIGNATURE_BYTES:
        raise SignatureError(f"expected a signature of at most {MAX_SIGNATURE_BYTES} bytes")
    reader = _SshReader(blob)
    # 1. The frame is an SSHSIG of version 1.
    if reader.take(6) != MAGIC or reader.uint32() != 1:
        raise SignatureError("expected an SSHSIG of version 1")
    # 2. It names exactly the enrolled key: the key inside the signature decides nothing.
    if reader.string() != base64.b64decode(key.public.split()[1]):
        raise SignatureError("expected a signature by the enrolled key, got another key's")
    # 3. It was made for this namespace: a signed git commit is no approval.
    if reader.string() != namespace.encode():
        raise SignatureError(f"expected the namespace {namespace}, got another")
    # 4. The hash is one of the two that the format allows.
    reserved = reader.string()
    name = reader.string()
    if name not in _HASHES:
        raise SignatureError("expected the hash sha256 or sha512")
    inner = _SshReader(reader.string())
    reader.end()
    signed = MAGIC + b"".join(
        _string(part)
        for part in (namespace.encode(), reserved, name, _HASHES[name](message).digest())
    )
    # 5. The signature is of the key's own type, and verifies.
    return _verify_inner(key, inner, signed)


def _verify_inner(key: SshKey, inner: _SshReader, signed: bytes) -> int:
    public, application = _public_of(base64.b64decode(key.public.split()[1]))
    kind = inner.string()
    raw = inner.string()
    if kind != (ED25519 if application is None else SK_ED25519):
        raise SignatureError("expected a signature of the key's own type")
    if application is None:
        inner.end()
        _verify(public, raw, signed)
        return 0
    flags = inner.take(1)[0]
    counter = inner.uint32()
    inner.end()
    # 6. A security key verified its user (ssh-keygen -O verify-required), not only a touch.
    if not flags & _USER_PRESENT or not flags & _USER_VERIFIED:
        raise SignatureError("expected user verification, got a touch or nothing")
    presented = bytes([flags]) + counter.to_bytes(4, "big")
    application_hash = hashlib.sha256(application).digest()
    _verify(public, raw, application_hash + presented + hashlib.sha256(signed).digest())
    return counter


def _verify(public: bytes, raw: bytes, message: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(raw, message)
    except (InvalidSignature, ValueError) as error:
        raise SignatureError("the signature does not verify") from error


def sign_sshsig(private: Ed25519PrivateKey, message: bytes, *, namespace: str) -> str:
    """Return the one-line SSHSIG of a message by a key held in memory."""
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    tail = _string(namespace.encode()) + _string(b"") + _string(b"sha512")
    raw = private.sign(MAGIC + tail + _string(hashlib.sha512(message).digest()))
    blob = MAGIC + (1).to_bytes(4, "big") + _string(_string(ED25519) + _string(public))
    blob += tail + _string(_string(ED25519) + _string(raw))
    return base64.b64encode(blob).decode()


def private_key_text(key: Ed25519PrivateKey) -> bytes:
    """Return an OpenSSH private key file without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
