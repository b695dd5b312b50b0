"""One insider who would act as two: each attack, and the honest act beside it."""

from pathlib import Path

import cbor2
import msgspec
import pytest

from safehold.canonical import canonical
from safehold.testing.trust import CAST, Enclave, SoftPasskey, SoftSsh, SoftSshSk, person_id
from safehold.trust.grants.approval_text import founding_words, in_words
from safehold.trust.grants.details import AddKey, EnrolPerson, Facts, RemoveKey
from safehold.trust.grants.events import Approved
from safehold.trust.grants.interface import Granted, GrantError, GrantRequest, Reason, Refused
from safehold.trust.log.dsse import sign_envelope
from safehold.trust.log.log_entries import Leaf, statement_of
from safehold.trust.people.interface import (
    Kind,
    Passkey,
    PasskeyProof,
    PeopleError,
    Person,
    SshKey,
)
from safehold.trust.people.passkey import b64url, unb64url
from safehold.trust.people.sshsig import ssh_key_of
from safehold.trust.people.statement import Act
from safehold.trust.text import Name, is_hidden


@pytest.fixture
def enclave(tmp_path: Path) -> Enclave:
    """Return a founded enclave."""
    return Enclave(tmp_path / "log")


def _newcomer(*keys: SshKey | Passkey, name: str = "Dora") -> Person:
    return Person("p-" + "d0" * 8, name, Kind.HUMAN, (), ("t-development",), keys)


def test_a_key_id_that_a_document_claims_is_refused() -> None:
    """A document can't bring a key's id at all, so none is believed (go-tuf 369)."""
    key = SoftSsh(b"mallory").key
    honest = msgspec.to_builtins(key)
    assert msgspec.convert(honest, SshKey | Passkey) == key
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**honest, "key_id": SoftSsh(b"dora").key.key_id}, SshKey | Passkey)


def test_an_approver_reads_every_team_and_role_of_a_newcomer(enclave: Enclave) -> None:
    """What a person is to be allowed stands there in words, and `none` where it is nothing."""
    plain = _newcomer(SoftSsh(b"dora").key)
    for person, teams, roles in (
        (plain, "t-development", "none"),
        (msgspec.structs.replace(plain, roles=("r-a", "r-b"), teams=()), "none", "r-a, r-b"),
    ):
        asked = msgspec.structs.replace(enclave.ask(), details=EnrolPerson(person, held=()))
        words = in_words(asked, enclave.desk.state.roster)
        assert ("Teams", teams) in words
        assert ("Roles", roles) in words


def test_an_approver_reads_who_asks_by_name_and_that_a_stranger_is_none(enclave: Enclave) -> None:
    """The roster's name stands with the id; an id without a person is said to be nobody's."""
    asked, roster = enclave.ask(), enclave.desk.state.roster
    person = roster.person(asked.requester)
    assert person is not None
    assert ("Asked by", f"{person.name} ({person.id})") in in_words(asked, roster)
    stranger = msgspec.structs.replace(asked, requester="p-" + "00" * 8)
    assert ("Asked by", f"{stranger.requester} (not enrolled)") in in_words(stranger, roster)


@pytest.mark.parametrize("claim", ["sign_count", "aaguid"])
def test_a_counter_or_model_that_a_requester_sets_is_refused(claim: str) -> None:
    """Who asks for an enrolment sets neither the counter nor the model of the authenticator."""
    honest = msgspec.to_builtins(SoftPasskey(b"one").key)
    assert msgspec.convert(honest, Passkey)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**honest, claim: 9}, Passkey)


def _sk_form_of(key: SoftSsh) -> SshKey:
    """Return the security-key form of the same Ed25519 point."""
    import base64  # noqa: PLC0415 - only here

    assert isinstance(key.key, SshKey)
    raw = base64.b64decode(key.key.public.split()[1])[-32:]
    kind = b"sk-ssh-ed25519@openssh.com"
    blob = b"".join(len(one).to_bytes(4, "big") + one for one in (kind, raw, b"ssh:"))
    return SshKey(public=f"{kind.decode()} {base64.b64encode(blob).decode()}")


