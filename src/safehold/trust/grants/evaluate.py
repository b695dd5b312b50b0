"""The decision: one pure function from signed values to granted or refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from safehold.trust.clock import CORRECT, SKEW_S
from safehold.trust.exemptions.interface import ExemptionTerms
from safehold.trust.exemptions.vetting import APPROVERS
from safehold.trust.grants.cedar import cedar_permits
from safehold.trust.grants.interface import (
    Approval,
    BreakGlass,
    Decision,
    Granted,
    GrantRequest,
    GrantRule,
    LogView,
    Policy,
    Reason,
    Refused,
    SignedRequest,
)
from safehold.trust.grants.operations import details_fit
from safehold.trust.grants.quorum import assign
from safehold.trust.people.interface import Kind, Person, Proof, Roster, SignatureError, Verified
from safehold.trust.people.proofs import verify_proof
from safehold.trust.people.statement import Act

MAX_AHEAD_S = 14 * 86_400
"""How far after its request a grant may begin: who approves knows what the time will be like."""


@dataclass(frozen=True, slots=True)
class _Case:
    """Everything a step may look at."""

    signed: SignedRequest
    approvals: Sequence[Approval]
    roster: Roster
    policy: Policy
    now: int
    log: LogView

    @property
    def asked(self) -> GrantRequest:
        return self.signed.request

    @property
    def rule(self) -> GrantRule | None:
        return self.policy.rule(self.asked.operation)

    def verify(self, act: Act, proof: Proof, *, floor: int = 0) -> Verified:
        return verify_proof(
            self.roster,
            act,
            self.asked,
            proof,
            relying_party=self.policy.relying_party,
            counter_floor=floor,
        )


def evaluate(
    request: SignedRequest,
    approvals: Sequence[Approval],
    roster: Roster,
    policy: Policy,
    now: int,
    log: LogView,
) -> Decision:
    """Decide whether the request holds at `now` (POSIX seconds); no clock, no I/O.

    The steps, in this order, numbered alike in the code below:

    1. The clock is not before the log's newest leaf, by more than clocks may differ.
    2. The log has this exact request, and it was made for this enclave.
    3. The policy is the newest that the log accepted, and the one the request was made under.
    4. A rule names the operation, and the details are of the operation's own kind.
    5. The requester is enrolled and signed the request. Who asks for an exemption has vetted it:
       a human without a stake in it.
    6. Now is inside the request's window, and the window inside the rule's.
    7. Budget and uses are inside the rule's.
    8. Nobody denied, revoked or ended it, and a use is left.
    9. Approvals that count: of this request, in time, signed by a key that is enrolled now, of a
       permitted kind, of a human who is not the requester and has no declared stake.
    10. At least one counts, whatever the policy says.
    11. The persons (not keys) who approved fill every threshold; if a service or an agent asks,
       one human more approves, for its holder may be one of them. An exemption needs as many
       as its tier of vetting has.
    12. Cedar permits.

    A break-glass request replaces 9 to 11 by its own steps, B1 to B3.
    """
    case = _Case(request, approvals, roster, policy, _reconciled(now, request, log), log)
    for step in _STEPS:
        refused = step(case)
        if refused is not None:
            return refused
    asked, rule = case.asked, case.rule
    if rule is None:
        return Refused(Reason.NO_RULE, f"the policy has no rule for {asked.operation}")
    carried = _broken(case, rule) if asked.break_glass else _approved(case, rule)
    if isinstance(carried, Refused):
        return carried
    # 12. Cedar permits.
    if not cedar_permits(policy.cedar, asked, carried, roster, case.now):
        return Refused(Reason.CEDAR, "the Cedar policy does not permit it")
    return Granted(
        request_sha256=asked.sha256,
        approvers=carried,
        expires=asked.expires,
        uses_left=asked.uses - log.uses,
        break_glass=asked.break_glass,
    )


def _reconciled(now: int, signed: SignedRequest, log: LogView) -> int:
    """Return the time that is judged: a clock a little behind the log counts as the log's."""
    if signed.request.operation != CORRECT and now < log.last_time <= now + SKEW_S:
        return log.last_time
    return now


def _clock(case: _Case) -> Refused | None:
    # 1. The clock is not before the log's newest leaf; what corrects the log's time may be.
    if case.now < case.log.last_time and case.asked.operation != CORRECT:
        return Refused(
            Reason.CLOCK,
            f"the clock is behind the log's newest leaf by {case.log.last_time - case.now} s: "
            "set this clock, or have the log's time corrected (`safehold grant correct-clock`)",
        )
    return None


def _logged(case: _Case) -> Refused | None:
    # 2. The log has this exact request, and it was made for this enclave.
    if case.asked.enclave != case.log.founding_sha256:
        return Refused(Reason.ENCLAVE, "the request was made for another enclave")
    if case.log.requested_at is None or case.log.requested_at > case.now:
        return Refused(Reason.NOT_LOGGED, "the request is not in the log")
    return None


