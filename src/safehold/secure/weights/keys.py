"""Data keys: drawn at random, derived for each shard, committed to in the header."""

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from safehold.canonical import canonical
from safehold.errors import WeightsError
from safehold.secure.weights.interface import (
    KEY_BYTES,
    Header,
    KeyProvider,
    SealedFormatError,
    Wrapped,
    WrongKeyError,
)

NONCE_PREFIX_BYTES = 7
SHARD_KEY_BYTES = KEY_BYTES + NONCE_PREFIX_BYTES


def new_data_key() -> bytes:
    """Return a fresh data key; one sealing, one key."""
    return os.urandom(KEY_BYTES)


def key_check(data_key: bytes, seal_id: str) -> str:
    """Return the header's commitment to the data key (HKDF, RFC 5869), in hexadecimal."""
    info = b"safehold-key-check/1\0" + seal_id.encode()
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(data_key).hex()


def check_data_key(data_key: bytes, header: Header) -> None:
    """Refuse a key that is not the one this model was sealed with.

    AES-GCM alone does not commit to its key; the header does.

    Raises:
        WrongKeyError: it is another one.
    """
    if len(data_key) != KEY_BYTES or not hmac.compare_digest(
        key_check(data_key, header.seal_id), header.key_check
    ):
        raise WrongKeyError(
            f"expected the data key of {header.model} {header.version}, the provider gave another"
        )


def shard_key(data_key: bytes, seal_id: str, name: str, salt: str) -> bytes:
    """Return a shard's AES-256 key and its nonce prefix (39 bytes, HKDF-SHA-256).

    Whoever holds it opens this shard and no other. The salt is drawn anew each time a shard is
    encrypted, so that a nonce never meets two plaintexts under one key.
    """
    info = b"safehold-shard/1\0" + canonical({"seal": seal_id, "shard": name})
    return HKDF(SHA256(), SHARD_KEY_BYTES, salt=bytes.fromhex(salt), info=info).derive(data_key)


def wrap_context(seal_id: str, model: str, version: str) -> dict[str, str]:
    """Return what a wrapped key is bound to, in the form KMS and transit engines take."""
    return {"safehold-seal": seal_id, "model": model, "version": version}


class ReleasedKeys:
    """Keys of some shards, as the key service released them."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise WeightsError("expected the keys of at least one shard, got none")
        if any(len(key) != SHARD_KEY_BYTES for key in keys.values()):
            raise SealedFormatError(f"expected shard keys of {SHARD_KEY_BYTES} bytes")
        self._keys = dict(keys)

    def key(self, shard: str) -> bytes:
        """Return the key of one shard.

        Raises:
            WeightsError: it was not released.
        """
        if shard not in self._keys:
            raise WeightsError(f"expected a shard that was released, got {shard[:80]!r}")
        return self._keys[shard]

    def forget(self) -> None:
        """Let go of the keys: nothing can be opened with this object any more."""
        self._keys.clear()


def derive_keys(data_key: bytes, header: Header, names: Iterable[str]) -> ReleasedKeys:
    """Return the keys of the named shards.

    Raises:
        WrongKeyError: the data key is not this model's.
    """
    check_data_key(data_key, header)
    shards = [header.shard(name) for name in names]
    return ReleasedKeys(
        {one.name: shard_key(data_key, header.seal_id, one.name, one.salt) for one in shards}
    )


def unwrap_data_key(header: Header, providers: Iterable[KeyProvider]) -> tuple[bytes, Wrapped]:
    """Return the data key, checked, by the first provider at hand that the header names.

    Raises:
        WeightsError: the model is shredded.
        WrongKeyError: no provider at hand is one that the header names, or it holds another key.
        ProviderError: the provider is out of reach or its key is gone.
    """
    if header.shredded or not header.wrapped:
        raise WeightsError(f"{header.model} {header.version} is shredded: no key of it exists")
    at_hand = {provider.kind: provider for provider in providers}
    for wrapped in header.wrapped:
        provider = at_hand.get(wrapped.provider)
        if provider is None:
            continue
        context = wrap_context(header.seal_id, header.model, header.version)
        data_key = provider.unwrap(wrapped.reference, wrapped.blob, context)
        check_data_key(data_key, header)
        return data_key, wrapped
    named = ", ".join(sorted({wrapped.provider for wrapped in header.wrapped}))
    given = ", ".join(sorted(at_hand)) or "none"
    raise WrongKeyError(f"expected a provider of kind {named}, got {given}")


def fingerprint(data: bytes) -> str:
    """Return the SHA-256 of public bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
