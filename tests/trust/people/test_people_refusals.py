"""What is no key and no signature is refused, each by its own sentence."""

import base64
import json
from collections.abc import Callable

import cbor2
import msgspec
import pytest

from safehold.testing.trust import ORIGIN, RP_ID, SoftPasskey, SoftSsh, SoftSshSk
from safehold.trust.people.interface import (
    Passkey,
    PasskeyProof,
    PeopleError,
    RelyingParty,
    SignatureError,
    SshKey,
)
from safehold.trust.people.material import ED25519, SK_ED25519, cose_material, ssh_material
from safehold.trust.people.passkey import b64url, unb64url, verify_assertion, verify_registration
from safehold.trust.people.proofs import verify_by
from safehold.trust.people.sshsig import (
    armour,
    dearmour,
    embedded_key,
    parse_public_key,
    verify_sshsig,
)
from safehold.trust.people.statement import NAMESPACE, Act, challenge

RP = RelyingParty(rp_id=RP_ID, origins=(ORIGIN,))
SOFT = SoftSsh(b"ada")
SECURITY = SoftSshSk(b"ada")
MESSAGE = b"a message"
DOCUMENT = {"a": 1}


def key_of(soft: SoftSsh | SoftSshSk) -> SshKey:
    """Return the SSH key."""
    assert isinstance(soft.key, SshKey)
    return soft.key


RAW = base64.b64decode(key_of(SOFT).public.split()[1])[-32:]


def field(data: bytes) -> bytes:
    """Return a length-prefixed field (RFC 4251)."""
    return len(data).to_bytes(4, "big") + data


def line_of(*fields: bytes, kind: bytes = ED25519, more: bytes = b"") -> str:
    """Return a public key line of any fields."""
    blob = b"".join(map(field, fields)) + more
    return f"{kind.decode()} {base64.b64encode(blob).decode()}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "one public key line"),
        ("ssh-ed25519", "one public key line"),
        ("ssh-rsa AAAA", "one public key line"),
        ("ssh-ed25519 %%%", "well-formed"),
        (line_of(ED25519, bytes(31)), "well-formed"),
        (line_of(b"ssh-dss", bytes(32)), "well-formed"),
        (line_of(ED25519, bytes(32), more=b"x"), "well-formed"),
        (line_of(ED25519), "well-formed"),
        (line_of(SK_ED25519, bytes(32), b"ssh:"), "type inside the key"),
    ],
)
def test_what_is_no_public_key_line_is_refused(line: str, said: str) -> None:
    """Another type, another length, more or fewer fields, and a type that is not the key's."""
    with pytest.raises(PeopleError, match=said):
        parse_public_key(line)
    assert parse_public_key(f"{key_of(SOFT).public} a comment") == SOFT.key


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ssh-ed25519 %%%", "."),
        (f"ssh-ed25519 {base64.b64encode(field(ED25519)).decode().rstrip('=')}A=", "."),
        (line_of(ED25519, more=b"\0\0\0\x09short"), "truncated"),
        (line_of(ED25519, more=b"\0\0"), "truncated"),
        (line_of(), "not an Ed25519 key"),
        (line_of(b"ssh-dss", bytes(32)), "not an Ed25519 key"),
        (line_of(ED25519, bytes(32), b"more"), "not an Ed25519 key"),
        (line_of(ED25519, RAW, kind=SK_ED25519), "type inside"),
        (line_of(ED25519, RAW[:31]), "32 bytes"),
        (line_of(ED25519, bytes(32)), "no key"),
        (line_of(ED25519, (1).to_bytes(32, "little")), "no key"),
        (line_of(ED25519, (2**255 - 19).to_bytes(32, "little")), "no key"),
    ],
)
def test_no_two_spellings_and_no_weak_point_have_a_material(line: str, said: str) -> None:
    """The id of a key is computed from the one canonical form of a sound key."""
    with pytest.raises(ValueError, match=said):
        ssh_material(line)
    assert ssh_material(key_of(SOFT).public) == f"ed25519:{RAW.hex()}"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not CBOR"),
        (b"\x81" * 5000, "."),
        (cbor2.dumps([1]), "known type"),
        (cbor2.dumps({1: 9}), "known type"),
        (cbor2.dumps({1: 2, -1: 1, -2: b"x"}), "lacks a number"),
        (cbor2.dumps({1: 3, -1: b"n"}), "lacks a number"),
        (cbor2.dumps({1: 1, -1: 6, -2: bytes(32)}), "no key"),
    ],
)
def test_what_is_no_passkey_is_refused(data: bytes, said: str) -> None:
    """No CBOR, another type, a number that lacks, a weak point."""
    with pytest.raises(ValueError, match=said):
        cose_material(data)


