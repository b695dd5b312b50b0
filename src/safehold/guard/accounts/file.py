"""Reading and writing the signed file of account states.

Numbered as it is checked:
1. One of the configured keys signed the content.
2. It says only things that this version knows, and each step once.
3. Each step ends, within 90 days of its beginning; a rate limit has a number, other steps none.
4. A suspension names its grant; the other upper steps do so, or last a day at most.

Whether a grant holds is the reader's to say, from its own copy of the transparency log (`live`).
"""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from safehold.errors import ConfigError
from safehold.guard.accounts.interface import (
    DAY_S,
    GRANTED,
    MOST_DAYS,
    MOST_STANDINGS,
    PROVISIONAL_S,
    AccountStanding,
    AccountStateError,
    AccountStates,
    LadderStep,
)
from safehold.guard.bundle.signing import fingerprint, load_public_key

_CONTEXT = b"safehold-account-states/1\0"
_MAX_FILE_BYTES = 128 << 20

Keys = Mapping[str, Ed25519PublicKey]
"""Whose signature counts, by the writer's name."""


class _SignedStates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    content: str
    signer: str
    key: str
    signature: str


def keys_of(files: Mapping[str, str]) -> Keys:
    """Return the public keys in the files.

    Raises:
        ConfigError: there is none, or one can't be read.
    """
    if not files:
        raise ConfigError("account_states: expected a key at least, whose signature counts")
    return {name: load_public_key(Path(file)) for name, file in files.items()}


def sealed(content: AccountStates, signer: str, key: Ed25519PrivateKey) -> bytes:
    """Return the signed file."""
    body = msgspec.json.encode(content)
    signature = base64.b64encode(key.sign(_CONTEXT + body)).decode()
    mark = fingerprint(key.public_key())
    return msgspec.json.encode(
        _SignedStates(base64.b64encode(body).decode(), signer, mark, signature)
    )


def opened(data: bytes, keys: Keys) -> AccountStates:
    """Return the content of a signed file.

    Raises:
        AccountStateError: it does not verify, or a step in it may not be what it says.
    """
    if len(data) > _MAX_FILE_BYTES:
        raise AccountStateError("account states: the file is larger than any file of states")
    # 1.
    try:
        envelope = msgspec.json.decode(data, type=_SignedStates)
        body = base64.b64decode(envelope.content, validate=True)
        signature = base64.b64decode(envelope.signature, validate=True)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise AccountStateError("account states: expected a signed file of states") from error
    known = keys.get(envelope.signer)
    try:
        if known is None or fingerprint(known) != envelope.key:
            raise AccountStateError("account states: no configured key signed this content")
        known.verify(signature, _CONTEXT + body)
    except InvalidSignature as error:
        raise AccountStateError("account states: the signature is not of this content") from error
    # 2.
    try:
        content = msgspec.json.decode(body, type=AccountStates)
    except msgspec.DecodeError as error:
        raise AccountStateError(f"account states: not after their schema: {error}") from error
    check(content)
    return content


def check(content: AccountStates) -> None:
    """Refuse states that may not be what they say.

    Raises:
        AccountStateError: the message names the account and what is missing.
    """
    if len(content.standings) > MOST_STANDINGS:
        raise AccountStateError(f"account states: expected {MOST_STANDINGS} steps at most")
    seen: set[tuple[str, str, str]] = set()
    for one in content.standings:
        place = (one.account, one.level.value, one.label)
        if place in seen:
            raise AccountStateError(
                f"account {one.account}: {one.level}/{one.label} is there twice"
            )
        seen.add(place)
        _check(one)


def _check(one: AccountStanding) -> None:
    # 3.
    who = f"account {one.account}, {one.level}"
    lasts = one.expires - one.created
    if not 0 < lasts <= MOST_DAYS * DAY_S:
        raise AccountStateError(f"{who}: expected an end within {MOST_DAYS} days")
    if (one.level is LadderStep.RATE_LIMIT) is (one.requests_per_hour is None):
        raise AccountStateError(f"{who}: a rate limit has requests_per_hour, no other step has")
    # 4.
    if one.grant and one.level not in GRANTED:
        raise AccountStateError(f"{who}: this step takes no grant")
    if one.level is LadderStep.SUSPEND and not one.grant:
        raise AccountStateError(f"{who}: expected the grant that suspends it")
    if one.level in GRANTED and not one.grant and lasts > PROVISIONAL_S:
        raise AccountStateError(f"{who}: without a grant it lasts a day at most")
