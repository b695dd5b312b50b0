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
    Evidence,
    Exemption,
    ExemptionAction,
    ExemptionError,
    ExemptionTerms,
    Relaxation,
    Renewal,
    Subject,
    SubjectKind,
    UseCount,
    Vetting,
    VettingTier,
)
from safehold.trust.exemptions.seats import (
    Admission,
    Admitted,
    CaseOverrun,
    RateOverrun,
    SeatMeter,
    SeatOverrun,
    settle,
)
from safehold.trust.exemptions.terms import check_clauses, check_terms
from safehold.trust.exemptions.vetting import CHECKLIST, Application, check_application, salted

__all__ = [
    "CHECKLIST",
    "NO_EXEMPTION",
    "Admission",
    "Admitted",
    "Application",
    "Caller",
    "CaseOverrun",
    "Evidence",
    "Exemption",
    "ExemptionAction",
    "ExemptionBook",
    "ExemptionError",
    "ExemptionTerms",
    "ExpiryNotice",
    "RateOverrun",
    "Relaxation",
    "Renewal",
    "Ruling",
    "SeatMeter",
    "SeatOverrun",
    "Subject",
    "SubjectKind",
    "UseCount",
    "Vetting",
    "VettingTier",
    "check_application",
    "check_clauses",
    "check_terms",
    "exemption_book",
    "salted",
    "settle",
]
