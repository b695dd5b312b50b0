"""Signatures that must count, checked by OpenSSH itself, and those that must not."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.testing.trust import (
    ORIGIN,
    RP_ID,
    Enclave,
    SoftPasskey,
    SoftSsh,
    SoftSshSk,
    person_id,
    ssh_public_of,
)
from safehold.trust.people.interface import (
    EMPTY_ROSTER,
    Kind,
    PasskeyProof,
    PeopleError,
    Person,
    RelyingParty,
    Roster,
    SignatureError,
    SshKey,
    SshProof,
    Team,
)
from safehold.trust.people.passkey import unb64url
from safehold.trust.people.proofs import verify_proof
from safehold.trust.people.sshsig import (
    armour,
    dearmour,
    parse_public_key,
    private_key_text,
    verify_sshsig,
)
from safehold.trust.people.statement import NAMESPACE, Act, ssh_message, statement

RP = RelyingParty(rp_id=RP_ID, origins=(ORIGIN,))
DOCUMENT = {"a": 1}
needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")


def roster_of(*keys: SoftSsh | SoftSshSk | SoftPasskey) -> Roster:
    """Return a roster of one person with these keys."""
    person = Person(person_id("x"), "x", Kind.HUMAN, (), (), tuple(key.key for key in keys))
    return EMPTY_ROSTER.enrol(person)


def keygen_verify(folder: Path, public: str, message: bytes, signature: str) -> bool:
    """Ask the real ssh-keygen whether a signature is good."""
    (folder / "allowed").write_text(f"somebody {public}\n")
    (folder / "sig").write_text(armour(signature))
    command = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "somebody"]
    done = subprocess.run(
        [*command, "-n", NAMESPACE, "-s", "sig"],
        input=message,
        cwd=folder,
        check=False,
        capture_output=True,
    )
    return done.returncode == 0


@needs_ssh
@pytest.mark.parametrize("soft", [SoftSsh(b"k"), SoftSshSk(b"k")])
def test_openssh_accepts_what_we_accept(tmp_path: Path, soft: SoftSsh | SoftSshSk) -> None:
    """A proof that counts here is good for ssh-keygen -Y verify too, plain and security key."""
    proof = soft.sign(Act.APPROVE, DOCUMENT)
    assert isinstance(proof, SshProof)
    verify_proof(roster_of(soft), Act.APPROVE, DOCUMENT, proof, relying_party=RP)
    message = ssh_message(Act.APPROVE, DOCUMENT)
    assert keygen_verify(tmp_path, ssh_public_of(soft), message, proof.signature)
    assert not keygen_verify(tmp_path, ssh_public_of(soft), b"x", proof.signature)


@needs_ssh
@pytest.mark.parametrize("hash_name", ["sha256", "sha512"])
def test_we_accept_what_openssh_signs(tmp_path: Path, hash_name: str) -> None:
    """A signature made by ssh-keygen -Y sign counts, under either hash."""
    soft = SoftSsh(b"real")
    key = tmp_path / "key"
    key.write_bytes(private_key_text(soft.private))
    key.chmod(0o600)
    message = tmp_path / "m"
    message.write_bytes(ssh_message(Act.APPROVE, DOCUMENT))
    command = ["ssh-keygen", "-Y", "sign", "-q", "-n", NAMESPACE, "-O", f"hashalg={hash_name}"]
    subprocess.run([*command, "-f", str(key), str(message)], check=True, capture_output=True)
    signature = dearmour((tmp_path / "m.sig").read_text())
    proof = SshProof(key_id=soft.key.key_id, signature=signature)
    found = verify_proof(roster_of(soft), Act.APPROVE, DOCUMENT, proof, relying_party=RP)
    assert found.person.id == person_id("x")
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(key)], check=True, capture_output=True, text=True
    )
    assert soft.key.key_id in listed.stdout


def test_signature_of_another_namespace_is_refused() -> None:
    """A signed git commit, or a file, is no approval."""
    soft = SoftSshSk(b"k")
    assert isinstance(soft.key, SshKey)
    signature = soft.sshsig(ssh_message(Act.APPROVE, DOCUMENT), namespace="git")
    with pytest.raises(SignatureError, match="namespace"):
        verify_sshsig(soft.key, ssh_message(Act.APPROVE, DOCUMENT), signature, namespace=NAMESPACE)


@pytest.mark.parametrize("flags", [0x00, 0x01, 0x04])
def test_security_key_without_user_verification_is_refused(flags: int) -> None:
    """A touch alone, or no touch, is what a thief of the key can give too."""
    soft = SoftSshSk(b"k", flags=flags)
    with pytest.raises(SignatureError, match="user verification"):
        verify_proof(
            roster_of(soft),
            Act.APPROVE,
            DOCUMENT,
            soft.sign(Act.APPROVE, DOCUMENT),
            relying_party=RP,
        )


def test_security_key_counter_must_rise() -> None:
    """A copied security key shows an old counter."""
    soft = SoftSshSk(b"k")
    proof = soft.sign(Act.APPROVE, DOCUMENT)
    with pytest.raises(SignatureError, match="counter"):
        verify_proof(
            roster_of(soft), Act.APPROVE, DOCUMENT, proof, relying_party=RP, counter_floor=1
        )


def test_key_inside_the_signature_decides_nothing() -> None:
    """A signature that carries its own, unknown key is not believed under an enrolled key's id."""
    enrolled, stranger = SoftSsh(b"enrolled"), SoftSsh(b"stranger")
    forged = stranger.sign(Act.APPROVE, DOCUMENT)
    assert isinstance(forged, SshProof)
    proof = SshProof(key_id=enrolled.key.key_id, signature=forged.signature)
    with pytest.raises(SignatureError, match="enrolled key"):
        verify_proof(roster_of(enrolled), Act.APPROVE, DOCUMENT, proof, relying_party=RP)