def test_one_key_in_another_wrapping_is_no_second_person(enclave: Enclave) -> None:
    """The same Ed25519 point as a security key has another id, and is refused (go-tuf 733)."""
    ada = enclave.keys["dev-one"]
    assert isinstance(ada, SoftSsh)
    doubled = _sk_form_of(ada)
    assert doubled.key_id != ada.key.key_id
    with pytest.raises(PeopleError, match="enrolled before"):
        enclave.desk.state.roster.enrol(_newcomer(doubled))
    assert enclave.desk.state.roster.enrol(_newcomer(_sk_form_of(SoftSsh(b"dora"))))


def test_a_passkey_in_another_order_of_cbor_is_no_second_person(enclave: Enclave) -> None:
    """One curve point in another order of its members is one key; another point is another."""
    key = SoftPasskey(b"ada").key
    assert isinstance(key, Passkey)
    cose = cbor2.loads(unb64url(key.public_key))
    turned = Passkey("AAAA", b64url(cbor2.dumps(dict(reversed(cose.items())))))
    assert turned.key_id != key.key_id
    roster = enclave.desk.state.roster.add_key(person_id("dev-one"), key)
    with pytest.raises(PeopleError, match="enrolled before"):
        roster.enrol(_newcomer(turned))
    assert roster.enrol(_newcomer(SoftPasskey(b"dora").key))


def test_a_stolen_key_does_not_come_back_in_another_wrapping(enclave: Enclave) -> None:
    """What was taken away stays away by its material, not by its id."""
    spare = SoftSsh(b"spare")
    roster = enclave.desk.state.roster.add_key(person_id("dev-one"), spare.key)
    roster = roster.remove_key(person_id("dev-one"), spare.key.key_id)
    with pytest.raises(PeopleError, match="enrolled before"):
        roster.add_key(person_id("dev-two"), _sk_form_of(spare))
    assert roster.add_key(person_id("dev-two"), SoftSshSk(b"fresh").key)


@pytest.mark.parametrize("point", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18])
def test_a_point_that_verifies_for_anybody_is_no_key(enclave: Enclave, point: int) -> None:
    """Points of small order and second spellings of a point are refused as keys."""
    weak = ssh_key_of(point.to_bytes(32, "little"))
    with pytest.raises(PeopleError, match="well-formed"):
        enclave.desk.state.roster.enrol(_newcomer(weak))


@pytest.mark.parametrize(
    "name", ["dev-one", "Dev One", "dev\u2010one", "d\u0435v-one", "d\u00e9v one", "dev-0ne"]
)
def test_a_name_that_is_drawn_like_another_is_refused(enclave: Enclave, name: str) -> None:
    """A second person whose name looks like an enrolled one is not enrolled."""
    key = SoftSsh(b"new").key
    with pytest.raises(PeopleError, match="can take for"):
        enclave.desk.state.roster.enrol(_newcomer(key, name=name))
    assert enclave.desk.state.roster.enrol(_newcomer(key, name="dev-seven"))


@pytest.mark.parametrize(
    "name",
    [
        "dev-\u1d0fne",  # Latin small capital
        "\u0111ev-one",  # d with a stroke
        "dev-\u0966ne",  # a digit of another script
        "\ua4d3\ua4f0\ua4e6",  # Lisu, drawn as Latin capitals
        "\u13a0\u13ac\u13d9",  # Cherokee, too
        "a\u0501a",  # Latin and Cyrillic in one word
        "\u05d5ris",  # Hebrew and Latin in one word
    ],
    ids=ascii,
)
def test_a_name_in_borrowed_letters_is_refused(enclave: Enclave, name: str) -> None:
    """Strokes, small capitals, scripts out of use, and words of two alphabets are no new name."""
    roster = enclave.desk.state.roster
    with pytest.raises(PeopleError, match=r"can take for|one alphabet"):
        roster.enrol(_newcomer(SoftSsh(b"new").key, name=name))


