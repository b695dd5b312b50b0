"""The W3C's test vectors (WebAuthn Level 3, section 16) as an outside judge of passkeys.

`vectors/webauthn-level3.json` says where they come from. Each has a registration and an assertion
by one credential, for the site example.org; the bits of user verification were drawn at random.
"""

import json
import re
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest
import webauthn

from safehold.trust.people.interface import (
    Passkey,
    PasskeyProof,
    PeopleError,
    RelyingParty,
    SignatureError,
)
from safehold.trust.people.passkey import b64url, verify_assertion, verify_registration

KEPT = json.loads((Path(__file__).parent / "vectors" / "webauthn-level3.json").read_bytes())
VECTORS: dict[str, dict[str, Any]] = {
    one["section"].removeprefix("sctn-test-vectors-"): one for one in KEPT["vectors"]
}
SITE = RelyingParty(rp_id=KEPT["rp_id"], origins=(KEPT["origin"],))
TAKEN = ""
UNVERIFIED = "user was not verified"
FRAME = "foreign frame"
ALGORITHM = "expected a passkey of Ed25519 or ES256|Unsupported credential public key alg"
# What must become of the registration and of the assertion.
EXPECTED = {
    "none-es256": (UNVERIFIED, UNVERIFIED),
    "packed-self-es256": (TAKEN, UNVERIFIED),
    "none-es256-crossOrigin": (FRAME, FRAME),
    "none-es256-topOrigin": (FRAME, FRAME),
    "none-es256-long-credential-id": (UNVERIFIED, TAKEN),
    "packed-es256": (TAKEN, TAKEN),
    "packed-es384": (UNVERIFIED, ALGORITHM),
    "packed-es512": (ALGORITHM, ALGORITHM),
    "packed-rs256": (ALGORITHM, ALGORITHM),
    "packed-eddsa": (UNVERIFIED, UNVERIFIED),
    "packed-ed448": (UNVERIFIED, ALGORITHM),
    "tpm-es256": (TAKEN, TAKEN),
    "android-key-es256": (TAKEN, UNVERIFIED),
    "apple-es256": (UNVERIFIED, UNVERIFIED),
    "fido-u2f-es256": (UNVERIFIED, UNVERIFIED),
}


def text(digits: str) -> str:
    """Return base64url of hexadecimal digits."""
    return b64url(bytes.fromhex(digits))


def key_of(vector: dict[str, Any]) -> Passkey:
    """Return the credential as the authenticator data have it, read without our code."""
    data = cbor2.loads(bytes.fromhex(vector["registration"]["attestationObject"]))["authData"]
    begins = 55 + int.from_bytes(data[53:55], "big")
    return Passkey(
        credential_id=text(vector["credentialId"]), public_key=b64url(bytes(data[begins:]))
    )


def proof_of(vector: dict[str, Any], **changed: str) -> PasskeyProof:
    """Return the assertion of a vector; named members (base64url) are others."""
    given = vector["authentication"]
    proof = PasskeyProof(
        key_id=key_of(vector).key_id,
        credential_id=text(vector["credentialId"]),
        authenticator_data=text(given["authenticatorData"]),
        client_data_json=text(given["clientDataJSON"]),
        signature=text(given["signature"]),
    )
    return msgspec.structs.replace(proof, **changed)


def assertion(vector: dict[str, Any], key: Passkey | None = None, **changed: str) -> None:
    """Judge the assertion of a vector."""
    verify_assertion(
        key or key_of(vector),
        proof_of(vector, **changed),
        challenge=bytes.fromhex(vector["authentication"]["challenge"]),
        relying_party=SITE,
        counter_floor=0,
    )


def registration(vector: dict[str, Any], site: RelyingParty = SITE, **changed: str) -> Passkey:
    """Judge the registration of a vector; named members (hexadecimal) are others."""
    given = {**vector["registration"], **changed}
    response = {
        "id": text(vector["credentialId"]),
        "rawId": text(vector["credentialId"]),
        "type": "public-key",
        "response": {
            "clientDataJSON": text(given["clientDataJSON"]),
            "attestationObject": text(given["attestationObject"]),
        },
    }
    return verify_registration(
        json.dumps(response), challenge=bytes.fromhex(given["challenge"]), relying_party=site
    )


def flipped(digits: str) -> list[str]:
    """Return the texts that differ in one bit of one byte, one for every byte."""
    data = bytes.fromhex(digits)
    return [
        (data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]).hex()
        for at in range(len(data))
    ]


def test_the_vectors_are_the_published_ones() -> None:
    """All fifteen are there, and the first is letter by letter that of the standard."""
    assert set(VECTORS) == set(EXPECTED)
    first = VECTORS["none-es256"]
    assert first["registration"]["challenge"] == (
        "00c30fb78531c464d2b6771dab8d7b603c01162f2fa486bea70f283ae556e130"
    )
    assert first["authentication"]["signature"] == (
        "3046022100f50a4e2e4409249c4a853ba361282f09841df4dd4547a13a87780218deffcd38"
        "0221008480ac0f0b93538174f575bf11a1dd5d78c6e486013f937295ea13653e331e87"
    )


