"""Passkeys (WebAuthn Level 3) as signers: user verification always, relying party pinned."""

import base64
import json
from typing import Any

import msgspec

from safehold.errors import DependencyError
from safehold.trust.people.interface import (
    Passkey,
    PasskeyProof,
    PeopleError,
    RelyingParty,
    SignatureError,
)

# What a library raises on bytes that somebody else has made up.
_BROKEN = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
TAKEN = {(1, -8, 6): "Ed25519", (2, -7, 1): "ES256"}
"""COSE key type, algorithm and curve (RFC 9053): what the enrolment page asks for, no more."""


class _Attested(msgspec.Struct, frozen=True, rename="camel"):
    client_data_json: str = msgspec.field(name="clientDataJSON")
    attestation_object: str


class _Registration(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of a browser's `PublicKeyCredential.toJSON()`; the rest is not looked at."""

    id: str
    raw_id: str
    type: str
    response: _Attested


def b64url(data: bytes) -> str:
    """Return base64url without padding (WebAuthn's own spelling)."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unb64url(text: str) -> bytes:
    """Return the bytes of unpadded base64url.

    Raises:
        SignatureError: other characters, or a second spelling of the same bytes.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise SignatureError("expected base64url without padding") from error
    if b64url(data) != text:
        raise SignatureError("expected the one canonical base64url spelling")
    return data


def _webauthn() -> Any:
    try:
        import webauthn
    except ImportError as error:
        raise DependencyError("passkeys need the extra: pip install 'safehold[trust]'") from error
    return webauthn


def verify_registration(response: str, *, challenge: bytes, relying_party: RelyingParty) -> Passkey:
    """Return the passkey of a browser's registration response (a JSON text).

    The attestation is not judged, nor read: the two persons who approve the enrolment vouch for
    the key, and its holder signs that enrolment.

    Raises:
        PeopleError: the response is not one to this challenge, with user verification, on a page of
            the relying party, with an Ed25519 or ES256 key.
    """
    webauthn = _webauthn()
    try:
        given = msgspec.json.decode(response, type=_Registration)
        _own_page(unb64url(given.response.client_data_json))
        verified = webauthn.verify_registration_response(
            credential={
                "id": given.id,
                "rawId": given.raw_id,
                "type": given.type,
                "response": {
                    "clientDataJSON": given.response.client_data_json,
                    "attestationObject": _unattested(given.response.attestation_object),
                },
            },
            expected_challenge=challenge,
            expected_rp_id=relying_party.rp_id,
            expected_origin=list(relying_party.origins),
            require_user_verification=True,
        )
        _refuse_other_keys(verified.credential_public_key)
    except (_webauthn_error(), SignatureError, *_BROKEN) as error:
        raise PeopleError("expected a valid passkey registration for this site") from error
    return Passkey(
        credential_id=b64url(verified.credential_id),
        public_key=b64url(verified.credential_public_key),
    )


def _unattested(text: str) -> str:
    """Return the attestation object without its statement (WebAuthn Level 3, section 8.7)."""
    import cbor2

    found = _cbor(unb64url(text))
    if not isinstance(found, dict) or set(found) != {"fmt", "attStmt", "authData"}:
        raise SignatureError("expected an attestation object")
    return b64url(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": found["authData"]}))


def _refuse_other_keys(public_key: bytes) -> None:
    """Refuse a key of an algorithm or curve that passkeys here do not use.

    Raises:
        SignatureError: what came, and what was expected.
    """
    key = _cbor(public_key)
    given = tuple(key.get(member) for member in (1, 3, -1)) if isinstance(key, dict) else None
    if given is None or not all(type(one) is int for one in given) or given not in TAKEN:
        raise SignatureError(f"expected a passkey of {' or '.join(TAKEN.values())}, came {given}")


def _cbor(data: bytes) -> Any:
    import cbor2

    try:
        return cbor2.loads(data)
    except (cbor2.CBORDecodeError, *_BROKEN) as error:
        raise SignatureError("expected CBOR") from error


def _webauthn_error() -> type[Exception]:
    from webauthn.helpers.exceptions import WebAuthnException

    return WebAuthnException


def verify_assertion(
    key: Passkey,
    proof: PasskeyProof,
    *,
    challenge: bytes,
    relying_party: RelyingParty,
    counter_floor: int,
) -> int:
    """Verify an assertion and return the authenticator's counter.

    Args:
        key: The enrolled passkey.
        proof: What the browser returned.
        challenge: 32 bytes the assertion must be about.
        relying_party: The pinned rp id and origins.
        counter_floor: The highest counter seen of the key before; a counter that does not rise
            above it is a copied authenticator (two zeros: the authenticator keeps none).

    Raises:
        SignatureError: any step fails.
    """
    webauthn = _webauthn()
    # 1. The assertion is by the enrolled credential.
    if proof.credential_id != key.credential_id:
        raise SignatureError("expected an assertion by the enrolled credential")
    # 2. The ceremony ran on our own page, not inside somebody else's.
    _own_page(unb64url(proof.client_data_json))
    # 3. The key is of an algorithm that is taken.
    public_key = unb64url(key.public_key)
    _refuse_other_keys(public_key)
    # 4. Type, challenge, origin, rp id hash, presence, verification, counter, signature.
    try:
        verified = webauthn.verify_authentication_response(
            credential={
                "id": proof.credential_id,
                "rawId": proof.credential_id,
                "type": "public-key",
                "response": {
                    "authenticatorData": proof.authenticator_data,
                    "clientDataJSON": proof.client_data_json,
                    "signature": proof.signature,
                },
            },
            expected_challenge=challenge,
            expected_rp_id=relying_party.rp_id,
            expected_origin=list(relying_party.origins),
            credential_public_key=public_key,
            credential_current_sign_count=counter_floor,
            require_user_verification=True,
        )
    except (_webauthn_error(), *_BROKEN) as error:
        raise SignatureError("the passkey assertion does not verify for this statement") from error
    return int(verified.new_sign_count)


def _own_page(raw: bytes) -> None:
    """Refuse a ceremony that ran inside a page of somebody else's (either ceremony).

    Raises:
        SignatureError: client data that are none, or of a foreign frame.
    """
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise SignatureError("expected client data in JSON") from error
    if not isinstance(data, dict):
        raise SignatureError("expected client data to be an object")
    foreign = data.get("crossOrigin")
    if not (foreign is None or foreign is False) or "topOrigin" in data:
        raise SignatureError("expected a ceremony on our own page, got one in a foreign frame")
