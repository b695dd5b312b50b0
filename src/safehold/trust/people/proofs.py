"""One function that says whose signature a proof is: the only way a signature counts."""

from typing import assert_never

from cryptography.exceptions import UnsupportedAlgorithm

from safehold.trust.people.interface import (
    Key,
    Passkey,
    PasskeyProof,
    Proof,
    RelyingParty,
    Roster,
    SignatureError,
    SshKey,
    SshProof,
    Verified,
)
from safehold.trust.people.passkey import verify_assertion
from safehold.trust.people.sshsig import verify_sshsig
from safehold.trust.people.statement import NAMESPACE, Act, challenge, ssh_message

_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    UnsupportedAlgorithm,
    ValueError,
)
"""What code that reads bytes of a stranger may end in, by itself or in a library below it."""


def verify_proof(
    roster: Roster,
    act: Act,
    document: object,
    proof: Proof,
    *,
    relying_party: RelyingParty,
    counter_floor: int = 0,
) -> Verified:
    """Return whose act this is, by which key.

    Whatever a proof does to the code that reads it, it is that proof's failure: a leaf with a
    poisoned proof is void and stops no reader.

    Raises:
        SignatureError: no enrolled person holds the key, or the signature is not by that key over
            exactly this act and document, or the authenticator's counter did not rise.
    """
    try:
        return _verify(
            roster,
            act,
            document,
            proof,
            relying_party=relying_party,
            counter_floor=counter_floor,
        )
    except _UNREADABLE as error:
        raise SignatureError("expected a proof that can be read, got another form") from error


def verify_by(
    key: Key,
    act: Act,
    document: object,
    proof: Proof,
    *,
    relying_party: RelyingParty,
    counter_floor: int = 0,
) -> int:
    """Return the authenticator's counter of a proof by exactly this key, enrolled or not.

    Raises:
        SignatureError: as for `verify_proof`.
    """
    try:
        return _count(
            key, act, document, proof, relying_party=relying_party, counter_floor=counter_floor
        )
    except _UNREADABLE as error:
        raise SignatureError("expected a proof that can be read, got another form") from error


def _verify(
    roster: Roster,
    act: Act,
    document: object,
    proof: Proof,
    *,
    relying_party: RelyingParty,
    counter_floor: int,
) -> Verified:
    # 1. The key is enrolled now, and by one person.
    owned = roster.owner(proof.key_id)
    if owned is None:
        raise SignatureError("expected the key of an enrolled person, got an unknown one")
    person, key = owned
    count = _count(
        key, act, document, proof, relying_party=relying_party, counter_floor=counter_floor
    )
    return Verified(person=person, key=key, sign_count=count)


def _count(
    key: Key,
    act: Act,
    document: object,
    proof: Proof,
    *,
    relying_party: RelyingParty,
    counter_floor: int,
) -> int:
    # 2. The signature is of the key's kind and over this act and document.
    match proof:
        case SshProof():
            if not isinstance(key, SshKey):
                raise SignatureError("expected a passkey assertion for this key, got SSH")
            count = verify_sshsig(
                key, ssh_message(act, document), proof.signature, namespace=NAMESPACE
            )
            # 3. A security key's counter only rises (two zeros: it keeps none).
            if max(count, counter_floor) > 0 and count <= counter_floor:
                raise SignatureError("expected the key's counter to rise: it may be a copy")
        case PasskeyProof():
            if not isinstance(key, Passkey):
                raise SignatureError("expected an SSH signature for this key, got a passkey's")
            count = verify_assertion(
                key,
                proof,
                challenge=challenge(act, document),
                relying_party=relying_party,
                counter_floor=counter_floor,
            )
        case _:
            assert_never(proof)
    return count
