"""What a request asks for beyond its scope: the exact change that its approvers sign."""

from typing import Annotated

import msgspec

from safehold.canonical import MAX_INTEGER
from safehold.trust.exemptions.interface import ExemptionTerms
from safehold.trust.people.interface import (
    Key,
    KeyId,
    Label,
    Person,
    PersonId,
    Proof,
    Team,
    TeamId,
)
from safehold.trust.release.interface import PublishRelease
from safehold.trust.text import Document, Fact, Line


class NoDetails(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="none"):
    """The request's resource and operation say everything."""


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="facts"):
    """Named facts of another part's operation: a bundle's digest, a new budget."""

    values: dict[Label, Fact]


class EnrolPerson(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="enrol-person"):
    """Enrol this identity with these keys."""

    person: Person
    held: tuple[Proof, ...] = ()
    """Each new key's own signature, in the order of the keys (`holding.py`)."""


class RemovePerson(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="remove-person"):
    """Remove this person; it takes effect on grants in flight."""

    person_id: PersonId


class AddKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="add-key"):
    """Give this person one key more."""

    person_id: PersonId
    key: Key
    held: tuple[Proof, ...] = ()
    """The new key's own signature (`holding.py`)."""


class RemoveKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="remove-key"):
    """Take a lost or retired key from this person."""

    person_id: PersonId
    key_id: KeyId


class AssignPerson(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="assign-person"):
    """Give this person exactly these roles and teams."""

    person_id: PersonId
    roles: tuple[Label, ...]
    teams: tuple[TeamId, ...]


class AddTeam(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="add-team"):
    """Create this team."""

    team: Team


class ChangePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="change-policy"):
    """Replace the whole policy file by this text (UTF-8 TOML)."""

    text: Document
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class CorrectClock(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="correct-clock"):
    """Set the log's time back: a leaf came from a clock that was fast. POSIX seconds."""

    wrong: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
    right: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]


class StandingAct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="standing-act"):
    """An act under a document of standards: its digest, and the record as JSON text."""

    document: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    record: Document


class AccountStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="account-step"):
    """Put this account (tenant/key) on a step of the ladder until then (POSIX seconds).

    `requests_per_hour` is the least that a rate limit may leave it; 0 for the other steps.
    """

    account: Line
    until: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
    requests_per_hour: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0


class RuleActivation(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="rule-activation"
):
    """Let exactly this hot rule act: its id, its digest, until then at most (POSIX seconds)."""

    rule: Line
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    until: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]


class ClassOff(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="class-off"):
    """Switch exactly this class of a gateway off, until then at most (POSIX seconds)."""

    guard_class: Line
    until: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
    reason: Line


PeopleChange = EnrolPerson | RemovePerson | AddKey | RemoveKey | AssignPerson | AddTeam
Details = (
    NoDetails
    | Facts
    | EnrolPerson
    | RemovePerson
    | AddKey
    | RemoveKey
    | AssignPerson
    | AddTeam
    | ChangePolicy
    | ExemptionTerms
    | PublishRelease
    | CorrectClock
    | StandingAct
    | AccountStep
    | RuleActivation
    | ClassOff
)

ACTIVATE_RULE = "rule.activate"
"""The operation that lets a hot rule act."""

SWITCH_CLASS_OFF = "class.switch-off"
"""The operation that switches a class of the guard off for a while."""

ACCOUNT_STEPS: dict[str, str] = {
    "step-up": "account.step-up",
    "rate-limit": "account.rate-limit",
    "suspend": "account.suspend",
}
"""The operation that puts an account on each of the ladder's upper steps."""
