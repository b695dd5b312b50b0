"""Persons, their keys and the roster: immutable values that say who may sign what."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import msgspec

from safehold.errors import TrustError

PersonId = Annotated[str, msgspec.Meta(pattern=r"^p-[0-9a-f]{16}$")]
TeamId = Annotated[str, msgspec.Meta(pattern=r"^t-[0-9a-z-]{1,40}$")]
Label = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
# No control characters: a name is printed on terminals and on the approval page.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f]+$")]


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
    """An `ssh-ed25519` or `sk-ssh-ed25519@openssh.com` public key (one authorized_keys line)."""

    public: str
    """`TYPE BASE64`, without options and comment."""
    key_id: str
    """`SHA256:` fingerprint as OpenSSH prints it."""

    @property
    def kind(self) -> KeyKind:
        """Tell a security key from a plain one."""
        return KeyKind.SSH_SK if self.public.startswith("sk-") else KeyKind.SSH


class Passkey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="passkey"):
    """A WebAuthn credential: COSE public key and credential id, both base64url unpadded."""

    credential_id: str
    public_key: str
    aaguid: str
    sign_count: int
    key_id: str
    """`SHA256:` and the unpadded base64 digest of the COSE key."""

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
            retired_keys=(*self.retired_keys, *(key.key_id for key in person.keys)),
        )

    def add_key(self, person_id: str, key: Key) -> "Roster":
        """Return the roster in which the person holds one key more.

        Raises:
            PeopleError: unknown person, or the key is or was somebody's.
        """
        person = self._required(person_id)
        if key.key_id in self.retired_keys or self.owner(key.key_id) is not None:
            raise PeopleError(f"expected a new key, got {key.key_id}, which was enrolled before")
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
        changed = self._with(msgspec.structs.replace(person, keys=left))
        return msgspec.structs.replace(changed, retired_keys=(*self.retired_keys, key_id))

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


EMPTY_ROSTER = Roster(persons=(), teams=())


class SshProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ssh"):
    """An SSHSIG over a statement's challenge: the text between the armour lines, one line."""

    key_id: str
    signature: str


class PasskeyProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="passkey"):
    """A WebAuthn assertion whose challenge is the statement's; fields base64url unpadded."""

    key_id: str
    credential_id: str
    authenticator_data: str
    client_data_json: str
    signature: str


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
