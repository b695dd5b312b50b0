"""Rewrapping: new keys around the same data key. Only the header changes, never the data."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from safehold.errors import WeightsError
from safehold.secure.weights.header import open_header, read_header, sign_header
from safehold.secure.weights.interface import HEADER_NAME, Header, KeyProvider, Wrapped
from safehold.secure.weights.keys import check_data_key, wrap_context
from safehold.secure.weights.signer import SealSigner
from safehold.secure.weights.storage import replace_file, sole_owner


def wrap_anew(
    header: Header, data_key: bytes, providers: Sequence[KeyProvider]
) -> tuple[Wrapped, ...]:
    """Return the data key wrapped by a new key of each provider.

    Raises:
        WeightsError: no provider, or a shredded model.
        WrongKeyError: the data key is not this model's.
    """
    if not providers:
        raise WeightsError("expected at least one key provider, got none")
    check_data_key(data_key, header)
    context = wrap_context(header.seal_id, header.model, header.version)
    wrapped: list[Wrapped] = []
    for provider in providers:
        reference = provider.create(f"safehold-{header.seal_id}-r{header.revision + 1}")
        blob = provider.wrap(reference, data_key, context)
        wrapped.append(Wrapped(provider=provider.kind, reference=reference, blob=blob))
    return tuple(wrapped)


def rewrapped(header: Header, wrapped: tuple[Wrapped, ...]) -> Header:
    """Return the header with other wrapped keys and the next revision."""
    if header.shredded:
        raise WeightsError(f"{header.model} {header.version} is shredded: no key of it exists")
    return msgspec.structs.replace(header, wrapped=wrapped, revision=header.revision + 1)


def tombstone(header: Header) -> Header:
    """Return the header of the shredded model: it says what was here, and opens nothing."""
    return msgspec.structs.replace(header, wrapped=(), shredded=True, revision=header.revision + 1)


def store_header(folder: Path, header: Header, signer: SealSigner) -> None:
    """Sign a header and put it in place of the older one.

    Raises:
        SealTamperError: the header there is not this publisher's.
        WeightsError: the header there is of another sealing, or not older.
        StorageError: the disk refused; the old header is as it was.
    """
    with sole_owner(folder):
        there = open_header(read_header(folder), signer.verifier)
        if there.seal_id != header.seal_id or header.revision != there.revision + 1:
            raise WeightsError(
                f"expected the next revision after {there.revision}, got {header.revision}"
            )
        replace_file(folder / HEADER_NAME, sign_header(header, signer))