def _newest_policy(case: _Case) -> Refused | None:
    # 3. The policy is the newest that the log accepted, and the one the request was made under.
    policy, log, asked = case.policy, case.log, case.asked
    if (policy.version, policy.sha256) != (log.policy_version, log.policy_sha256):
        return Refused(Reason.POLICY_VERSION, "the policy is not the newest of the log")
    if (asked.policy_version, asked.policy_sha256) != (policy.version, policy.sha256):
        return Refused(
            Reason.POLICY_VERSION,
            f"the request was made under policy {asked.policy_version}, now it is {policy.version}",
        )
    return None


def _named(case: _Case) -> Refused | None:
    # 4. A rule names the operation, and the details are of the operation's own kind.
    if case.rule is None:
        return Refused(Reason.NO_RULE, f"the policy has no rule for {case.asked.operation}")
    if not details_fit(case.asked.operation, case.asked.details):
        return Refused(Reason.DETAILS, f"{case.asked.operation} takes other details")
    return None


def _requester(case: _Case) -> Refused | None:
    # 5. The requester is enrolled and signed the request.
    if case.roster.person(case.asked.requester) is None:
        return Refused(Reason.REQUESTER, "the requester is not enrolled")
    try:
        signer = case.verify(Act.REQUEST, case.signed.proof)
    except SignatureError as error:
        return Refused(Reason.REQUEST_SIGNATURE, str(error))
    if signer.person.id != case.asked.requester:
        return Refused(Reason.REQUEST_SIGNATURE, "the request is signed by somebody else")
    # 5a. Who asks for an exemption has vetted it: a human without a stake in it.
    if isinstance(case.asked.details, ExemptionTerms):
        if signer.person.kind is not Kind.HUMAN:
            return Refused(Reason.REQUESTER, "only a human vets an exemption")
        if signer.person.id in case.asked.details.vetting.conflicts:
            return Refused(Reason.CONFLICT, "the reviewer has a declared stake in it")
    return None


def _window(case: _Case) -> Refused | None:
    # 6. Now is inside the request's window, and the window inside the rule's.
    asked, rule = case.asked, case.rule
    problem = None
    if rule is None or asked.not_before >= asked.expires:
        problem = "the request expires before it begins"
    elif asked.expires - asked.not_before > rule.max_duration_s:
        problem = f"expected at most {rule.max_duration_s} s of duration"
    elif asked.not_before > (case.log.requested_at or 0) + MAX_AHEAD_S:
        problem = f"expected to begin within {MAX_AHEAD_S} s of the request"
    elif case.now < asked.not_before:
        problem = "the grant has not begun"
    elif case.now >= asked.expires:
        problem = "the grant has expired"
    return None if problem is None else Refused(Reason.WINDOW, problem)


def _scope(case: _Case) -> Refused | None:
    # 7. Budget and uses are inside the rule's.
    asked, rule = case.asked, case.rule
    if rule is None or asked.byte_budget > rule.max_byte_budget:
        return Refused(Reason.SCOPE, "the byte budget is beyond the rule's")
    if asked.uses > rule.max_uses:
        return Refused(Reason.SCOPE, f"expected at most {rule.max_uses} uses")
    return None


def _open(case: _Case) -> Refused | None:
    # 8. Nobody denied, revoked or ended it, and a use is left.
    log = case.log
    if log.denied or log.revoked or log.ended:
        how = "denied" if log.denied else "revoked" if log.revoked else "ended"
        return Refused(Reason.CLOSED, f"the request was {how}")
    if log.uses >= case.asked.uses:
        return Refused(Reason.SPENT, f"all {case.asked.uses} uses are spent")
    return None


_STEPS: tuple[Callable[[_Case], Refused | None], ...] = (
    _clock,
    _logged,
    _newest_policy,
    _named,
    _requester,
    _window,
    _scope,
    _open,
)


