"""A new key signs its own enrolment: nobody enrols a key that somebody else holds.

What it signs is the change itself (the identity and its keys, or the person and the key), for one
enclave and one operation, under an act of its own. So it is worth nothing in another enclave, for
another person or under another name, and no signature of another kind stands for it.
"""

from typing import TypeVar

import msgspec

from safehold.trust.grants.details import AddKey, EnrolPerson
from safehold.trust.people.interface import Key, Proof, RelyingParty, SignatureError
from safehold.trust.people.proofs import verify_by
from safehold.trust.people.statement import Act

Enrolling = EnrolPerson | AddKey
Change = TypeVar("Change", EnrolPerson, AddKey)
OPERATIONS: dict[type[Enrolling], str] = {
    EnrolPerson: "people.enrol",
    AddKey: "people.add-key",
}


class Holding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a new key signs: the change that brings it in, without signatures."""

    enclave: str
    """SHA-256 of the enclave's founding."""
    operation: str
    change: Enrolling


def holding_of(enclave: str, change: Enrolling) -> Holding:
    """Return the document that every new key of a change signs."""
    bare = msgspec.structs.replace(change, held=())
    return Holding(enclave=enclave, operation=OPERATIONS[type(change)], change=bare)


def new_keys(change: Enrolling) -> tuple[Key, ...]:
    """Return the keys that a change brings in."""
    return change.person.keys if isinstance(change, EnrolPerson) else (change.key,)


def check_held(
    enclave: str, details: object, relying_party: RelyingParty
) -> tuple[tuple[Key, int], ...]:
    """Return each new key of a change and its authenticator's counter; other details have none.

    Args:
        enclave: SHA-256 of the founding.
        details: Of the request.
        relying_party: Where passkeys of this enclave are used.

    Raises:
        SignatureError: a new key has not signed exactly this change, for this enclave; or there
            is a signature too many.
    """
    if not isinstance(details, EnrolPerson | AddKey):
        return ()
    keys, proofs = new_keys(details), details.held
    if len(keys) != len(proofs):
        raise SignatureError(
            f"expected each of {len(keys)} new key(s) to sign its own enrolment, got {len(proofs)} "
            "signature(s): the key's holder makes an offer (`safehold people offer`)"
        )
    document = holding_of(enclave, details)
    return tuple(
        (key, _check(key, document, proof, relying_party))
        for key, proof in zip(keys, proofs, strict=True)
    )


def _check(key: Key, document: Holding, proof: Proof, relying_party: RelyingParty) -> int:
    if proof.key_id != key.key_id:
        raise SignatureError(
            f"expected the new key {key.key_id} to sign its own enrolment, got {proof.key_id}"
        )
    try:
        return verify_by(key, Act.HOLD, document, proof, relying_party=relying_party)
    except SignatureError as error:
        raise SignatureError(
            f"the new key {key.key_id} has not signed this enrolment: {error}"
        ) from error
