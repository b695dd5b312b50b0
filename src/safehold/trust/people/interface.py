"""Persons, their keys and the roster: immutable values that say who may sign what."""

import base64
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import msgspec

from safehold.errors import TrustError
from safehold.trust.people.material import cose_material, ssh_blob, ssh_material, thumbprint
from safehold.trust.text import Name, drawn, odd_word, shown

PersonId = Annotated[str, msgspec.Meta(pattern=r"^p-[0-9a-f]{16}\Z")]
TeamId = Annotated[str, msgspec.Meta(pattern=r"^t-[0-9a-z-]{1,40}\Z")]
Label = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,39}\Z")]
KeyId = Annotated[str, msgspec.Meta(pattern=r"^SHA256:[A-Za-z0-9+/]{43}\Z")]
"""A key's id, as it names a key that the roster has: never what says which key it is."""
Base64 = Annotated[str, msgspec.Meta(max_length=8192, pattern=r"^[A-Za-z0-9+/]+={0,2}\Z")]
Base64Url = Annotated[str, msgspec.Meta(max_length=8192, pattern=r"^[A-Za-z0-9_-]+\Z")]
SshPublic = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(ssh-ed25519|sk-ssh-ed25519@openssh\.com) [A-Za-z0-9+/]{40,1000}={0,2}\Z"
    ),
]


class PeopleError(TrustError):
    """Correct the roster change: it names a person, team or key wrongly."""


class SignatureError(TrustError):
    """Sign again: the signature does not verify for this statement and key."""


class Kind(StrEnum):
    """What an identity is. Only a human can approve; agents and services never can."""

    HUMAN = "human"
    AGENT = "agent"
    SERVICE = "service"


class KeyKind(StrEnum):
    """How a key proves its holder: with verified touch, with touch, or by possession only."""

    PASSKEY = "passkey"
    SSH_SK = "ssh-sk"
    SSH = "ssh"


class SshKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ssh"):
    """An `ssh-ed25519` or `sk-ssh-ed25519@openssh.com` public key (one authorized_keys line).

    No id is written beside the key: a claim of the document's could be another key's.
    """

    public: SshPublic
    """`TYPE BASE64`, without options and comment."""

    @property
    def key_id(self) -> str:
        """The `SHA256:` fingerprint that OpenSSH prints, computed from the key."""
        return thumbprint(ssh_blob(self.public))

    @property
    def material(self) -> str:
        """The key itself, whatever it is wrapped in: two spellings of one key have one value.

        Raises:
            ValueError: not an Ed25519 key.
        """
        return ssh_material(self.public)

    @property
    def kind(self) -> KeyKind:
        """Tell a security key from a plain one."""
        return KeyKind.SSH_SK if self.public.startswith("sk-") else KeyKind.SSH


class Passkey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="passkey"):
    """A WebAuthn credential: COSE public key and credential id, both base64url unpadded.

    Neither id, counter nor model of the authenticator is taken from who asks for the enrolment:
    the id is computed, the counter begins at what the log has seen.
    """

    credential_id: Base64Url
    public_key: Base64Url

    @property
    def key_id(self) -> str:
        """`SHA256:` and the unpadded base64 digest of the COSE key, computed from the key."""
        return thumbprint(base64.urlsafe_b64decode(self.public_key + "=="))

    @property
    def material(self) -> str:
        """The key itself (curve point or modulus), in whatever order CBOR has its members.

        Raises:
            ValueError: not a COSE key of a known type.
        """
        return cose_material(base64.urlsafe_b64decode(self.public_key + "=="))

    @property
    def kind(self) -> KeyKind:
        """A passkey is always a passkey."""
        return KeyKind.PASSKEY


Key = SshKey | Passkey


