"""Passkeys (WebAuthn Level 2) as signers: user verification always, relying party pinned."""

import base64
import json
from typing import Any

from safehold.errors import DependencyError
from safehold.trust.people.interface import (
    Passkey,
    PasskeyProof,
    PeopleError,
    RelyingParty,
    SignatureError,
)


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

    The attestation is not judged: the two persons who approve the enrolment vouch for the key.

    Raises:
        PeopleError: the response is not one to this challenge, with user verification, for the
            relying party.
    """
    webauthn = _webauthn()
    try:
        verified = webauthn.verify_registration_response(
            credential=response,
            expected_challenge=challenge,
            expected_rp_id=relying_party.rp_id,
            expected_origin=list(relying_party.origins),
            require_user_verification=True,
        )
    except (_webauthn_error(), ValueError) as error:
        raise PeopleError("expected a valid passkey registration for this site") from error
    return Passkey(
        credential_id=b64url(verified.credential_id),
        public_key=b64url(verified.credential_public_key),
    )


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
    client_data = _client_data(unb64url(proof.client_data_json))
    foreign = client_data.get("crossOrigin")
    if not (foreign is None or foreign is False) or "topOrigin" in client_data:
        raise SignatureError("expected a ceremony on our own page, got one in a foreign frame")
    # 3. Type, challenge, origin, rp id hash, presence, verification, counter, signature.
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
            credential_public_key=unb64url(key.public_key),
            credential_current_sign_count=counter_floor,
            require_user_verification=True,
        )
    except (_webauthn_error(), ValueError, RecursionError) as error:
        raise SignatureError("the passkey assertion does not verify for this statement") from error
    return int(verified.new_sign_count)


def _client_data(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise SignatureError("expected client data in JSON") from error
    if not isinstance(data, dict):
        raise SignatureError("expected client data to be an object")
    return data
