"""Exemptions: who gets which gentler action on which clauses, and never more than that."""

from enum import StrEnum
from typing import Annotated

import msgspec

from safehold.errors import TrustError
from safehold.trust.text import Line

ClauseId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}\Z")]


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
    id: Line


class Relaxation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One clause and the action that replaces blocking for it; `block` itself is no relaxation."""

    clause: ClauseId
    action: ExemptionAction


class ExemptionTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="exemption"):
    """What an exemption's approvers sign: everything but its dates, which the grant carries."""

    subject: Subject
    relaxations: tuple[Relaxation, ...]
    surfaces: tuple[Line, ...]
    use_case: Line
    seats: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    rate_per_hour: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]


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
