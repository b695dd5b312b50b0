"""Leaves: DSSE envelopes around in-toto statements, signed by the emitting service's key."""

import base64
from collections.abc import Mapping
from typing import Any

import msgspec

from safehold.canonical import CanonicalError, canonical, parse_canonical
from safehold.trust.log.interface import LogError, LogTamperError
from safehold.trust.log.note import SigningKey, VerifierKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One DSSE signature."""

    keyid: str
    sig: str


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A DSSE envelope (secure-systems-lab/dsse, protocol v1)."""

    payload: str
    payload_type: str
    signatures: tuple[Signed, ...]


class StatementSubject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a statement is about: a name and its digests."""

    name: str
    digest: dict[str, str]


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An in-toto v1 statement: a typed predicate about subjects."""

    type: str = msgspec.field(name="_type")
    subject: tuple[StatementSubject, ...]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: dict[str, Any]


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the DSSE pre-authentication encoding: what is signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign_envelope(statement: Statement, key: SigningKey) -> bytes:
    """Return the leaf entry: the canonical envelope of the canonical statement."""
    payload = canonical(statement)
    signature = key.sign(pae(PAYLOAD_TYPE, payload))
    return canonical(
        Envelope(
            payload=base64.b64encode(payload).decode(),
            payload_type=PAYLOAD_TYPE,
            signatures=(
                Signed(keyid=key.verifier.label, sig=base64.b64encode(signature).decode()),
            ),
        )
    )


def stated_time(entry: bytes) -> int | None:
    """Return the time that a leaf states (POSIX seconds); None: it states none, or is no leaf."""
    try:
        envelope = parse_canonical(entry, Envelope, what="a DSSE envelope")
        payload = base64.b64decode(envelope.payload, validate=True)
        time = parse_canonical(payload, Statement, what="a statement").predicate.get("time")
    except (ValueError, CanonicalError):
        return None
    return time if type(time) is int else None


def open_envelope(entry: bytes, emitters: Mapping[str, VerifierKey]) -> tuple[Statement, str]:
    """Return the statement of a leaf, and the label of the emitter who signed it.

    Raises:
        LogTamperError: signed by no known emitter, or falsely.
        LogError: not a canonical envelope around a canonical statement.
    """
    # 1. One envelope, one spelling.
    envelope = parse_canonical(entry, Envelope, what="a DSSE envelope")
    if envelope.payload_type != PAYLOAD_TYPE:
        raise LogError(f"expected a payload of type {PAYLOAD_TYPE}")
    try:
        payload = base64.b64decode(envelope.payload, validate=True)
        signatures = [
            (one.keyid, base64.b64decode(one.sig, validate=True)) for one in envelope.signatures
        ]
    except ValueError as error:
        raise LogError("expected base64 in the envelope") from error
    # 2. Exactly one signature, by a known emitter, and true.
    if len(signatures) != 1 or signatures[0][0] not in emitters:
        raise LogTamperError("expected a leaf signed by one known emitter")
    label, signature = signatures[0]
    if not emitters[label].verifies(signature, pae(envelope.payload_type, payload)):
        raise LogTamperError(f"the leaf's signature by {label} is false")
    # 3. One statement, one spelling.
    statement = parse_canonical(payload, Statement, what="an in-toto statement")
    if statement.type != STATEMENT_TYPE:
        raise LogError(f"expected a statement of type {STATEMENT_TYPE}")
    return statement, label
