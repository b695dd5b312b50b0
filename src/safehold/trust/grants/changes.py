"""What a used grant changes by itself: the roster, the policy, an exemption."""

from typing import assert_never

from safehold.canonical import sha256_hex
from safehold.trust.exemptions.interface import ExemptionTerms
from safehold.trust.exemptions.terms import check_terms
from safehold.trust.grants.details import (
    AccountStep,
    AddKey,
    AddTeam,
    AssignPerson,
    ChangePolicy,
    ClassOff,
    CorrectClock,
    EnrolPerson,
    Facts,
    NoDetails,
    PeopleChange,
    RemoveKey,
    RemovePerson,
    RuleActivation,
    StandingAct,
)
from safehold.trust.grants.interface import GrantRequest, Policy, PolicyError
from safehold.trust.grants.policy import check_achievable, check_governing, load_policy
from safehold.trust.people.interface import EMPTY_ROSTER, PeopleError, Roster
from safehold.trust.release.interface import PublishRelease


def changed_roster(roster: Roster, change: PeopleChange) -> Roster:
    """Return the roster after a change.

    Raises:
        PeopleError: the change names what is not there, or what was used before.
    """
    match change:
        case EnrolPerson():
            return roster.enrol(change.person)
        case RemovePerson():
            return roster.remove(change.person_id)
        case AddKey():
            return roster.add_key(change.person_id, change.key)
        case RemoveKey():
            return roster.remove_key(change.person_id, change.key_id)
        case AssignPerson():
            return roster.assign(change.person_id, change.roles, change.teams)
        case AddTeam():
            return roster.add_team(change.team)
        case _:
            assert_never(change)


def apply_details(
    request: GrantRequest, roster: Roster, policy: Policy
) -> tuple[Roster, Policy, ExemptionTerms | None]:
    """Return the roster, the policy and the exemption after the request takes effect.

    Raises:
        PeopleError: a roster change that can't be made, or after which people and policy could
            never be changed again.
        PolicyError: a policy that is not the next version, not its digest, or not achievable.
        ExemptionError: terms that no exemption can have.
    """
    details = request.details
    match details:
        case (
            NoDetails()
            | Facts()
            | PublishRelease()
            | CorrectClock()
            | StandingAct()
            | AccountStep()
            | RuleActivation()
            | ClassOff()
        ):
            return roster, policy, None
        case ExemptionTerms():
            check_terms(details)
            return roster, policy, details
        case ChangePolicy():
            # The digest is of the whole document, Cedar text included: no part comes unsigned.
            if sha256_hex(details.text.encode()) != details.sha256:
                raise PolicyError("expected the digest of the policy text, got another")
            new = load_policy(details.text)
            if new.version != policy.version + 1:
                raise PolicyError(
                    f"expected policy version {policy.version + 1}, got {new.version}"
                )
            check_governing(new)
            check_achievable(new, roster)
            return roster, new, None
        case _:
            new_roster = changed_roster(roster, details)
            try:
                check_achievable(policy, new_roster, governing_only=True)
            except PolicyError as error:
                raise PeopleError(f"nothing could be put right afterwards: {error}") from error
            return new_roster, policy, None


def check_roster(roster: Roster) -> None:
    """Refuse a first roster that enrolling one by one could not have made.

    Raises:
        PeopleError: an id or key twice, an unknown team, a person without keys.
    """
    rebuilt = EMPTY_ROSTER
    for team in roster.teams:
        rebuilt = rebuilt.add_team(team)
    for person in roster.persons:
        rebuilt = rebuilt.enrol(person)
    if rebuilt != roster:
        raise PeopleError("expected a first roster without retired ids and keys")
