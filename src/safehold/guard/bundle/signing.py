"""Signatures over a bundle's manifest: Ed25519 (RFC 8032), one file beside the manifest."""

import base64
import contextlib
import hashlib
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from safehold.errors import BundleError, ConfigError, TamperError
from safehold.trust.log.files import write_new
from safehold.trust.log.key_files import read_secret

_CONTEXT = b"safehold-bundle-manifest/1\0"


class BundleSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who signed (the key's fingerprint) and the signature, base64."""

    key: str
    signature: str


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the raw public key."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def sign(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return the signature file over a manifest."""
    signature = base64.b64encode(key.sign(_CONTEXT + manifest)).decode()
    return msgspec.json.encode(BundleSignature(fingerprint(key.public_key()), signature))


def verify(manifest: bytes, signature_file: bytes, trusted: tuple[Ed25519PublicKey, ...]) -> str:
    """Return the fingerprint of the trusted key that signed the manifest.

    Raises:
        BundleError: No trusted key is given, or the signer is not one of them.
        TamperError: The signature does not fit the manifest.
    """
    if not trusted:
        raise BundleError("no trusted bundle key is configured; an empty list trusts nobody")
    try:
        record = msgspec.json.decode(signature_file, type=BundleSignature)
        signature = base64.b64decode(record.signature, validate=True)
    except (msgspec.DecodeError, ValueError) as error:
        raise TamperError("the manifest's signature file is malformed") from error
    for key in trusted:
        if fingerprint(key) == record.key:
            try:
                key.verify(signature, _CONTEXT + manifest)
            except InvalidSignature as error:
                raise TamperError("the manifest's signature does not fit its content") from error
            return record.key
    raise BundleError("the bundle is signed by a key that is not trusted here")


def load_or_make_key(path: Path) -> Ed25519PrivateKey:
    """Return the private key in a PEM file; a missing file is made, with its `.pub` beside it.

    Raises:
        ConfigError: The file is not an unencrypted Ed25519 key in PEM.
    """
    if not path.exists():
        private = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # who made it meanwhile made ours
                write_new(path, private)
        except OSError as error:
            raise ConfigError(f"{path}: can't be made ({error.strerror})") from error
    try:
        loaded = serialization.load_pem_private_key(read_secret(path), password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: not an unencrypted private key in PEM") from error
    if not isinstance(loaded, Ed25519PrivateKey):
        raise ConfigError(f"{path}: not an Ed25519 key")
    _write_public(path.with_suffix(".pub"), loaded)
    return loaded


def _write_public(path: Path, key: Ed25519PrivateKey) -> None:
    """Write the public key beside a private one that has none: a kill may have come between."""
    if path.exists():
        return
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        with contextlib.suppress(FileExistsError):
            write_new(path, public, mode=0o644)
    except OSError as error:
        raise ConfigError(f"{path}: can't be made ({error.strerror})") from error


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Return the Ed25519 public key in a PEM file.

    Raises:
        ConfigError: The file is missing or holds something else.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: not an Ed25519 public key")
    return key
