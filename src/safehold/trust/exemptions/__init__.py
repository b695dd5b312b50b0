"""Exemptions: vetted subjects get a gentler action on named clauses, never less scoring."""

from safehold.trust.exemptions.exemption_book import (
    NO_EXEMPTION,
    Caller,
    ExemptionBook,
    ExpiryNotice,
    Ruling,
    exemption_book,
)
from safehold.trust.exemptions.interface import (
    Exemption,
    ExemptionAction,
    ExemptionError,
    ExemptionTerms,
    Relaxation,
    Subject,
    SubjectKind,
)
from safehold.trust.exemptions.seats import (
    Admission,
    Admitted,
    RateOverrun,
    SeatMeter,
    SeatOverrun,
    settle,
)
from safehold.trust.exemptions.terms import check_clauses, check_terms

__all__ = [
    "NO_EXEMPTION",
    "Admission",
    "Admitted",
    "Caller",
    "Exemption",
    "ExemptionAction",
    "ExemptionBook",
    "ExemptionError",
    "ExemptionTerms",
    "ExpiryNotice",
    "RateOverrun",
    "Relaxation",
    "Ruling",
    "SeatMeter",
    "SeatOverrun",
    "Subject",
    "SubjectKind",
    "check_clauses",
    "check_terms",
    "exemption_book",
    "settle",
]