def test_one_passkey_has_one_material() -> None:
    """Leading zeros of a number, and the order of members, change nothing; each type is named."""
    plain = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: b"\0x", -3: b"y"})
    assert cose_material(plain) == cose_material(cbor2.dumps({-3: b"y", -2: b"x", -1: 1, 1: 2}))
    assert cose_material(cbor2.dumps({1: 3, -1: b"\0n", -2: b"e"})) == "cose:3::6e:65"
    assert cose_material(cbor2.dumps({1: 1, -1: 6, -2: RAW})) == f"ed25519:{RAW.hex()}"


def sshsig(**changed: bytes) -> str:
    """Return an SSHSIG with some parts changed."""
    true = SECURITY.sshsig(MESSAGE)
    blob = base64.b64decode(true)
    for old, new in changed.items():
        blob = blob.replace(PARTS[old], new, 1)
    return base64.b64encode(blob).decode()


PARTS = {
    "magic": b"SSHSIG",
    "version": b"SSHSIG\0\0\0\1",
    "namespace": field(NAMESPACE.encode()),
    "hash": field(b"sha512"),
}


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        ("%", "base64 SSHSIG"),
        ("", "truncated"),
        (base64.b64encode(bytes(5000)).decode(), "at most"),
        (sshsig(magic=b"SSHGIS"), "version 1"),
        (sshsig(version=b"SSHSIG\0\0\0\2"), "version 1"),
        (sshsig(namespace=field(b"git")), "the namespace"),
        (sshsig(hash=field(b"md5")), "sha256 or sha512"),
        (sshsig(hash=field(b"sha256")), "does not verify"),
        (base64.b64encode(base64.b64decode(sshsig()) + b"x").decode(), "got more bytes"),
        (base64.b64encode(base64.b64decode(sshsig())[:-1]).decode(), "truncated"),
    ],
)
def test_what_is_no_signature_is_refused(signature: str, said: str) -> None:
    """Each rule of SSHSIG by itself; the true one is taken, with its counter."""
    with pytest.raises(SignatureError, match=said):
        verify_sshsig(key_of(SECURITY), MESSAGE, signature, namespace=NAMESPACE)
    assert verify_sshsig(key_of(SECURITY), MESSAGE, sshsig(), namespace=NAMESPACE) > 0


def test_a_signature_counts_for_its_own_key_and_type() -> None:
    """Another person's key, a touch without a person, and a plain signature of a security key."""
    with pytest.raises(SignatureError, match="enrolled key"):
        verify_sshsig(key_of(SOFT), MESSAGE, sshsig(), namespace=NAMESPACE)
    touched = SoftSshSk(b"ada", flags=0x01)
    with pytest.raises(SignatureError, match="user verification"):
        verify_sshsig(key_of(touched), MESSAGE, touched.sshsig(MESSAGE), namespace=NAMESPACE)
    inner = field(SK_ED25519) + field(bytes(64)) + b"\5\0\0\0\1"
    other = field(ED25519) + field(bytes(64))
    blob = base64.b64decode(sshsig())
    swapped = base64.b64encode(blob[: -len(inner) - 4] + field(other)).decode()
    with pytest.raises(SignatureError, match="own type"):
        verify_sshsig(key_of(SECURITY), MESSAGE, swapped, namespace=NAMESPACE)


def test_the_key_that_a_signature_names_is_read_from_it() -> None:
    """Only from an SSHSIG of version 1 with a key of a known type."""
    assert embedded_key(sshsig()) == SECURITY.key
    for wrong, said in (("%", "base64"), (sshsig(magic=b"SSHGIS"), "version 1")):
        with pytest.raises(SignatureError, match=said):
            embedded_key(wrong)
    foreign = b"SSHSIG\0\0\0\1" + field(field(b"ssh-rsa") + field(b"n"))
    with pytest.raises(PeopleError, match="one public key line"):
        embedded_key(base64.b64encode(foreign).decode())