def _approved(case: _Case, rule: GrantRule) -> tuple[str, ...] | Refused:
    # 9. Approvals that count.
    counted: dict[str, Person] = {}
    defects: list[Refused] = []
    for approval in case.approvals:
        judged = _approval(case, rule, approval)
        if isinstance(judged, Refused):
            defects.append(judged)
        else:
            counted[judged.id] = judged
    # 10. At least one counts, whatever the policy says.
    if not counted:
        return defects[0] if defects else Refused(Reason.NO_APPROVAL, "nobody has approved")
    # 11. The persons (not keys) who approved fill every threshold.
    teams = {person.id: case.roster.teams_of(person) for person in counted.values()}
    carried = assign(rule.thresholds, teams)
    if carried is None:
        return defects[0] if defects else Refused(Reason.QUORUM, _missing(rule, len(counted)))
    # 11a. Whoever holds a service's key is a human too: one more than the rule has.
    requester = case.roster.person(case.asked.requester)
    if requester is None or requester.kind is not Kind.HUMAN:
        further = sorted(set(counted) - set(carried))
        if not further:
            return Refused(
                Reason.QUORUM,
                f"a service or agent asks: one human more than the rule, got {len(counted)}",
            )
        carried = tuple(sorted((*carried, further[0])))
    # 11b. An exemption needs as many as its tier of vetting has.
    if isinstance(case.asked.details, ExemptionTerms):
        tier = case.asked.details.vetting.tier
        if len(counted) < APPROVERS[tier]:
            return Refused(
                Reason.QUORUM,
                f"expected {APPROVERS[tier]} approvals for tier {tier.value}, got {len(counted)}",
            )
        carried = tuple(sorted(counted))
    return carried


def _approval(case: _Case, rule: GrantRule, approval: Approval) -> Person | Refused:
    # 9a. It says that it is about this request (9c proves it).
    if approval.request_sha256 != case.asked.sha256:
        return Refused(Reason.APPROVAL_OF_OTHER_REQUEST, "an approval of another request")
    # 9b. It was made after the request, within the rule's time, and not in the future.
    made = case.now if case.log.requested_at is None else case.log.requested_at
    if not made <= approval.time <= min(case.now, made + rule.approval_ttl_s):
        return Refused(Reason.APPROVAL_AGE, "an approval from outside the time for approvals")
    # 9c. It is signed, over exactly this request, by a key that is enrolled now.
    floor = case.log.counters.get(approval.proof.key_id, 0)
    try:
        signer = case.verify(Act.APPROVE, approval.proof, floor=floor)
    except SignatureError as error:
        return Refused(Reason.APPROVAL_SIGNATURE, str(error))
    # 9d. The key is of a kind that the rule permits.
    if signer.key.kind not in rule.keys:
        return Refused(Reason.KEY_KIND, f"{signer.key.kind.value} keys may not approve this")
    # 9e. A human, who is not the requester.
    return _eligible(case, signer.person)


def _eligible(case: _Case, person: Person) -> Person | Refused:
    if person.kind is not Kind.HUMAN:
        return Refused(Reason.APPROVER, "only a human can approve")
    if person.id == case.asked.requester:
        return Refused(Reason.APPROVER_IS_REQUESTER, "nobody approves their own request")
    details = case.asked.details
    if isinstance(details, ExemptionTerms) and person.id in details.vetting.conflicts:
        return Refused(Reason.CONFLICT, "an approver has a declared stake in it")
    return person


def _broken(case: _Case, rule: GrantRule) -> tuple[str, ...] | Refused:
    allowed = rule.break_glass
    person = case.roster.person(case.asked.requester)
    # B1. The rule has break-glass, and the requester is a human of its team.
    if (
        allowed is None
        or person is None
        or person.kind is not Kind.HUMAN
        or allowed.team not in case.roster.teams_of(person)
    ):
        return Refused(Reason.BREAK_GLASS, "the rule gives this person no break-glass")
    refused = _rare(case, allowed)
    if refused is not None:
        return refused
    # B3. The requester signed the breaking itself, over exactly this request.
    for approval in case.approvals:
        floor = case.log.counters.get(approval.proof.key_id, 0)
        if approval.request_sha256 != case.asked.sha256 or approval.time > case.now:
            continue
        try:
            signer = case.verify(Act.BREAK_GLASS, approval.proof, floor=floor)
        except SignatureError:
            continue
        if signer.person.id == person.id and signer.key.kind in rule.keys:
            return (person.id,)
    return Refused(Reason.NO_APPROVAL, "the requester has not signed the breaking")


def _rare(case: _Case, allowed: BreakGlass) -> Refused | None:
    # B2. It is short, rare, and no earlier one waits for its reviews.
    if case.asked.expires - case.asked.not_before > allowed.max_duration_s:
        return Refused(Reason.BREAK_GLASS, f"expected at most {allowed.max_duration_s} s")
    asked_at = case.now if case.log.requested_at is None else case.log.requested_at
    if case.asked.not_before > asked_at + allowed.max_duration_s:
        return Refused(Reason.BREAK_GLASS, "a need begins now, not in the days to come")
    if case.log.break_glass_recent >= allowed.max_per_week:
        return Refused(Reason.BREAK_GLASS, f"expected at most {allowed.max_per_week} a week")
    if case.log.reviews_overdue:
        return Refused(Reason.BREAK_GLASS, "an earlier break-glass grant lacks its reviews")
    return None


def _missing(rule: GrantRule, count: int) -> str:
    wanted = " and ".join(f"{one.count} of {one.team}" for one in rule.thresholds)
    return f"expected {wanted}, got {count} person(s) who count"
