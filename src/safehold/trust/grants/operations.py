"""One table of the operations that need a grant: who must approve at least, and of what."""

from collections.abc import Iterator

import msgspec

from safehold.trust.clock import CORRECT
from safehold.trust.exemptions.interface import ExemptionTerms
from safehold.trust.grants.details import (
    ACCOUNT_STEPS,
    ACTIVATE_RULE,
    SWITCH_CLASS_OFF,
    AccountStep,
    AddKey,
    AddTeam,
    AssignPerson,
    ChangePolicy,
    ClassOff,
    CorrectClock,
    Details,
    EnrolPerson,
    Facts,
    NoDetails,
    RemoveKey,
    RemovePerson,
    RuleActivation,
    StandingAct,
)
from safehold.trust.release.interface import PublishRelease, ReleaseOperation

_HOUR, _DAY = 3600, 86_400


class OperationRow(msgspec.Struct, frozen=True):
    """What is known of one operation."""

    name: str
    what: str
    """What it lets happen, for people."""
    least: int
    """How many approvals beside its requester no policy can go below."""
    stock: int
    """How many the stock policy asks for."""
    longest_s: int
    """How long a grant of it lasts at most, by the stock policy."""
    details: type[Details] | None = None
    """The one kind of details that it takes, and that no other operation takes."""
    governs: bool = False
    """It changes who may approve."""
    alone: bool = False
    """A policy may have break-glass for it."""
    uses: int = 1
    bytes: int = 0
    """How many bytes a grant may let be read, by the stock policy."""


OPERATIONS: dict[str, OperationRow] = {
    row.name: row
    for row in (
        OperationRow("people.enrol", "a new identity", 2, 2, _DAY, EnrolPerson, governs=True),
        OperationRow("people.remove", "a person leaves", 2, 2, _DAY, RemovePerson, governs=True),
        OperationRow("people.add-key", "one key more", 2, 2, _DAY, AddKey, governs=True),
        OperationRow("people.remove-key", "a key is gone", 2, 2, _DAY, RemoveKey, governs=True),
        OperationRow("people.assign", "teams and roles", 2, 2, _DAY, AssignPerson, governs=True),
        OperationRow("people.add-team", "a new team", 2, 2, _DAY, AddTeam, governs=True),
        OperationRow("policy.change", "the next policy", 2, 2, _DAY, ChangePolicy, governs=True),
        OperationRow(CORRECT, "the log's time is set back", 2, 2, _HOUR, CorrectClock),
        OperationRow("exemption.give", "a vetted exemption", 1, 1, 366 * _DAY, ExemptionTerms),
        OperationRow(
            ReleaseOperation.PUBLISH.value, "a release that weakens nothing", 2, 2, 7 * _DAY,
            PublishRelease,
        ),
        OperationRow(
            ReleaseOperation.WEAKEN.value, "a release that weakens something", 3, 3, 7 * _DAY,
            PublishRelease,
        ),
        OperationRow(
            ReleaseOperation.EMERGENCY.value, "a release in need, weakening nothing", 1, 1, _DAY,
            PublishRelease, alone=True,
        ),
        OperationRow("standards.plan", "a plan of evaluation", 1, 1, 7 * _DAY, StandingAct),
        OperationRow("standards.evaluation", "a result", 1, 1, 7 * _DAY, StandingAct),
        OperationRow("standards.dissent", "a dissent on record", 1, 1, 7 * _DAY, StandingAct),
        OperationRow("standards.determine", "a determination", 1, 3, 7 * _DAY, StandingAct),
        OperationRow("standards.activate", "a standard applies", 1, 2, 7 * _DAY, StandingAct),
        OperationRow("standards.adjust", "a standard changes", 1, 3, 7 * _DAY, StandingAct),
        OperationRow("standards.deactivate", "a standard ends", 1, 3, 7 * _DAY, StandingAct),
        OperationRow("controls.attest", "a control is attested", 1, 1, 7 * _DAY),
        OperationRow("controls.except", "an exception to a control", 1, 2, 7 * _DAY),
        OperationRow("report.publish", "a report is signed off", 1, 2, 7 * _DAY),
        OperationRow(
            "weights.load", "sealed weights are read into a process", 1, 2, 8 * _HOUR,
            alone=True, uses=3, bytes=10**12,
        ),
        OperationRow("weights.rewrap", "sealed weights get another key", 1, 2, _DAY),
        OperationRow("weights.shred", "a data key is destroyed", 1, 2, _DAY),
        OperationRow("egress.raise", "more bytes, or a looser register", 1, 2, _DAY),
        OperationRow("egress.release", "a blocked flow is let go on", 1, 2, _HOUR),
        OperationRow("egress.reset", "what is unexplained counts anew", 1, 2, _HOUR),
        OperationRow("endpoint.loosen", "more software may run", 1, 2, _DAY),
        OperationRow("egress.review", "unexplained bytes were looked into", 1, 2, _HOUR),
        OperationRow(
            ACCOUNT_STEPS["step-up"], "an account must prove who it is", 2, 2, _DAY, AccountStep
        ),
        OperationRow(ACCOUNT_STEPS["rate-limit"], "an account is slowed", 2, 2, _DAY, AccountStep),
        OperationRow(ACCOUNT_STEPS["suspend"], "an account is suspended", 2, 2, _DAY, AccountStep),
        OperationRow(
            ACTIVATE_RULE, "a hot rule acts on live traffic", 1, 1, 7 * _DAY, RuleActivation,
            alone=True,
        ),
        OperationRow(
            SWITCH_CLASS_OFF, "a class of the guard is off for a while", 2, 2, 7 * _DAY, ClassOff
        ),
        OperationRow("host.shell", "a person gets a shell on a host of the enclave", 1, 2, _HOUR),
        OperationRow("vendor.access", "somebody from outside gets in for a while", 1, 2, _DAY),
    )
}  # fmt: skip
"""Every operation that a part of Safehold asks for."""