def test_armour_comes_off_as_it_went_on() -> None:
    """A signature without its last line is refused; a bare one is itself."""
    signature = sshsig()
    assert dearmour(armour(signature)) == signature
    assert dearmour(f" {signature}\n") == signature
    with pytest.raises(SignatureError, match="to end with"):
        dearmour("\n".join(armour(signature).strip().split("\n")[:-1]))


@pytest.mark.parametrize("text", ["a+b/", "YQ==", "YR", "a b", "é"])
def test_base64url_has_one_spelling(text: str) -> None:
    """Padding, the other alphabet, loose bits and other characters are refused."""
    with pytest.raises(SignatureError, match="base64url"):
        unb64url(text)
    assert unb64url("YQ") == b"a"


def told(client_data: object) -> Callable[[PasskeyProof], PasskeyProof]:
    """Return a change of a proof's client data."""
    raw = client_data if isinstance(client_data, bytes) else json.dumps(client_data).encode()
    return lambda proof: msgspec.structs.replace(proof, client_data_json=b64url(raw))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda proof: msgspec.structs.replace(proof, credential_id="YQ"), "enrolled credential"),
        (told(b"{"), "in JSON"),
        (told(b"[" * 100_000), "in JSON"),
        (told([]), "an object"),
        (told({"crossOrigin": True}), "foreign frame"),
        (told({"crossOrigin": False, "topOrigin": "x"}), "foreign frame"),
        (told({"crossOrigin": False}), "does not verify"),
        (lambda proof: msgspec.structs.replace(proof, signature="YQ"), "does not verify"),
        (lambda proof: msgspec.structs.replace(proof, authenticator_data="YQ"), "does not verify"),
    ],
)
def test_an_assertion_is_refused_at_its_first_false_part(
    change: Callable[[PasskeyProof], PasskeyProof], said: str
) -> None:
    """Credential, client data, frame, signature, authenticator data; the true one is taken."""
    soft = SoftPasskey(b"ada")
    proof = soft.sign(Act.REQUEST, DOCUMENT)
    assert isinstance(proof, PasskeyProof)
    assert isinstance(soft.key, Passkey)
    asked = challenge(Act.REQUEST, DOCUMENT)
    with pytest.raises(SignatureError, match=said):
        verify_assertion(
            soft.key, change(proof), challenge=asked, relying_party=RP, counter_floor=0
        )
    counter = verify_assertion(soft.key, proof, challenge=asked, relying_party=RP, counter_floor=0)
    assert counter == 1
    with pytest.raises(SignatureError, match="does not verify"):
        verify_assertion(soft.key, proof, challenge=asked, relying_party=RP, counter_floor=1)


@pytest.mark.parametrize("response", ["", "{}", "[]", '{"id": "a", "rawId": "a", "type": "x"}'])
def test_what_is_no_registration_enrols_nobody(response: str) -> None:
    """A browser's answer that is none."""
    with pytest.raises(PeopleError, match="valid passkey registration"):
        verify_registration(response, challenge=b"c" * 32, relying_party=RP)


def test_a_signature_of_another_kind_of_key_is_refused_in_words() -> None:
    """An SSH signature in a passkey's name says what was expected, and is no passkey's."""
    soft = SoftPasskey(b"ada")
    ssh = SoftSsh(b"ada").sign(Act.REQUEST, DOCUMENT)
    claimed = msgspec.structs.replace(ssh, key_id=soft.key.key_id)
    with pytest.raises(SignatureError, match="expected a passkey assertion"):
        verify_by(soft.key, Act.REQUEST, DOCUMENT, claimed, relying_party=RP)
    proof = soft.sign(Act.REQUEST, DOCUMENT)
    assert verify_by(soft.key, Act.REQUEST, DOCUMENT, proof, relying_party=RP) == 1


def test_a_key_has_one_base64_spelling() -> None:
    """Spare bits of the last character make no second line of the same key."""
    soft = SoftSshSk(b"ada")
    assert isinstance(soft.key, SshKey)
    body = soft.key.public.rstrip("=")
    padding = len(soft.key.public) - len(body)
    assert padding, "a key whose base64 has spare bits"
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = body[:-1] + letters[letters.index(body[-1]) + 1] + "=" * padding
    assert base64.b64decode(other.split()[1]) == base64.b64decode(soft.key.public.split()[1])
    with pytest.raises(ValueError, match="canonical base64"):
        _ = SshKey(public=other).material
    assert soft.key.material == SshKey(public=soft.key.public).material
