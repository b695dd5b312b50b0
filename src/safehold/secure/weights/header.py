"""The signed header: one spelling, one signature, one meaning."""

import base64
import binascii
from pathlib import Path

import msgspec

from safehold.canonical import sha256_hex
from safehold.errors import WeightsError
from safehold.secure.weights.interface import (
    CIPHER,
    FORMAT,
    HEADER_NAME,
    SEALED_SUFFIX,
    Header,
    SealedFormatError,
    SealTamperError,
)
from safehold.secure.weights.signer import SealSigner, SealVerifier

MAX_HEADER_BYTES = 16 * 2**20
_DOMAIN = b"safehold-sealed-header/1\0"


class SignedHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`header.json`: the header's exact bytes, the signer's key (16 hex digits), the signature."""

    header: msgspec.Raw
    key_id: str
    signature: str


def header_bytes(header: Header) -> bytes:
    """Return the canonical form (RFC 8785) of a header.

    It has no floats and ASCII member names only, so that msgspec's sorted form is the canonical
    one, a hundred times faster than the general function: a model can have 10,000 shards.
    """
    return msgspec.json.encode(header, order="sorted")


def sign_header(header: Header, signer: SealSigner) -> bytes:
    """Return the bytes of `header.json`."""
    check_header(header)
    data = header_bytes(header)
    signature = signer.sign_header(_DOMAIN + data)
    return _document(data, signer.verifier.key_id, base64.b64encode(signature).decode())


def _document(header: bytes, key_id: str, signature: str) -> bytes:
    signed = SignedHeader(header=msgspec.Raw(header), key_id=key_id, signature=signature)
    return msgspec.json.encode(signed, order="sorted")


def open_header(data: bytes, verifier: SealVerifier) -> Header:
    """Return the header of `header.json`, verified.

    Raises:
        SealedFormatError: not a header, or one that contradicts itself.
        SealTamperError: not signed by this publisher.
    """
    # 1. One spelling of what is around the header.
    if len(data) > MAX_HEADER_BYTES:
        raise SealedFormatError(f"expected a header of at most {MAX_HEADER_BYTES} bytes")
    try:
        signed = msgspec.json.decode(data, type=SignedHeader)
        signature = base64.b64decode(signed.signature, validate=True)
    except msgspec.DecodeError as error:
        raise SealedFormatError(f"expected a sealed model's header: {error}") from error
    except (ValueError, binascii.Error) as error:
        raise SealedFormatError("expected the header's signature in base64") from error
    raw = bytes(signed.header)
    if _document(raw, signed.key_id, signed.signature) != data:
        raise SealedFormatError("expected a header in canonical form, got another spelling of it")
    # 2. One signer, and its own signature over the very bytes that are read next.
    if signed.key_id != verifier.key_id:
        raise SealTamperError(
            f"expected a header signed by key {verifier.key_id}, got key {signed.key_id[:16]!r}"
        )
    if not verifier.is_header(signature, _DOMAIN + raw):
        raise SealTamperError("the header's signature is false: it was changed after signing")
    # 3. One spelling of the header, of the right types, and consistent in itself.
    try:
        header = msgspec.json.decode(raw, type=Header)
    except msgspec.DecodeError as error:
        raise SealedFormatError(f"expected a sealed model's header: {error}") from error
    if header_bytes(header) != raw:
        raise SealedFormatError("expected a header in canonical form, got another spelling of it")
    check_header(header)
    return header


def check_header(header: Header) -> None:
    """Refuse a header that a reader could take in two ways.

    Raises:
        SealedFormatError: another format or cipher, two shards of one name, or a shard hidden
            under another's sealed name.
    """
    if (header.format, header.cipher) != (FORMAT, CIPHER):
        raise SealedFormatError(f"expected {FORMAT} with {CIPHER}, got another format")
    # File systems may fold case; two shards must not become one file there.
    names = [shard.name.casefold() for shard in header.shards]
    files = {HEADER_NAME, *(f"{name}{SEALED_SUFFIX}" for name in names)}
    if len(files) != len(names) + 1:
        raise SealedFormatError("expected distinct shard names")
    if header.shredded is bool(header.wrapped):
        raise SealedFormatError("expected a wrapped key, or a tombstone without one")


def read_header(folder: Path) -> bytes:
    """Return the bytes of a sealed model's header.

    Raises:
        SealedFormatError: the folder has none.
    """
    try:
        with (folder / HEADER_NAME).open("rb") as file:
            return file.read(MAX_HEADER_BYTES + 1)
    except OSError as error:
        raise SealedFormatError(
            f"expected a sealed model with {HEADER_NAME}: {error.strerror}"
        ) from error


def content_id(header: Header) -> str:
    """Return the digest of what was sealed: the same before and after a rewrap, never otherwise.

    A request to load weights names it, so that content can't change after the approval.
    """
    kept = msgspec.structs.replace(header, revision=0, wrapped=(), shredded=True)
    return sha256_hex(b"safehold-content/1\0" + header_bytes(kept))


def covers(header: Header, parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the shards that a grant's parts name; `*` names all.

    Raises:
        WeightsError: a part that the model does not have, or none at all.
    """
    if not parts:
        raise WeightsError("expected at least one shard, got none")
    if parts == ("*",):
        return tuple(shard.name for shard in header.shards)
    return tuple(header.shard(part).name for part in dict.fromkeys(parts))
