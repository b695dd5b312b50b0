"""Exemptions: who gets which gentler action on which clauses, and never more than that."""

from enum import StrEnum
from typing import Annotated

import msgspec

from safehold.canonical import MAX_INTEGER
from safehold.errors import TrustError
from safehold.trust.text import Line

ClauseId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}\Z")]
SubjectId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,79}\Z")]
"""An id of yours: no name, no address (neither blanks nor @)."""
UseCase = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}\Z")]
"""As a request's header declares it."""
Label = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,39}\Z")]
PersonRef = Annotated[str, msgspec.Meta(pattern=r"^p-[0-9a-f]{16}\Z")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]


class ExemptionError(TrustError):
    """Correct the exemption: its terms ask for what no exemption can give."""


class ExemptionAction(StrEnum):
    """What the gateway does with an exchange that the guard would block.

    There is no "off": every member is taken after scoring, and is logged.
    """

    BLOCK = "block"
    HOLD = "hold"
    FALLBACK = "fallback"
    AUDIT = "audit"


class SubjectKind(StrEnum):
    """How wide a subject is."""

    ORGANISATION = "organisation"
    USER = "user"
    KEY = "key"


class Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One organisation, user or API key, by its immutable id."""

    kind: SubjectKind
    id: SubjectId


class Relaxation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One clause and the action that replaces blocking for it; `block` itself is no relaxation."""

    clause: ClauseId
    action: ExemptionAction


class VettingTier(StrEnum):
    """How much is checked before a clause is relaxed: by the tier of the clause."""

    LOW = "low-risk-dual-use"
    HIGH = "high-risk-dual-use"


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One document that the reviewer has seen: its kind and digest."""

    kind: Label
    sha256: Sha256


class UseCount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often a grant changed what happened, for one clause: counts and nothing else."""

    clause: ClauseId
    action: Label
    """What was done instead, or what it had run out of (`seats`, `rate`, `use-case`)."""
    exchanges: Count


class Renewal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which exemption this one follows, and what that one let through."""

    of: Sha256
    """The grant that is renewed."""
    since: Count
    until: Count
    """Whose rows were counted (POSIX seconds)."""
    use: tuple[UseCount, ...]


class Vetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was checked, by whom nobody may be approved who has a stake; no personal data.

    The person who signs the request is the reviewer: they answer for the checks, and never
    approve.
    """

    application_sha256: Sha256
    """Salted digest of the application, which stays with its reader."""
    tier: VettingTier
    evidence: tuple[Evidence, ...]
    checks: tuple[Label, ...]
    conflicts: tuple[PersonRef, ...] = ()
    """Persons with a stake: they neither review nor approve."""
    renewal: Renewal | None = None


class ExemptionTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="exemption"):
    """What an exemption's approvers sign: everything but its dates, which the grant carries."""

    subject: Subject
    relaxations: tuple[Relaxation, ...]
    surfaces: tuple[Line, ...]
    use_case: UseCase
    seats: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    rate_per_hour: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
    vetting: Vetting
    session_s: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = 3600
    """A key's session: from its first exempted exchange so long, it has this one use case."""


class Exemption(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Granted terms with their dates (POSIX seconds) and the grant that carries them."""

    grant: str
    terms: ExemptionTerms
    not_before: int
    expires: int
    ended: bool = False
    """Revoked or given back."""

    def in_force(self, now: int) -> bool:
        """Tell whether it counts at this second (POSIX)."""
        return not self.ended and self.not_before <= now < self.expires