@pytest.mark.parametrize("name", EXPECTED)
def test_a_registration_is_taken_or_refused_for_its_reason(name: str) -> None:
    """With user verification, on our own page, Ed25519 or ES256: whatever the attestation is."""
    vector, said = VECTORS[name], EXPECTED[name][0]
    if said == TAKEN:
        assert registration(vector) == key_of(vector)
        return
    with pytest.raises(PeopleError) as caught:
        registration(vector)
    assert re.search(said, str(caught.value.__cause__))


@pytest.mark.parametrize("name", EXPECTED)
def test_an_assertion_is_taken_or_refused_for_its_reason(name: str) -> None:
    """With user verification, on our own page, Ed25519 or ES256."""
    vector, said = VECTORS[name], EXPECTED[name][1]
    if said == TAKEN:
        assertion(vector)
        return
    with pytest.raises(SignatureError) as caught:
        assertion(vector)
    assert re.search(said, str(caught.value.__cause__ or caught.value))


@pytest.mark.parametrize("name", [one for one, (_, said) in EXPECTED.items() if said == UNVERIFIED])
def test_only_the_missing_verification_is_against_it(name: str) -> None:
    """The signature is good, and a verification that is written in afterwards breaks it."""
    vector = VECTORS[name]
    given = vector["authentication"]
    verified = webauthn.verify_authentication_response(
        credential={
            "id": text(vector["credentialId"]),
            "rawId": text(vector["credentialId"]),
            "type": "public-key",
            "response": {
                "authenticatorData": text(given["authenticatorData"]),
                "clientDataJSON": text(given["clientDataJSON"]),
                "signature": text(given["signature"]),
            },
        },
        expected_challenge=bytes.fromhex(given["challenge"]),
        expected_rp_id=SITE.rp_id,
        expected_origin=list(SITE.origins),
        credential_public_key=webauthn.base64url_to_bytes(key_of(vector).public_key),
        credential_current_sign_count=0,
        require_user_verification=False,
    )
    assert not verified.user_verified
    data = bytearray.fromhex(given["authenticatorData"])
    data[32] |= 0x04
    with pytest.raises(SignatureError, match="does not verify"):
        assertion(vector, authenticator_data=b64url(bytes(data)))


BOTH = [name for name, said in EXPECTED.items() if said == (TAKEN, TAKEN)]


@pytest.mark.parametrize("name", [one for one, (_, said) in EXPECTED.items() if said == TAKEN])
def test_an_assertion_with_any_byte_altered_is_refused(name: str) -> None:
    """Authenticator data, client data, signature, credential id, key and challenge."""
    vector = VECTORS[name]
    given = vector["authentication"]
    for member, field in (
        ("authenticatorData", "authenticator_data"),
        ("clientDataJSON", "client_data_json"),
        ("signature", "signature"),
    ):
        for other in flipped(given[member]):
            with pytest.raises(SignatureError):
                assertion(vector, **{field: text(other)})
    for other in flipped(vector["credentialId"])[:32]:
        with pytest.raises(SignatureError):
            assertion(vector, credential_id=text(other))
    key = key_of(vector)
    for other in flipped(webauthn.base64url_to_bytes(key.public_key).hex()):
        with pytest.raises(SignatureError):
            assertion(vector, msgspec.structs.replace(key, public_key=text(other)))
    for other in flipped(given["challenge"]):
        with pytest.raises(SignatureError):
            assertion({**vector, "authentication": {**given, "challenge": other}})


@pytest.mark.parametrize("name", BOTH)
def test_an_altered_registration_gives_nobody_elses_key(name: str) -> None:
    """Each byte altered: refused, or the same key, or a key that the assertion is not by."""
    vector = VECTORS[name]
    given = vector["registration"]
    refused = others = 0
    for member in ("clientDataJSON", "attestationObject"):
        for other in flipped(given[member]):
            try:
                found = registration(vector, **{member: other})
            except PeopleError:
                refused += 1
                continue
            if found != key_of(vector):
                others += 1
                with pytest.raises(SignatureError):
                    assertion(vector, found)
    assert refused > len(given["challenge"]) // 2
    assert others > 32  # a coordinate: nothing signs a registration


@pytest.mark.parametrize("name", BOTH)
def test_a_registration_for_another_challenge_or_site_is_refused(name: str) -> None:
    """Each byte of the challenge, the site's id, and its origin."""
    vector = VECTORS[name]
    for other in flipped(vector["registration"]["challenge"]):
        with pytest.raises(PeopleError):
            registration(vector, challenge=other)
    for site in (
        RelyingParty(rp_id="example.com", origins=SITE.origins),
        RelyingParty(rp_id=SITE.rp_id, origins=("https://example.com",)),
        RelyingParty(rp_id=SITE.rp_id, origins=("http://example.org",)),
    ):
        with pytest.raises(PeopleError):
            registration(vector, site)
