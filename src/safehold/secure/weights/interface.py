"""The values of sealed weights: header, shards, wrapped keys; and what can go wrong with them."""

from collections.abc import Mapping
from typing import Annotated, Protocol

import msgspec

from safehold.canonical import MAX_INTEGER
from safehold.errors import WeightsError
from safehold.trust.text import LINE_PATTERN

FORMAT = "safehold-sealed/1"
CIPHER = "AES-256-GCM-STREAM"
HEADER_NAME = "header.json"
SEALED_SUFFIX = ".sealed"
KEY_BYTES = 32

Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Hex16 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
# One printable line, like every text that an approver reads.
Title = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=200,
        pattern=LINE_PATTERN,
    ),
]
# A relative path of plain components: no dot at the beginning of any of them.
ShardName = Annotated[
    str,
    msgspec.Meta(
        max_length=200,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*){0,4}\Z",
    ),
]


class SealedFormatError(WeightsError):
    """Use another file: this one is no sealed model, or of a kind that must not be sealed."""


class SealTamperError(WeightsError):
    """Sealed bytes differ from what was sealed: find out who changed them, restore a copy."""


class ProviderError(WeightsError):
    """Look at the key provider: it refused, is out of reach, or lacks the key."""


class WrongKeyError(WeightsError):
    """Use the provider, passphrases or shares with which this model was sealed."""


class MemoryProtectionError(WeightsError):
    """Change the host: plaintext could reach a disk here."""


class LeaseError(WeightsError):
    """The grant ended or the key service fell silent: the plaintext is wiped."""


class StorageError(WeightsError):
    """Look at the disk: it is full, read-only or broken; nothing half-done was left as done."""


class Shard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the model: its sizes in bytes, its key's salt, and both its digests."""

    name: ShardName
    plain_bytes: Size
    salt: Hex32
    plain_digest: Hex32
    sealed_digest: Hex32


class Wrapped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The data key, wrapped by one key of one provider."""

    provider: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,29}\Z")]
    reference: Title
    """Which key of the provider: its label, path or ARN."""
    blob: Annotated[str, msgspec.Meta(max_length=20_000)]
    """The provider's own ciphertext (text form)."""


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a reader must know and nobody may change: it is signed as a whole.

    `revision` rises whenever the data key is wrapped anew. `wrapped` is empty only in the
    tombstone of a shredded model.
    """

    format: str
    cipher: str
    seal_id: Hex16
    model: Title
    version: Title
    created: Size
    chunk_bytes: Annotated[int, msgspec.Meta(ge=4096, le=16 * 2**20)]
    digest: Annotated[str, msgspec.Meta(pattern=r"^(sha256|blake3)\Z")]
    shards: Annotated[tuple[Shard, ...], msgspec.Meta(min_length=1, max_length=10_000)]
    key_check: Hex32
    """Commits to the data key, so that a wrong one is known before any chunk is opened."""
    revision: Size
    wrapped: Annotated[tuple[Wrapped, ...], msgspec.Meta(max_length=16)]
    shredded: bool = False

    @property
    def plain_bytes(self) -> int:
        """The size of the whole model."""
        return sum(shard.plain_bytes for shard in self.shards)

    def shard(self, name: str) -> Shard:
        """Return the shard of that name.

        Raises:
            WeightsError: there is none.
        """
        for shard in self.shards:
            if shard.name == name:
                return shard
        raise WeightsError(f"expected a shard of {self.model} {self.version}, got {name[:80]!r}")


class ShardKeys(Protocol):
    """What opens shards: the key of each shard, for as long as somebody vouches for it."""

    def key(self, shard: str) -> bytes:
        """Return the key of one shard (32 bytes of AES key, 7 of nonce prefix).

        Raises:
            WeightsError: this shard was not released.
        """
        ...


class KeyProvider(Protocol):
    """Keeps key-encryption keys: one per sealing, so that destroying it shreds one model only."""

    @property
    def kind(self) -> str:
        """The provider's name in headers."""
        ...

    def create(self, name: str) -> str:
        """Make a new key-encryption key and return its reference.

        Raises:
            ProviderError: refused, out of reach, or the name is taken.
        """
        ...

    def wrap(self, reference: str, key: bytes, context: Mapping[str, str]) -> str:
        """Return the data key's ciphertext in text form, bound to the context.

        Raises:
            ProviderError: refused or out of reach.
        """
        ...

    def unwrap(self, reference: str, blob: str, context: Mapping[str, str]) -> bytes:
        """Return the data key.

        Raises:
            ProviderError: refused, out of reach, or the key is gone.
            WrongKeyError: this ciphertext or context is not of this key.
        """
        ...

    def destroy(self, reference: str) -> str:
        """Destroy the key for good; return in words what was done and what remains to be done.

        Raises:
            ProviderError: it could not be destroyed.
        """
        ...