def test_passkey_assertion_counts() -> None:
    """A verified assertion over the statement names its person, and its counter is kept."""
    soft = SoftPasskey(b"k")
    found = verify_proof(
        roster_of(soft),
        Act.APPROVE,
        DOCUMENT,
        soft.sign(Act.APPROVE, DOCUMENT),
        relying_party=RP,
    )
    assert found.sign_count == 1


@pytest.mark.parametrize(
    "attack",
    [
        {"origin": "http://localhost:9999"},
        {"origin": "https://evil.example"},
        {"rp_id": "evil.example"},
        {"client": {"type": "webauthn.create"}},
        {"client": {"challenge": "AAAA"}},
        {"client": {"crossOrigin": True}},
        {"client": {"topOrigin": "https://evil.example"}},
    ],
)
def test_passkey_ceremony_elsewhere_is_refused(attack: dict[str, object]) -> None:
    """Another site, another relying party, another ceremony or a foreign frame does not count."""
    soft = SoftPasskey(b"k")
    proof = soft.sign(Act.APPROVE, DOCUMENT, **attack)
    with pytest.raises(SignatureError):
        verify_proof(roster_of(soft), Act.APPROVE, DOCUMENT, proof, relying_party=RP)


@pytest.mark.parametrize("flags", [0x00, 0x01, 0x04])
def test_passkey_without_user_verification_is_refused(flags: int) -> None:
    """User verification is required, not preferred."""
    soft = SoftPasskey(b"k", flags=flags)
    proof = soft.sign(Act.APPROVE, DOCUMENT)
    with pytest.raises(SignatureError):
        verify_proof(roster_of(soft), Act.APPROVE, DOCUMENT, proof, relying_party=RP)


def test_passkey_without_a_counter_counts() -> None:
    """Synchronised passkeys always say zero; that is no copy."""
    soft = SoftPasskey(b"k", counts=False)
    for _ in range(2):
        proof = soft.sign(Act.APPROVE, DOCUMENT)
        verify_proof(roster_of(soft), Act.APPROVE, DOCUMENT, proof, relying_party=RP)


def test_passkey_that_stops_counting_is_refused() -> None:
    """A counter that was seen above zero can't go back to zero."""
    soft = SoftPasskey(b"k", counts=False)
    proof = soft.sign(Act.APPROVE, DOCUMENT)
    with pytest.raises(SignatureError):
        verify_proof(
            roster_of(soft), Act.APPROVE, DOCUMENT, proof, relying_party=RP, counter_floor=5
        )


