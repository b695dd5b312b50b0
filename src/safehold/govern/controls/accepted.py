"""What persons answer for: attestations and exceptions, out of grants that were used.

An attestation is a grant of `controls.attest`: its requester and one person more. An exception is
one of `controls.except`: two persons beside its requester. Both name a control, an owner and an
expiry; an owner who is enrolled no more answers for nothing.
"""

import msgspec

from safehold.govern.controls.facts.trust_log import CaseFacts, LogReading
from safehold.govern.controls.interface import DAY

_SHA256_DIGITS = 64

MAX_EXCEPTION_S = 90 * DAY
MAX_ATTESTATION_S = 400 * DAY


class Acceptance(msgspec.Struct, frozen=True):
    """Somebody answers for a control until `expires` (POSIX seconds)."""

    control: str
    owner: str
    reason: str
    expires: int


class Accepted(msgspec.Struct, frozen=True):
    """What is in force, and for what was tried and is not, why."""

    attested: dict[str, Acceptance] = {}
    excepted: dict[str, Acceptance] = {}
    why: dict[str, str] = {}


def accepted(log: LogReading, at: int) -> Accepted:
    """Return what persons answer for at a time."""
    attested: dict[str, Acceptance] = {}
    excepted: dict[str, Acceptance] = {}
    why: dict[str, str] = {}
    enrolled = {one.id: one.name for one in log.persons}
    for case in log.used("controls."):
        details = case.details
        control = details.get("control", "").lower()
        fault = _fault(case, at, enrolled)
        if fault:
            why[control] = fault
            continue
        held = Acceptance(
            control, enrolled[details["owner"]], details.get("reason", ""), int(details["expires"])
        )
        table = attested if case.operation == "controls.attest" else excepted
        before = table.get(control)
        if before is None or before.expires < held.expires:
            table[control] = held
    return Accepted(attested, excepted, why)


def _fault(case: CaseFacts, at: int, enrolled: dict[str, str]) -> str:  # noqa: PLR0911 - a line each
    details = case.details
    exception = case.operation == "controls.except"
    end = details.get("expires", "")
    if case.operation not in {"controls.attest", "controls.except"} or not end.isdigit():
        return "its record names no expiry"
    others = set(case.carried_by) - {case.requester}
    if len(others) < (2 if exception else 1):
        return "too few persons signed it"
    if case.closed:
        return "it was taken back"
    if details.get("owner") not in enrolled:
        return "its owner is not enrolled"
    if exception and not details.get("reason"):
        return "it gives no reason"
    if not exception and len(details.get("evidence", "")) != _SHA256_DIGITS:
        return "it names no evidence"
    longest = MAX_EXCEPTION_S if exception else MAX_ATTESTATION_S
    if int(end) - (case.used_at or 0) > longest:
        return "it lasts too long"
    return "" if at < int(end) else "it has expired"
