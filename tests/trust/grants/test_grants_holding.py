"""A new key signs its own enrolment: nobody enrols a key that somebody else holds."""

from collections.abc import Callable

import msgspec
import pytest

from safehold.errors import TrustError
from safehold.testing.trust import (
    CAST,
    Enclave,
    SoftPasskey,
    SoftSsh,
    SoftSshSk,
    held,
    person_id,
)
from safehold.trust.grants.approval_text import in_words
from safehold.trust.grants.details import AddKey, EnrolPerson
from safehold.trust.grants.events import Founded, Requested
from safehold.trust.grants.holding import Enrolling, holding_of
from safehold.trust.grants.interface import GrantError, SignedRequest
from safehold.trust.grants.leaf_reader import take_leaf
from safehold.trust.grants.state import TrustState
from safehold.trust.people.interface import Kind, Passkey, Person, Proof, SignatureError
from safehold.trust.people.statement import Act

Soft = SoftSsh | SoftSshSk | SoftPasskey
KINDS = (SoftSsh, SoftSshSk, SoftPasskey)
NEW = "p-" + "7" * 16


def newcomer(key: Soft, who: str = NEW, name: str = "Dora", kind: Kind = Kind.HUMAN) -> EnrolPerson:
    """Return the enrolment of a person with a key, signed by nobody yet."""
    return EnrolPerson(Person(who, name, kind, (), ("t-security",), (key.key,)))


def changes(key: Soft) -> tuple[Enrolling, ...]:
    """Return each kind of change that brings in a key."""
    return (
        newcomer(key),
        newcomer(key, kind=Kind.SERVICE),
        AddKey(person_id("dev-two"), key.key),
    )


def operation(change: Enrolling) -> str:
    """Return the operation of a change."""
    return "people.enrol" if isinstance(change, EnrolPerson) else "people.add-key"


def refused_everywhere(enclave: Enclave, change: Enrolling, match: str) -> None:
    """The desk refuses to record it, and a leaf that is there all the same is void."""
    asked = enclave.ask(operation=operation(change), details=change)
    with pytest.raises(SignatureError, match=match):
        enclave.file(asked)
    proof = enclave.keys["dev-one"].sign(Act.REQUEST, asked)
    state: TrustState = enclave.open_desk().state
    take_leaf(state, 99, Requested(enclave.time, SignedRequest(asked, proof)))
    assert asked.sha256 not in state.cases
    assert state.voids[-1].index == 99


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_its_holder_did_not_sign_for_is_not_enrolled(
    enclave: Enclave, kind: Callable[[bytes], Soft]
) -> None:
    """Somebody else's public key, as one's own or as a second person's, is refused."""
    theirs, mine = kind(b"theirs"), SoftSsh(b"mine")
    for change in changes(theirs):
        document = holding_of(enclave.founding_sha256(), change)
        forged = theirs.sign(Act.HOLD, document)
        mine_signed = msgspec.structs.replace(change, held=(mine.sign(Act.HOLD, document),))
        renamed = msgspec.structs.replace(mine_signed.held[0], key_id=theirs.key.key_id)
        refused_everywhere(enclave, change, "sign its own enrolment")
        refused_everywhere(enclave, mine_signed, "sign its own enrolment")
        renamed_change = msgspec.structs.replace(change, held=(renamed,))
        refused_everywhere(enclave, renamed_change, "has not signed")
        twice = msgspec.structs.replace(change, held=(forged, forged))
        refused_everywhere(enclave, twice, "sign its own enrolment")


@pytest.mark.parametrize("kind", KINDS)
def test_the_holder_of_a_new_key_has_it_enrolled(
    enclave: Enclave, kind: Callable[[bytes], Soft]
) -> None:
    """The near miss: the same changes, signed by the new key itself, take effect."""
    for number, make in enumerate((0, 1, 2)):
        key = kind(b"new %d" % number)
        change = held(enclave.founding_sha256(), changes(key)[make], key)
        if isinstance(change, EnrolPerson):
            person = msgspec.structs.replace(
                change.person, id=f"p-{number:016x}", name=f"N{number}x"
            )
            change = enclave.enrolling(person, key)
        enclave.carry(operation(change), change)
        assert enclave.desk.state.roster.owner(key.key.key_id) is not None


