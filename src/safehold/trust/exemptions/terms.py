"""Which terms an exemption can have at all."""

from collections.abc import Mapping

from safehold.trust.exemptions.interface import ExemptionAction, ExemptionError, ExemptionTerms
from safehold.trust.exemptions.vetting import check_tier, check_vetting

MAX_DAYS = 366


def check_terms(terms: ExemptionTerms) -> None:
    """Refuse terms that are empty, double or no relaxation.

    Raises:
        ExemptionError: says which.
    """
    clauses = [relaxation.clause for relaxation in terms.relaxations]
    if not clauses:
        raise ExemptionError("expected at least one clause to relax, got none")
    if len(set(clauses)) != len(clauses):
        raise ExemptionError("expected each clause once")
    if any(relaxation.action is ExemptionAction.BLOCK for relaxation in terms.relaxations):
        raise ExemptionError("expected hold, fallback or audit, got block: it relaxes nothing")
    if not terms.surfaces or "*" in terms.surfaces:
        raise ExemptionError("expected the surfaces by name, got none or all of them")
    check_vetting(terms)


def check_clauses(terms: ExemptionTerms, relaxable: Mapping[str, str]) -> None:
    """Refuse terms that name a clause the constitution does not let anybody relax so.

    Args:
        terms: The terms.
        relaxable: Ids of clauses that may be relaxed, with their tiers: never of tier prohibited.

    Raises:
        ExemptionError: names the clause, or the tier that it takes.
    """
    for relaxation in terms.relaxations:
        if relaxation.clause not in relaxable:
            raise ExemptionError(
                f"expected clauses that may be relaxed, got {relaxation.clause}: "
                "it is unknown or of tier prohibited"
            )
    check_tier(terms, relaxable)
