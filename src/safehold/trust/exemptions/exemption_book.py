"""The exemption book: a pure answer to "what action instead of blocking, for whom, where, now?"."""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import msgspec

from safehold.trust.exemptions.interface import Exemption, ExemptionAction, Subject, SubjectKind
from safehold.trust.exemptions.terms import check_clauses, check_terms

WARN_DAYS = (14, 3, 1)
_DAY_S = 86_400


class Caller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who sent an exchange, by immutable ids that the gateway has authenticated.

    `use_case` is what the caller declares for this session; an exemption is for one use case.
    """

    organisation: str
    user: str
    key: str
    use_case: str

    def subjects(self) -> tuple[Subject, ...]:
        """Return whom the caller is and belongs to, the narrowest first; an empty id is nobody."""
        ids = (
            (SubjectKind.KEY, self.key),
            (SubjectKind.USER, self.user),
            (SubjectKind.ORGANISATION, self.organisation),
        )
        return tuple(Subject(kind=kind, id=name) for kind, name in ids if name)


class Ruling(msgspec.Struct, frozen=True):
    """The action for a blocked exchange, and the grant that says so (empty: none does)."""

    action: ExemptionAction
    grant: str
    seats: int = 0
    rate_per_hour: int = 0
    session_s: int = 3600


NO_EXEMPTION = Ruling(action=ExemptionAction.BLOCK, grant="")


class ExpiryNotice(msgspec.Struct, frozen=True):
    """An exemption ends in `days` days or fewer."""

    grant: str
    days: int


@dataclass(frozen=True, slots=True)
class ExemptionBook:
    """All exemptions, and which clauses anybody may be exempted from at all.

    Args:
        exemptions: What was granted (`TrustState.exemptions()`).
        relaxable: Ids of the constitution's clauses that may be relaxed. Clauses of tier
            prohibited, and clauses it does not know, are not in it: they block under every grant.
    """

    exemptions: tuple[Exemption, ...]
    relaxable: AbstractSet[str]
    _by_subject: Mapping[Subject, tuple[Exemption, ...]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Index the exemptions by their subject, so that a lookup costs the same for any number."""
        found: dict[Subject, list[Exemption]] = {}
        for exemption in self.exemptions:
            found.setdefault(exemption.terms.subject, []).append(exemption)
        index = {subject: tuple(some) for subject, some in found.items()}
        object.__setattr__(self, "_by_subject", index)

    def _of(self, caller: Caller) -> Iterator[Exemption]:
        """Yield the exemptions of a caller's key, of its user, then of its organisation."""
        for subject in caller.subjects():
            yield from self._by_subject.get(subject, ())

    def action_for(self, subject: Caller, clause: str, surface: str, now: int) -> Ruling:
        """Return the action for an exchange that the guard blocks under a clause.

        Pure. The caller has scored and will log as ever: this changes the action and nothing else.

        Args:
            subject: Who sent it.
            clause: The clause that fired.
            surface: The product surface it came in on.
            now: POSIX seconds.
        """
        # 1. Below every grant: what may not be relaxed blocks.
        if clause not in self.relaxable:
            return NO_EXEMPTION
        for exemption in self._of(subject):  # 2. This caller.
            terms = exemption.terms
            # 3. In force at this second, not given back or revoked; this surface, this use case.
            if (
                not exemption.in_force(now)
                or surface not in terms.surfaces
                or subject.use_case != terms.use_case
            ):
                continue
            # 4. This clause, with the action that was approved.
            for relaxation in terms.relaxations:
                if relaxation.clause == clause:
                    return Ruling(
                        action=relaxation.action,
                        grant=exemption.grant,
                        seats=terms.seats,
                        rate_per_hour=terms.rate_per_hour,
                        session_s=terms.session_s,
                    )
        return NO_EXEMPTION

    def warnings(self, now: int) -> tuple[ExpiryNotice, ...]:
        """Return the exemptions that end within 14, 3 or 1 days, with the narrowest bound."""
        found: list[ExpiryNotice] = []
        for exemption in self.exemptions:
            left = exemption.expires - now
            if exemption.ended or left <= 0:
                continue
            days = [bound for bound in WARN_DAYS if left <= bound * _DAY_S]
            if days:
                found.append(ExpiryNotice(grant=exemption.grant, days=min(days)))
        return tuple(found)


def exemption_book(exemptions: Iterable[Exemption], relaxable: Mapping[str, str]) -> ExemptionBook:
    """Return the book of these exemptions, after checking each once more.

    Raises:
        ExemptionError: one of them could never have been granted, or names a clause that may not
            be relaxed: the constitution has become stricter, and its grant must be made again.
    """
    kept = tuple(exemptions)
    for exemption in kept:
        check_terms(exemption.terms)
        if not exemption.ended:
            check_clauses(exemption.terms, relaxable)
    return ExemptionBook(exemptions=kept, relaxable=frozenset(relaxable))