DETAILS_OF: dict[str, type[Details]] = {
    row.name: row.details for row in OPERATIONS.values() if row.details is not None
}
"""An operation named here takes this kind of details and no other, and no other takes it.

Otherwise a change of people could hide behind an operation with an easier rule.
"""

AT_ONCE = frozenset(DETAILS_OF) - frozenset(ACCOUNT_STEPS.values())
"""These take effect when their quorum is there.

An account's step is spent by the desk that decides its case, which looks first at who judged it.
"""


def details_fit(operation: str, details: Details) -> bool:
    """Tell whether these details belong to the operation."""
    if operation in DETAILS_OF:
        return type(details) is DETAILS_OF[operation]
    return isinstance(details, NoDetails | Facts)


def stock_policy(
    *,
    team: str,
    security: str = "",
    rp_id: str,
    origin: str,
    keys: tuple[str, ...] = (),
    people: int = 5,
) -> str:
    """Return the text of a first policy: a rule for every operation.

    Args:
        team: Team of everybody who may approve.
        security: Team that must be among the approvers of what weakens, and that may break the
            glass (empty: there is no break-glass).
        rp_id: Where passkeys are used.
        origin: The approval page's origin.
        people: How many can approve. The requester never does, so a rule asks for one fewer at
            most, and an operation that can't do with so few gets no rule.
        keys: Kinds of key that may approve (none: what the rules have by themselves).
    """
    lines = ["version = 1", f'rp_id = "{rp_id}"', f'origins = ["{origin}"]', ""]
    for row in OPERATIONS.values():
        if row.least < people:
            few = msgspec.structs.replace(row, stock=min(row.stock, people - 1))
            lines += ["[[rule]]", *_rule(few, team, security, keys), ""]
    return "\n".join(lines)


def _rule(row: OperationRow, team: str, security: str, keys: tuple[str, ...]) -> Iterator[str]:
    yield f'operation = "{row.name}"'
    guarded = security and row.stock > 1 and not row.governs
    count = row.stock - 1 if guarded else row.stock
    places = [f'{{ team = "{team}", count = {count} }}']
    if guarded:
        places.append(f'{{ team = "{security}", count = 1 }}')
    yield f"thresholds = [{', '.join(places)}]"
    yield f"max_duration_s = {row.longest_s}"
    if row.bytes:
        yield f"max_byte_budget = {row.bytes}"
    if row.uses > 1:
        yield f"max_uses = {row.uses}"
    if keys:
        yield "keys = [" + ", ".join(f'"{one}"' for one in keys) + "]"
    if row.alone and security:
        yield f'break_glass = {{ team = "{security}", max_duration_s = 3600 }}'
