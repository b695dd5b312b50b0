"""Vetting: what is known of an applicant before anybody relaxes a clause for them.

The application names people and stays with its reader; the log holds its salted digest, the
digests of the evidence, and which checks were made. So no personal data is in the log, and
nobody can guess an application from its digest.
"""

import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.trust.exemptions.interface import (
    Evidence,
    ExemptionError,
    ExemptionTerms,
    PersonRef,
    UseCase,
    VettingTier,
)
from safehold.trust.text import Fact, Line

CHECKLIST: Mapping[VettingTier, Mapping[str, str]] = {
    VettingTier.LOW: {
        "identity": "The institution exists, and the contact answers from its own domain.",
        "use-case": "The use case is lawful work of this institution, and needs these clauses.",
        "conflicts": "Who reviews and who approves has no stake in the answer.",
        "least": "No clause, surface, seat or hour more than the use case needs.",
    },
    VettingTier.HIGH: {
        "identity": "The institution exists, and the contact answers from its own domain.",
        "use-case": "The use case is lawful work of this institution, and needs these clauses.",
        "conflicts": "Who reviews and who approves has no stake in the answer.",
        "least": "No clause, surface, seat or hour more than the use case needs.",
        "licence": "A licence, permit or ethics approval for this work was seen and is in force.",
        "people": "Each user is named to us by the institution, and was checked by it.",
        "security": "Keys are kept apart from other work, and a lost key is reported in a day.",
        "sanctions": "Neither institution nor users are on a list of sanctions.",
    },
}
"""What a reviewer answers for, by the tier of the clauses."""

APPROVERS: Mapping[VettingTier, int] = {VettingTier.LOW: 1, VettingTier.HIGH: 2}
"""How many persons approve at least, beside the one who reviewed."""

EVIDENCE: Mapping[VettingTier, int] = {VettingTier.LOW: 1, VettingTier.HIGH: 2}
"""How many kinds of evidence there are at least."""

_HIGH = "high-risk-dual-use"
_LOW = frozenset({"low-risk-dual-use", "benign"})


class ApplicationStanding(StrEnum):
    """What an applicant is told."""

    GRANTED = "granted"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    WAITING = "waiting"


class Conflict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person of the enclave with a stake in the answer, and which."""

    person: PersonRef
    stake: Line


class Application(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who asks for what and why. It holds personal data: it never enters the log."""

    who: Line
    contact: Line
    """Where the answer goes: an address that the notifying program understands."""
    institution: Line
    use_case: UseCase
    why: Fact
    evidence: Annotated[tuple[Evidence, ...], msgspec.Meta(min_length=1, max_length=40)]
    conflicts: Annotated[tuple[Conflict, ...], msgspec.Meta(max_length=40)] = ()
    salt: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")] = ""

    @property
    def sha256(self) -> str:
        """SHA-256 of the canonical form, salt included: nothing can be guessed from it."""
        return sha256_hex(canonical(self))


def salted(application: Application) -> Application:
    """Return the application with a fresh salt."""
    return msgspec.structs.replace(application, salt=secrets.token_hex(32))


def tier_of(clause_tiers: Mapping[str, str], terms_clauses: tuple[str, ...]) -> VettingTier:
    """Return the tier that these clauses need, by the constitution's own tiers.

    A tier that is not known here needs the higher one.
    """
    high = any(clause_tiers.get(clause, _HIGH) not in _LOW for clause in terms_clauses)
    return VettingTier.HIGH if high else VettingTier.LOW


def check_vetting(terms: ExemptionTerms) -> None:
    """Refuse terms whose vetting is not complete for the tier that it claims.

    Raises:
        ExemptionError: a check is missing, unknown or double; too little evidence, or one piece
            twice; a conflict twice; a renewal that counts one clause twice.
    """
    vetting = terms.vetting
    needed, made = CHECKLIST[vetting.tier], vetting.checks
    missing = [item for item in needed if item not in made]
    if missing:
        raise ExemptionError(
            f"expected every check of tier {vetting.tier.value}, missing: {', '.join(missing)}"
        )
    if len(made) != len(needed):
        raise ExemptionError("expected each check of the tier once and no other")
    digests = [one.sha256 for one in vetting.evidence]
    kinds = {one.kind for one in vetting.evidence}
    if len(set(digests)) != len(digests):
        raise ExemptionError("expected each piece of evidence once")
    least = EVIDENCE[vetting.tier]
    if len(kinds) < least:
        raise ExemptionError(
            f"expected {least} kind(s) of evidence for tier {vetting.tier.value}, got {len(kinds)}"
        )
    if len(set(vetting.conflicts)) != len(vetting.conflicts):
        raise ExemptionError("expected each conflict once")
    if vetting.renewal is not None:
        rows = [(one.clause, one.action) for one in vetting.renewal.use]
        if len(set(rows)) != len(rows):
            raise ExemptionError("expected one count for each clause and action")


def check_tier(terms: ExemptionTerms, clause_tiers: Mapping[str, str]) -> None:
    """Refuse terms that were vetted by a lower tier than their clauses have.

    Raises:
        ExemptionError: says which tier it takes.
    """
    needed = tier_of(clause_tiers, tuple(one.clause for one in terms.relaxations))
    if needed is VettingTier.HIGH and terms.vetting.tier is not VettingTier.HIGH:
        raise ExemptionError(
            f"expected the checks of tier {needed.value}, got those of {terms.vetting.tier.value}"
        )


def check_application(terms: ExemptionTerms, application: Application) -> None:
    """Refuse an application that is not the one these terms were made from.

    Raises:
        ExemptionError: another application, or evidence, use case or conflicts differ.
    """
    if not application.salt or application.sha256 != terms.vetting.application_sha256:
        raise ExemptionError("expected the application that was reviewed, got another")
    if application.use_case != terms.use_case:
        raise ExemptionError(
            f"expected the use case {terms.use_case}, the application has {application.use_case}"
        )
    if application.evidence != terms.vetting.evidence:
        raise ExemptionError("expected the evidence of the application, got other")
    if tuple(one.person for one in application.conflicts) != terms.vetting.conflicts:
        raise ExemptionError("expected the conflicts of the application, got others")