def _elsewhere(enclave: Enclave, change: Enrolling, key: Soft) -> dict[str, Proof]:
    """Return what the new key's holder has signed, for something else each time."""
    here = enclave.founding_sha256()
    document = holding_of(here, change)
    if isinstance(change, EnrolPerson):
        others: dict[str, Enrolling] = {
            "person": newcomer(key, "p-" + "6" * 16),
            "name": newcomer(key, name="Eve"),
            "kind": newcomer(key, kind=Kind.SERVICE),
            "change": AddKey(NEW, key.key),
        }
    else:
        others = {"person": AddKey(person_id("dev-one"), key.key), "change": newcomer(key)}
    made = {name: key.sign(Act.HOLD, holding_of(here, one)) for name, one in others.items()}
    made["enclave"] = key.sign(Act.HOLD, holding_of("0" * 64, change))
    moved = msgspec.structs.replace(document, operation="people.assign")
    made["operation"] = key.sign(Act.HOLD, moved)
    made |= {act.value: key.sign(act, document) for act in Act if act is not Act.HOLD}
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", [0, 2])
def test_what_a_new_key_signed_for_elsewhere_enrols_it_nowhere(
    enclave: Enclave, kind: Callable[[bytes], Soft], which: int
) -> None:
    """Another enclave, person, name, change, operation or act: each is in what is signed."""
    key = kind(b"dora")
    change = changes(key)[which]
    for proof in _elsewhere(enclave, change, key).values():
        taken = msgspec.structs.replace(change, held=(proof,))
        refused_everywhere(enclave, taken, "has not signed")


def test_a_security_key_that_enrolled_itself_counts_on(enclave: Enclave) -> None:
    """The counter of the enrolment is the floor of what follows: a copy made before is refused."""
    key, copy = SoftSshSk(b"sk"), SoftSshSk(b"sk")
    enclave.carry("people.add-key", enclave.adding("dev-two", key))
    asked = enclave.ask()
    enclave.file(asked)
    with pytest.raises(SignatureError, match="counter"):
        enclave.desk.approve(asked.sha256, copy.sign(Act.APPROVE, asked))
    enclave.desk.approve(asked.sha256, key.sign(Act.APPROVE, asked))


def test_every_key_of_a_founding_signs_it(enclave: Enclave) -> None:
    """A founder's second key and a service's key sign the founding too, or nothing is founded."""
    spare = SoftSsh(b"spare")
    people = list(enclave.founding.roster.persons)
    people[0] = msgspec.structs.replace(people[0], keys=(*people[0].keys, spare.key))
    roster = msgspec.structs.replace(enclave.founding.roster, persons=tuple(people))
    drafted = msgspec.structs.replace(enclave.founding, roster=roster)
    proofs = [enclave.keys[name].sign(Act.FOUND, drafted) for name in CAST]
    own = spare.sign(Act.FOUND, drafted)

    service = [one for one in (*proofs, own) if one != proofs[-1]]
    for some, who in ((proofs, "lacking: dev-one"), (service, "lacking: keyd")):
        state = TrustState("enclave.test/log")
        with pytest.raises(GrantError, match=who):
            state.plan(Founded(enclave.time, drafted, tuple(some)))
    state = TrustState("enclave.test/log")
    assert state.apply(0, Founded(enclave.time, drafted, (*proofs, own)))


def test_approvers_read_that_the_new_key_signed(enclave: Enclave) -> None:
    """The words of an enrolment name each signature under it."""
    key = SoftSsh(b"dora")
    change = enclave.enrolling(newcomer(key).person, key)
    asked = enclave.ask(operation="people.enrol", details=change)
    words = dict(in_words(asked, enclave.desk.state.roster))
    assert key.key.key_id in words["Signed by the new key"]


def test_a_passkey_under_another_ones_credential_id_is_refused(enclave: Enclave) -> None:
    """No authenticator signs its credential id: who claims somebody else's would lock them out."""
    theirs, mine = SoftPasskey(b"theirs"), SoftPasskey(b"mine")
    enclave.carry("people.add-key", enclave.adding("sec-two", theirs))
    assert isinstance(mine.key, Passkey)
    honest = mine.key
    mine.credential_id = theirs.credential_id
    mine.key = msgspec.structs.replace(mine.key, credential_id=theirs.credential_id)
    with pytest.raises(TrustError, match="credential id of its own"):
        enclave.carry("people.add-key", enclave.adding("dev-one", mine))
    mine.key, mine.credential_id = honest, honest.credential_id
    enclave.carry("people.add-key", enclave.adding("dev-one", mine))
