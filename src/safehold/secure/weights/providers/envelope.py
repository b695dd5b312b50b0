"""Wrapping with an AES-256 key that is in memory: nonce and ciphertext as base64 text."""

import base64
import binascii
import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from safehold.canonical import canonical
from safehold.secure.weights.interface import ProviderError, WrongKeyError

NONCE_BYTES = 12


def context_bytes(context: Mapping[str, str]) -> bytes:
    """Return the one byte form of a context, as associated data."""
    return b"safehold-wrap/1\0" + canonical(dict(context))


def encode(blob: bytes) -> str:
    """Return the text form of a wrapped key."""
    return base64.b64encode(blob).decode()


def decode(text: str) -> bytes:
    """Return the bytes of a wrapped key.

    Raises:
        ProviderError: no base64, or too short.
    """
    try:
        blob = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ProviderError("expected a wrapped key in base64") from error
    if len(blob) <= NONCE_BYTES:
        raise ProviderError("expected a wrapped key, got fewer bytes")
    return blob


def wrap_with(kek: bytes, key: bytes, context: Mapping[str, str]) -> str:
    """Wrap a key with AES-256-GCM under a random nonce."""
    nonce = os.urandom(NONCE_BYTES)
    return encode(nonce + AESGCM(kek).encrypt(nonce, key, context_bytes(context)))


def unwrap_with(kek: bytes, text: str, context: Mapping[str, str]) -> bytes:
    """Return the wrapped key.

    Raises:
        WrongKeyError: another key, or another context.
    """
    blob = decode(text)
    try:
        return AESGCM(kek).decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], context_bytes(context))
    except InvalidTag as error:
        raise WrongKeyError("the provider's key does not open this wrapped key") from error