class Team(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A team. Members of a team are members of its `parents`, and of theirs."""

    id: TeamId
    name: Name
    parents: tuple[TeamId, ...] = ()


class Person(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An identity with an id that is never changed and never used again."""

    id: PersonId
    name: Name
    kind: Kind
    roles: tuple[Label, ...]
    teams: tuple[TeamId, ...]
    keys: tuple[Key, ...]


class Roster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everyone enrolled now, and the ids of everyone who ever was."""

    persons: tuple[Person, ...]
    teams: tuple[Team, ...]
    retired_ids: tuple[str, ...] = ()
    retired_keys: tuple[str, ...] = ()
    """The material of every key that was taken away: it comes back under no spelling."""

    def person(self, person_id: str) -> Person | None:
        """Return the enrolled person of that id, or None."""
        return next((person for person in self.persons if person.id == person_id), None)

    def owner(self, key_id: str) -> tuple[Person, Key] | None:
        """Return the one enrolled person who holds the key, and the key, or None."""
        for person in self.persons:
            for key in person.keys:
                if key.key_id == key_id:
                    return person, key
        return None

    def teams_of(self, person: Person) -> frozenset[str]:
        """Return the ids of every team the person belongs to, directly or through nesting."""
        parents = {team.id: team.parents for team in self.teams}
        found: set[str] = set()
        todo = list(person.teams)
        while todo:
            team = todo.pop()
            if team in found or team not in parents:
                continue
            found.add(team)
            todo.extend(parents[team])
        return frozenset(found)

    def enrol(self, person: Person) -> "Roster":
        """Return the roster with one person more.

        Raises:
            PeopleError: the id or a key was used before, a team is unknown, or there is no key.
        """
        used_ids = {*self.retired_ids, *(other.id for other in self.persons)}
        if person.id in used_ids:
            raise PeopleError(f"expected a new person id, got {person.id}, which was used before")
        _check_name(person.name, (other.name for other in self.persons))
        bare = msgspec.structs.replace(person, keys=())
        roster = msgspec.structs.replace(self, persons=(*self.persons, bare))
        _check_teams(roster, person.teams)
        if not person.keys:
            raise PeopleError(f"expected at least one key for {person.id}, got none")
        for key in person.keys:
            roster = roster.add_key(person.id, key)
        return roster

    def remove(self, person_id: str) -> "Roster":
        """Return the roster without the person; the id and the keys stay retired for ever.

        Raises:
            PeopleError: nobody of that id is enrolled.
        """
        person = self._required(person_id)
        return msgspec.structs.replace(
            self,
            persons=tuple(other for other in self.persons if other.id != person_id),
            retired_ids=(*self.retired_ids, person_id),
            retired_keys=(*self.retired_keys, *(key.material for key in person.keys)),
        )

    def add_key(self, person_id: str, key: Key) -> "Roster":
        """Return the roster in which the person holds one key more.

        Raises:
            PeopleError: unknown person, or the key is or was somebody's, or it is a passkey under
                another one's credential id.
        """
        person = self._required(person_id)
        held = {other.material for one in self.persons for other in one.keys}
        if _material(key) in held.union(self.retired_keys):
            raise PeopleError(f"expected a new key, got {key.key_id}, which was enrolled before")
        # A browser names a passkey by its credential id, which no authenticator signs.
        named = {
            other.credential_id
            for one in self.persons
            for other in one.keys
            if isinstance(other, Passkey)
        }
        if isinstance(key, Passkey) and key.credential_id in named:
            raise PeopleError("expected a credential id of its own, got another passkey's")
        return self._with(msgspec.structs.replace(person, keys=(*person.keys, key)))

    def remove_key(self, person_id: str, key_id: str) -> "Roster":
        """Return the roster in which the person no longer holds the key.

        Raises:
            PeopleError: unknown person, a key of somebody else, or the person's last key.
        """
        person = self._required(person_id)
        left = tuple(key for key in person.keys if key.key_id != key_id)
        if len(left) == len(person.keys):
            raise PeopleError(f"expected a key of {person_id}, got {key_id}")
        if not left:
            raise PeopleError(f"expected {person_id} to keep a key; remove the person instead")
        gone = tuple(key.material for key in person.keys if key not in left)
        changed = self._with(msgspec.structs.replace(person, keys=left))
        return msgspec.structs.replace(changed, retired_keys=(*self.retired_keys, *gone))

    def assign(self, person_id: str, roles: tuple[str, ...], teams: tuple[str, ...]) -> "Roster":
        """Return the roster in which the person has these roles and teams.

        Raises:
            PeopleError: unknown person or team.
        """
        person = self._required(person_id)
        _check_teams(self, teams)
        return self._with(msgspec.structs.replace(person, roles=roles, teams=teams))

    def add_team(self, team: Team) -> "Roster":
        """Return the roster with one team more.

        Raises:
            PeopleError: the id is taken or a parent is unknown.
        """
        if any(other.id == team.id for other in self.teams):
            raise PeopleError(f"expected a new team id, got {team.id}, which exists")
        _check_name(team.name, (other.name for other in self.teams))
        _check_teams(self, team.parents)
        return msgspec.structs.replace(self, teams=(*self.teams, team))

    def _required(self, person_id: str) -> Person:
        person = self.person(person_id)
        if person is None:
            raise PeopleError(f"expected the id of an enrolled person, got {person_id}")
        return person

    def _with(self, changed: Person) -> "Roster":
        return msgspec.structs.replace(
            self,
            persons=tuple(changed if old.id == changed.id else old for old in self.persons),
        )


def _check_teams(roster: Roster, teams: Iterable[str]) -> None:
    known = {team.id for team in roster.teams}
    for team in teams:
        if team not in known:
            raise PeopleError(f"expected the id of a known team, got {team}")


def _check_name(name: str, others: Iterable[str]) -> None:
    taken = {drawn(other): other for other in others}
    if drawn(name) in taken:
        raise PeopleError(
            f"expected a name that nobody can take for {taken[drawn(name)]!r}, got {name!r}: "
            "add a surname or a number in words"
        )
    if (word := odd_word(name)) is not None:
        raise PeopleError(
            f"expected each word of a name in one alphabet in common use, got {shown(word)}"
        )


def _material(key: Key) -> str:
    """Return what a key is, after checking that it is one.

    Raises:
        PeopleError: it is not a well-formed key.
    """
    try:
        return key.material
    except ValueError as error:
        raise PeopleError(f"expected a well-formed public key: {error}") from error


EMPTY_ROSTER = Roster(persons=(), teams=())


class SshProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ssh"):
    """An SSHSIG over a statement's challenge: the text between the armour lines, one line."""

    key_id: KeyId
    signature: Base64


class PasskeyProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="passkey"):
    """A WebAuthn assertion whose challenge is the statement's; fields base64url unpadded."""

    key_id: KeyId
    credential_id: Base64Url
    authenticator_data: Base64Url
    client_data_json: Base64Url
    signature: Base64Url


Proof = SshProof | PasskeyProof


class RelyingParty(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where passkeys of this enclave are used: both are pinned in the policy."""

    rp_id: str
    origins: tuple[str, ...]


class Verified(msgspec.Struct, frozen=True):
    """A proof that verified: whose it is, by which key, and the authenticator's counter."""

    person: Person
    key: Key
    sign_count: int
    """0 for keys that have no counter."""
