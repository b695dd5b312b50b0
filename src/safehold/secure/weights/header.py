"""The signed header: one spelling, one signature, one meaning."""

import base64
import binascii
from pathlib import Path

import msgspec

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
from safehold.trust.canonical import CanonicalError, canonical, parse_canonical, sha256_hex

MAX_HEADER_BYTES = 16 * 2**20
_DOMAIN = b"safehold-sealed-header/1\0"


class SignedHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`header.json`: the header, who signed it (16 hexadecimal digits of the key), and how."""

    header: Header
    key_id: str
    signature: str


def sign_header(header: Header, signer: SealSigner) -> bytes:
    """Return the bytes of `header.json`."""
    check_header(header)
    signature = signer.sign_header(_DOMAIN + canonical(header))
    return canonical(
        SignedHeader(
            header=header,
            key_id=signer.verifier.key_id,
            signature=base64.b64encode(signature).decode(),
        )
    )


def open_header(data: bytes, verifier: SealVerifier) -> Header:
    """Return the header of `header.json`, verified.

    Raises:
        SealedFormatError: not a header, or one that contradicts itself.
        SealTamperError: not signed by this publisher.
    """
    # 1. One spelling.
    if len(data) > MAX_HEADER_BYTES:
        raise SealedFormatError(f"expected a header of at most {MAX_HEADER_BYTES} bytes")
    try:
        signed = parse_canonical(data, SignedHeader, what="a sealed model's header")
        signature = base64.b64decode(signed.signature, validate=True)
    except CanonicalError as error:
        raise SealedFormatError(str(error)) from error
    except binascii.Error as error:
        raise SealedFormatError("expected the header's signature in base64") from error
    # 2. One signer, and its own signature.
    if signed.key_id != verifier.key_id:
        raise SealTamperError(
            f"expected a header signed by key {verifier.key_id}, got key {signed.key_id[:16]!r}"
        )
    if not verifier.is_header(signature, _DOMAIN + canonical(signed.header)):
        raise SealTamperError("the header's signature is false: it was changed after signing")
    # 3. Consistent in itself.
    check_header(signed.header)
    return signed.header


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
    return sha256_hex(b"safehold-content/1\0" + canonical(kept))


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