def test_proof_of_another_kind_than_the_key_is_refused() -> None:
    """An SSH signature under a passkey's id, and the reverse, is refused."""
    ssh, passkey = SoftSsh(b"s"), SoftPasskey(b"p")
    ssh_proof, passkey_proof = ssh.sign(Act.APPROVE, 1), passkey.sign(Act.APPROVE, 1)
    assert isinstance(ssh_proof, SshProof)
    assert isinstance(passkey_proof, PasskeyProof)
    crossed = (
        SshProof(passkey.key.key_id, ssh_proof.signature),
        PasskeyProof(
            ssh.key.key_id,
            passkey_proof.credential_id,
            passkey_proof.authenticator_data,
            passkey_proof.client_data_json,
            passkey_proof.signature,
        ),
    )
    for proof in crossed:
        with pytest.raises(SignatureError):
            verify_proof(roster_of(ssh, passkey), Act.APPROVE, 1, proof, relying_party=RP)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=120), st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80)
)
def test_hostile_proofs_give_one_kind_of_error(a: bytes, b: bytes, c: bytes, d: bytes) -> None:
    """Arbitrary bytes in a proof are refused as a signature, never in another way."""
    import base64  # noqa: PLC0415 - only here

    ssh, passkey = SoftSsh(b"s"), SoftPasskey(b"p")
    roster = roster_of(ssh, passkey)

    def url(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    for proof in (
        SshProof(ssh.key.key_id, base64.b64encode(b"SSHSIG\x00\x00\x00\x01" + a).decode()),
        SshProof(ssh.key.key_id, a.decode("latin-1")),
        PasskeyProof(passkey.key.key_id, passkey.credential_id, url(b), url(c), url(d)),
        PasskeyProof(passkey.key.key_id, passkey.credential_id, a.decode("latin-1"), url(c), ""),
    ):
        with pytest.raises(SignatureError):
            verify_proof(roster, Act.APPROVE, DOCUMENT, proof, relying_party=RP)


def test_acts_and_documents_have_distinct_statements() -> None:
    """No act's statement is another's, and the document ends where it ends."""
    assert len({statement(act, DOCUMENT) for act in Act}) == len(Act)
    assert statement(Act.APPROVE, DOCUMENT) == b'safehold-approve/1\0{"a":1}'


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-rsa AAAA",
        "ssh-ed25519 !!!!",
        "ssh-ed25519 AAAA",
        "sk-ssh-ed25519@openssh.com " + ssh_public_of(SoftSsh(b"x")).split()[1],
        "ssh-ed25519 " + ssh_public_of(SoftSshSk(b"x")).split()[1],
    ],
)
def test_foreign_public_keys_are_refused(line: str) -> None:
    """Only Ed25519 keys whose line and content agree can be enrolled."""
    with pytest.raises(PeopleError):
        parse_public_key(line)


@pytest.mark.parametrize("text", ["AA==", "A", "+/", "AB\n", "AAB"])
def test_base64url_has_one_spelling(text: str) -> None:
    """Padding, other alphabets and stray bits are refused."""
    with pytest.raises(SignatureError):
        unb64url(text)


def person(number: int, *, key: SoftSsh | None = None) -> Person:
    """Return a numbered person."""
    soft = SoftSsh(bytes([number])) if key is None else key
    return Person(f"p-{number:016x}", f"n{number}", Kind.HUMAN, (), (), (soft.key,))


def test_ids_and_keys_are_never_used_again() -> None:
    """After removal neither the id nor the key comes back, for nobody."""
    roster = EMPTY_ROSTER.enrol(person(1)).enrol(person(2)).remove("p-" + f"{1:016x}")
    with pytest.raises(PeopleError, match="used before"):
        roster.enrol(person(1, key=SoftSsh(b"new")))
    with pytest.raises(PeopleError, match="enrolled before"):
        roster.enrol(person(3, key=SoftSsh(bytes([1]))))
    with pytest.raises(PeopleError, match="enrolled before"):
        roster.add_key(person(2).id, SoftSsh(bytes([1])).key)


def test_roster_refuses_what_is_not_there() -> None:
    """Unknown persons, teams and keys, and a person without keys, are errors."""
    roster = EMPTY_ROSTER.enrol(person(1))
    last = person(1).keys[0].key_id
    for attempt in (
        lambda: roster.remove("p-" + "f" * 16),
        lambda: roster.remove_key(person(1).id, "SHA256:x"),
        lambda: roster.remove_key(person(1).id, last),
        lambda: roster.assign(person(1).id, (), ("t-none",)),
        lambda: roster.add_team(Team("t-a", "A", ("t-none",))),
        lambda: roster.add_team(Team("t-a", "A")).add_team(Team("t-a", "B")),
        lambda: roster.enrol(Person("p-" + "5" * 16, "n", Kind.HUMAN, (), (), ())),
    ):
        with pytest.raises(PeopleError):
            attempt()


def test_one_person_can_not_enrol_another_alone(enclave: Enclave) -> None:
    """Enrolment of a key takes effect only with somebody else's approval."""
    spare = SoftSsh(b"spare")
    asked = enclave.ask("dev-one", "people.add-key", details=enclave.adding("dev-one", spare))
    enclave.file(asked)
    assert enclave.desk.state.roster.owner(spare.key.key_id) is None
    enclave.approve(asked, "dev-two")
    assert enclave.desk.state.roster.owner(spare.key.key_id) is None
    enclave.approve(asked, "sec-one")
    assert enclave.desk.state.roster.owner(spare.key.key_id) is not None