@pytest.mark.parametrize(
    "name",
    [
        "Anna \u041a\u043e\u0432\u0430\u043b\u0451\u0432\u0430",
        "\u0141ukasz O'Brien, Jr.",
        "\u5c71\u7530 \u30bf\u30ed\u30fc",
        "\u5c0f\u5ddd\u3055\u304f\u3089",
        "\uae40\ubbfc\uc9c0",
        "\u0645\u0631\u064a\u0645",
        "\u0928\u0947\u0939\u093e",
    ],
    ids=ascii,
)
def test_names_as_people_write_them_are_taken(enclave: Enclave, name: str) -> None:
    """A name in each alphabet, with a word in another one beside it."""
    person = _newcomer(SoftSsh(b"new").key, name=name)
    assert enclave.desk.state.roster.enrol(person)
    assert msgspec.convert(name, Name) == name


@pytest.mark.parametrize(
    "name", ["ada (p-0123456789abcdef)", "p-0123456789abcdef", "dev (t-security)"]
)
def test_a_name_does_not_hold_what_looks_like_an_id(name: str) -> None:
    """The id stands in brackets behind a name, so a name has none in it."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(name, Name)


@pytest.mark.parametrize(("member", "other"), [(1, 2.0), (-1, True), (-1, 1.0)])
def test_a_passkey_whose_numbers_are_spelt_otherwise_is_no_key(member: int, other: object) -> None:
    """A key type 2.0 or curve `true` is equal to ours for Python, and would be a second id."""
    soft = SoftPasskey(b"ada")
    assert isinstance(soft.key, Passkey)
    numbers = cbor2.loads(unb64url(soft.key.public_key))
    public = b64url(cbor2.dumps({**numbers, member: other}))
    with pytest.raises(ValueError, match="COSE key"):
        _ = msgspec.structs.replace(soft.key, public_key=public).material
    assert soft.key.material


HIDDEN = ["\x1b", "\n", "\x9b", "\u202e", "\u200b", "\u061c", "\u3164", "\U000e0041", "\u2066"]


@pytest.mark.parametrize("sign", HIDDEN)
def test_no_field_of_any_request_takes_a_hidden_character(enclave: Enclave, sign: str) -> None:
    """Every text of a request, nested ones too, refuses a hidden character at either end."""
    person = _newcomer(SoftSsh(b"dora").key)
    for details in (Facts({"size": "one"}), EnrolPerson(person), RemoveKey(person.id, "SHA256:x")):
        asked = enclave.ask(details=details)
        honest = msgspec.to_builtins(asked)
        for path in _texts(honest):
            for spoilt in (f"{sign}x", f"x{sign}"):
                tree = msgspec.json.decode(msgspec.json.encode(honest))
                _set(tree, path, _get(tree, path) + spoilt)
                with pytest.raises(msgspec.ValidationError):
                    msgspec.convert(tree, GrantRequest)
    assert msgspec.convert(msgspec.to_builtins(enclave.ask()), GrantRequest)
    assert is_hidden(sign)


def _texts(tree: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(tree, str):
        return [path]
    steps = tree.items() if isinstance(tree, dict) else ()
    if isinstance(tree, list | tuple):
        steps = enumerate(tree)  # type: ignore[assignment]
    return [one for step, value in steps for one in _texts(value, (*path, step))]


def _get(tree: object, path: tuple[str | int, ...]) -> str:
    for step in path:
        tree = tree[step]  # type: ignore[index]
    assert isinstance(tree, str)
    return tree


def _set(tree: object, path: tuple[str | int, ...], value: str) -> None:
    for step in path[:-1]:
        tree = tree[step]  # type: ignore[index]
    tree[path[-1]] = value  # type: ignore[index]


def test_a_founder_reads_every_key_before_signing(enclave: Enclave) -> None:
    """A second key slipped into a founding draft is in the words that its founders read."""
    people = enclave.founding.roster.persons
    slipped = SoftSsh(b"slipped").key
    first = msgspec.structs.replace(people[0], keys=(*people[0].keys, slipped))
    roster = msgspec.structs.replace(enclave.founding.roster, persons=(first, *people[1:]))
    draft = msgspec.structs.replace(enclave.founding, roster=roster)
    assert not any(slipped.key_id in text for _, text in founding_words(enclave.founding))
    assert any(slipped.key_id in text for _, text in founding_words(draft))


def test_an_approver_reads_the_new_key_itself(enclave: Enclave) -> None:
    """The words of an added key hold the key and its computed fingerprint."""
    key = SoftSsh(b"new").key
    assert isinstance(key, SshKey)
    asked = enclave.ask(operation="people.add-key", details=AddKey(person_id("dev-two"), key))
    words = " ".join(text for _, text in in_words(asked, enclave.desk.state.roster))
    assert key.key_id in words
    assert key.public in words


def test_a_service_and_the_human_who_holds_its_key_are_not_two(enclave: Enclave) -> None:
    """A service's request needs one human more than the rule has (teleport 13416)."""
    asked = enclave.ask("keyd")
    enclave.file(asked)
    first = enclave.approve(asked, "dev-one", "dev-two", "sec-one")
    assert isinstance(first, Refused)
    assert first.reason is Reason.QUORUM
    granted = enclave.approve(asked, "dev-three")
    assert isinstance(granted, Granted)
    assert len(granted.approvers) == 4


def test_a_request_of_another_enclave_is_refused(enclave: Enclave, tmp_path: Path) -> None:
    """What was signed for the rehearsal's enclave is worth nothing in production (Simplex 554)."""
    other = Enclave(tmp_path / "other", cast={**CAST, "extra": (Kind.HUMAN, ("t-security",))})
    asked = other.ask()
    with pytest.raises(GrantError, match="for the enclave"):
        enclave.file(asked)
    enclave.file(enclave.ask())


def test_a_vote_that_no_longer_counts_keeps_nobody_from_voting(enclave: Enclave) -> None:
    """Who approved with a key that was removed since approves with the good one, once."""
    second = SoftSsh(b"second")
    who = person_id("dev-two")
    enclave.carry("people.add-key", enclave.adding("dev-two", second))
    asked = enclave.ask()
    enclave.file(asked)
    enclave.desk.approve(asked.sha256, second.sign(Act.APPROVE, asked))
    with pytest.raises(GrantError, match="approved already"):
        enclave.approve(asked, "dev-two")
    enclave.carry("people.remove-key", RemoveKey(who, second.key.key_id))
    enclave.approve(asked, "dev-two")
    assert isinstance(enclave.approve(asked, "dev-three", "sec-one"), Granted)


@pytest.mark.parametrize("client", ['{"crossOrigin":[]}', '{"crossOrigin":{}}', "[" * 6_000])
def test_a_poisoned_proof_is_void_and_stops_no_reader(enclave: Enclave, client: str) -> None:
    """A holder of the log's keys appends a proof that breaks its reader: it is listed as void."""
    passkey = SoftPasskey(b"pk")
    assert isinstance(passkey.key, Passkey)
    enclave.carry("people.add-key", enclave.adding("dev-two", passkey))
    asked = enclave.ask()
    enclave.file(asked)
    honest = passkey.sign(Act.APPROVE, asked)
    assert isinstance(honest, PasskeyProof)
    poisoned = msgspec.structs.replace(honest, client_data_json=b64url(client.encode()))
    _append(enclave, Approved(enclave.time, asked.sha256, poisoned))
    state = enclave.open_desk().state
    assert len(state.voids) == 1
    assert state.case(asked.sha256).approvers == []


def test_an_entry_that_is_no_leaf_is_void_and_stops_no_desk(enclave: Enclave) -> None:
    """Bytes that are no leaf at all are listed as void, and the next act is recorded."""
    enclave.desk.store.append([b"no leaf"])
    enclave.desk.store.publish()
    asked = enclave.ask()
    enclave.file(asked)
    state = enclave.open_desk().state
    assert len(state.voids) == 1
    assert asked.sha256 in state.cases


def _append(enclave: Enclave, leaf: Leaf) -> None:
    enclave.desk.store.append([sign_envelope(statement_of(leaf), enclave.emitter)])
    enclave.desk.store.publish()


def test_a_leaf_that_no_reader_would_type_is_not_written(enclave: Enclave) -> None:
    """The desk checks each member as its readers will, before it appends."""
    asked = enclave.ask(purpose="two\nlines")
    before = enclave.desk.store.size
    with pytest.raises(Exception, match="purpose"):
        enclave.file(asked)
    assert enclave.desk.store.size == before
    assert canonical(enclave.ask())
