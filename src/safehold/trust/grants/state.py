"""The state of trust, rebuilt from the log alone: every leaf is judged again by whoever reads.

A leaf that the rules do not allow (a forged approval, a use without quorum) has no effect and is
listed as void, whoever appended it. So the service that writes the log is not trusted to decide.
"""

from collections.abc import Callable
from typing import Any, assert_never

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.errors import TrustError
from safehold.trust.clock import CORRECT, SKEW_S
from safehold.trust.exemptions.interface import Exemption, ExemptionTerms
from safehold.trust.grants.cases import Case, Cases
from safehold.trust.grants.changes import apply_details, check_roster
from safehold.trust.grants.details import CorrectClock
from safehold.trust.grants.evaluate import evaluate
from safehold.trust.grants.events import (
    Alarm,
    Approved,
    BrokeGlass,
    DecisionNote,
    Denied,
    Ended,
    Event,
    Founded,
    GrantIssued,
    RefusedUse,
    Released,
    Requested,
    Reviewed,
    Revoked,
    Used,
)
from safehold.trust.grants.holding import check_held
from safehold.trust.grants.interface import (
    Approval,
    Decision,
    Granted,
    GrantError,
    GrantRequest,
    LogView,
    Policy,
    Refused,
    short,
)
from safehold.trust.grants.policy import check_achievable, check_governing, load_policy
from safehold.trust.people.interface import (
    EMPTY_ROSTER,
    Kind,
    Person,
    Proof,
    Roster,
    SignatureError,
    Verified,
)
from safehold.trust.people.proofs import verify_proof
from safehold.trust.people.statement import Act
from safehold.trust.release.interface import LoggedRelease, LogHead, PublishRelease

_PREFIX = 8
"""The shortest beginning of a request's id that names it."""

WEEK_S = 7 * 86_400
MIN_FOUNDERS = 2
# What takes away or bears witness: it counts whatever the clock of its writer says.
_AT_ANY_TIME = (Denied, Revoked, Ended, RefusedUse, Alarm)


Effect = Callable[[], None]


class Void(msgspec.Struct, frozen=True):
    """A leaf without effect, and why."""

    index: int
    reason: str


class _Members(msgspec.Struct, frozen=True):
    """What a state has beside its cases."""

    founding_sha256: str
    roster: Roster
    last_time: int
    newest: int
    voids: list[Void]
    alarms: list[tuple[str, str]]
    policy: Policy | None
    counters: dict[str, int]
    broken: list[str]


class TrustState:
    """People, policy and grants as of the newest leaf."""

    def __init__(self, origin: str, founding_sha256: str = "") -> None:
        """Begin before the first leaf.

        Args:
            origin: The log's origin: a founding of another log is void here.
            founding_sha256: The pinned digest of the founding (empty: the first valid one counts).
        """
        self.origin = origin
        self.founding_pin = founding_sha256
        self.founding_sha256 = ""
        """Digest of the founding in force (empty: there is none yet)."""
        self.roster: Roster = EMPTY_ROSTER
        self.last_time = 0
        """The log's time: of the newest leaf about trust, unless it was corrected."""
        self.newest = 0
        """Time of the newest leaf of any kind."""
        self.cases = Cases()
        self.voids: list[Void] = []
        self.alarms: set[tuple[str, str]] = set()
        self._policy: Policy | None = None
        self._counters: dict[str, int] = {}
        self._broken: dict[str, None] = {}

    def members(self) -> dict[str, Any]:
        """Return everything beside the cases, for a snapshot."""
        found: dict[str, Any] = msgspec.to_builtins(
            _Members(
                founding_sha256=self.founding_sha256,
                roster=self.roster,
                last_time=self.last_time,
                newest=self.newest,
                voids=self.voids,
                alarms=sorted(self.alarms),
                policy=self._policy,
                counters=self._counters,
                broken=list(self._broken),
            )
        )
        return found

    @classmethod
    def of_members(cls, origin: str, pin: str, members: dict[str, Any]) -> "TrustState":
        """Return the state that `members` was of, without its cases."""
        kept = msgspec.convert(members, _Members)
        state = cls(origin, pin)
        state.founding_sha256, state.roster = kept.founding_sha256, kept.roster
        state.last_time, state.newest = kept.last_time, kept.newest
        state.voids, state.alarms = kept.voids, set(kept.alarms)
        state._policy, state._counters = kept.policy, kept.counters
        state._broken = dict.fromkeys(kept.broken)
        return state

    @property
    def policy(self) -> Policy:
        """The policy in force.

        Raises:
            GrantError: the log has no founding yet.
        """
        if self._policy is None:
            raise GrantError("expected a log that was founded: run `safehold people found`")
        return self._policy

    # ---- asking --------------------------------------------------------------------------

    def case(self, request: str) -> Case:
        """Return the case of a request's full SHA-256, or of a unique beginning (8 or more).

        Raises:
            GrantError: none, or several.
        """
        if request in self.cases:
            return self.cases[request]
        found = [one for one in self.cases if len(request) >= _PREFIX and one.startswith(request)]
        if len(found) != 1:
            raise GrantError(
                "expected the id of one request, or its first 8 characters or more, "
                f"got {request[:64]!r}"
            )
        return self.cases[found[0]]

    def view(self, request: str, now: int, *, breaking_at: int | None = None) -> LogView:
        """Return what the log says of one request (full SHA-256), for `evaluate`.

        Args:
            request: The request.
            now: POSIX seconds that are judged.
            breaking_at: When the glass is being broken, if it is only now.
        """
        broken = [self.cases[digest] for digest in self._broken if digest != request]
        case = self.cases.get(request)
        mine = case.broken_at if case is not None and case.broken_at is not None else breaking_at
        view = LogView(
            last_time=self.last_time,
            policy_version=self.policy.version,
            policy_sha256=self.policy.sha256,
            founding_sha256=self.founding_sha256,
            break_glass_recent=sum(1 for one in broken if _is_recent(one, now, mine)),
            reviews_overdue=sum(1 for one in broken if _is_overdue(one, now)),
        )
        if case is None:
            return view
        return msgspec.structs.replace(
            view,
            requested_at=case.requested_at,
            denied=case.denied,
            revoked=case.revoked,
            ended=case.ended,
            uses=case.uses,
            counters=dict(case.counters),
        )

    def sign_count(self, key_id: str) -> int:
        """Return the highest counter that a key showed in the log; 0 where it keeps none."""
        return self._counters.get(key_id, 0)

    def decide(self, request: str, now: int) -> Decision:
        """Evaluate a request (full SHA-256) at `now`, with everything the log says."""
        case = self.case(request)
        return evaluate(
            case.signed,
            tuple(case.approvals),
            self.roster,
            self.policy,
            now,
            self.view(case.signed.request.sha256, now),
        )

    def decide_breaking(self, request: str, proof: Proof, now: int) -> Decision:
        """Evaluate a break-glass request as if its requester's proof were in the log already."""
        case = self.case(request)
        digest = case.signed.request.sha256
        approval = Approval(request_sha256=digest, time=now, proof=proof)
        floor = {proof.key_id: self._counters.get(proof.key_id, 0)}
        view = self.view(digest, now, breaking_at=self.last_time)
        view = msgspec.structs.replace(view, counters=floor)
        return evaluate(case.signed, (approval,), self.roster, self.policy, now, view)

    def overdue_reviews(self, now: int) -> tuple[str, ...]:
        """Return the break-glass requests whose reviews are late."""
        return tuple(digest for digest in self._broken if _is_overdue(self.cases[digest], now))

    def exemptions(self) -> tuple[Exemption, ...]:
        """Return every exemption that took effect; `ended` ones are listed too.

        One ends when it is revoked, and as soon as it would not be granted today: judged again
        with the people, keys, teams and rules of now (only the number of the policy may differ).
        """
        return tuple(
            Exemption(
                grant=digest,
                terms=case.exemption,
                not_before=case.signed.request.not_before,
                expires=case.signed.request.expires,
                ended=case.closed or not self._would_hold(digest, case),
            )
            for digest, case in self.cases.live()
            if case.exemption is not None
        )

    def head(self, size: int) -> LogHead:
        """Return what the log of `size` leaves says of releases, for a `ReleaseSet`."""
        return LogHead(
            origin=self.origin,
            size=size,
            last_time=max(self.last_time, self.newest),
            releases=tuple(
                LoggedRelease(
                    request=digest,
                    operation=case.signed.request.operation,
                    host=case.signed.request.host,
                    details=case.signed.request.details,
                    used_at=case.used_at,
                    ended=case.closed,
                )
                for digest, case in self.cases.live()
                if isinstance(case.signed.request.details, PublishRelease)
                and case.used_at is not None
            ),
            reviews_overdue=len(self.overdue_reviews(self.last_time)),
        )

    def _would_hold(self, digest: str, case: Case) -> bool:
        """Tell whether what took effect once would be granted under people and rules of now."""
        request = case.signed.request
        now = min(max(self.last_time, request.not_before), request.expires - 1)
        policy = msgspec.structs.replace(
            self.policy, version=request.policy_version, sha256=request.policy_sha256
        )
        view = msgspec.structs.replace(
            self.view(digest, now),
            last_time=now,
            uses=0,
            policy_version=policy.version,
            policy_sha256=policy.sha256,
        )
        decision = evaluate(case.signed, tuple(case.approvals), self.roster, policy, now, view)
        return isinstance(decision, Granted)

    # ---- growing -------------------------------------------------------------------------

    def apply(self, index: int, event: Event) -> bool:
        """Take one leaf in; return False if it is void (it has no effect then)."""
        try:
            effect = self.plan(event)
        except TrustError as error:
            self.voids.append(Void(index=index, reason=str(error)))
            return False
        effect()
        return True

    def void(self, index: int, reason: str) -> None:
        """Take note of an entry that is no leaf; it has no effect."""
        self.voids.append(Void(index=index, reason=reason))

    def observe(self, time: int) -> None:
        """Take note of the time of a leaf that is not about trust."""
        self.newest = max(self.newest, time)

    def plan(self, event: Event) -> Effect:
        """Judge a leaf without taking it in; return what would.

        Raises:
            TrustError: the leaf would be void; the message says why.
        """
        corrects = self._corrects_clock(event)
        if not corrects and event.time < self.last_time:
            behind = self.last_time - event.time
            if behind > SKEW_S and not isinstance(event, _AT_ANY_TIME):
                raise GrantError(
                    f"the clock is behind the log's newest leaf by {behind} s: set this clock, or "
                    "have the log's time corrected (`safehold grant correct-clock`)"
                )
            event = msgspec.structs.replace(event, time=self.last_time)
        if self._policy is None and not isinstance(event, Founded):
            raise GrantError("expected the founding to be the first leaf about people")
        effect = self._plan(event)

        def take() -> None:
            effect()
            if not corrects:
                self.last_time = event.time
                self.observe(event.time)

        return take

    def _corrects_clock(self, event: Event) -> bool:
        """Tell whether the leaf is a step of an act that sets the log's time back."""
        if isinstance(event, Requested):
            return event.signed.request.operation == CORRECT
        if isinstance(event, Approved | GrantIssued | Used):
            case = self.cases.get(event.request)
            return case is not None and case.signed.request.operation == CORRECT
        return False

    def _plan(self, event: Event) -> Effect:
        match event:
            case Founded():
                return self._plan_founding(event)
            case Requested():
                return self._plan_request(event)
            case Approved():
                return self._plan_approval(event)
            case Denied():
                return self._plan_closing(event.note, event.proof, Act.DENY, "denied")
            case Revoked():
                return self._plan_closing(event.note, event.proof, Act.REVOKE, "revoked")
            case Ended():
                return self._plan_end(event)
            case Used():
                return self._plan_use(event)
            case Released():
                return self._plan_release(event)
            case BrokeGlass():
                return self._plan_break_glass(event)
            case Reviewed():
                return self._plan_review(event)
            case GrantIssued() | RefusedUse():
                self._known(event.request)
                return _nothing
            case Alarm():
                return lambda: self.alarms.add((event.subject, event.detail))
            case _:
                assert_never(event)

    def _plan_founding(self, event: Founded) -> Effect:
        founding = event.founding
        # 1. Once, and first.
        if self._policy is not None:
            raise GrantError("the log is founded already")
        if founding.origin != self.origin:
            raise GrantError(f"expected the founding of {self.origin}, got another log's")
        if self.founding_pin not in {"", sha256_hex(canonical(founding))}:
            raise GrantError("expected the founding whose digest is pinned, got another")
        # 2. A sound roster, and a policy that these people can fulfil.
        check_roster(founding.roster)
        policy = load_policy(founding.policy_text)
        check_governing(policy)
        check_achievable(policy, founding.roster)
        # 3. Every key of it has signed exactly this (so each is in its owner's hands), and there
        # are at least two humans.
        signers = [
            verify_proof(
                founding.roster, Act.FOUND, founding, proof, relying_party=policy.relying_party
            )
            for proof in event.proofs
        ]
        signed = {one.key.key_id for one in signers}
        persons = founding.roster.persons
        humans = sum(1 for one in persons if one.kind is Kind.HUMAN)
        silent = [
            f"{one.name} (key {key.key_id})"
            for one in persons
            for key in one.keys
            if key.key_id not in signed
        ]
        if silent or humans < MIN_FOUNDERS:
            raise GrantError(
                f"expected the signatures of all founders, by each key of the founding, and at "
                f"least {MIN_FOUNDERS} humans; lacking: {', '.join(silent) or 'another human'}"
            )

        def take() -> None:
            for one in signers:
                self._count(one)
            self.roster, self._policy = founding.roster, policy
            self.founding_sha256 = sha256_hex(canonical(founding))

        return take

    def _plan_request(self, event: Requested) -> Effect:
        request = event.signed.request
        digest = request.sha256
        if digest in self.cases:
            raise GrantError(f"request {short(digest)} is in the log already: a replay")
        if request.enclave != self.founding_sha256:
            raise GrantError(
                f"expected a request for the enclave {short(self.founding_sha256)}, "
                f"got one for {short(request.enclave)}"
            )
        signer = self._signer(Act.REQUEST, request, event.signed.proof)
        if signer.person.id != request.requester:
            raise SignatureError("the request is signed by somebody else than its requester")
        # A new key signs its own enrolment: it is in the hands of who is to be enrolled with it.
        held = check_held(request.enclave, request.details, self.policy.relying_party)

        def take() -> None:
            for key, count in held:
                self._counters[key.key_id] = max(self._counters.get(key.key_id, 0), count)
            case = Case(signed=event.signed, requested_at=event.time)
            self.cases.add(digest, case)
            self._count(signer)

        return take

    def _plan_approval(self, event: Approved) -> Effect:
        case = self._known(event.request)
        request = case.signed.request
        if request.break_glass:
            raise GrantError("a break-glass request is not approved but reviewed afterwards")
        if case.closed:
            raise GrantError(f"request {short(event.request)} is closed")
        signer = self._human(Act.APPROVE, request, event.proof)
        if signer.person.id == request.requester:
            raise GrantError("nobody approves their own request")
        stakes = _stakes(request)
        if signer.person.id in stakes:
            raise GrantError(f"{signer.person.name} has a declared stake in it: others approve")
        if signer.person.id in case.approvers and self._still_counts(case, signer.person, event):
            who = f"{signer.person.name} ({signer.person.id})"
            raise GrantError(f"{who} has approved already: persons count, not keys")
        approval = Approval(request_sha256=event.request, time=event.time, proof=event.proof)

        def take() -> None:
            case.approvals.append(approval)
            if signer.person.id not in case.approvers:
                case.approvers.append(signer.person.id)
            case.counters[signer.key.key_id] = self._counters.get(signer.key.key_id, 0)
            self._count(signer)

        return take

    def _still_counts(self, case: Case, person: Person, event: Approved) -> bool:
        """Tell whether an earlier approval of the person counts: by a key held, allowed, in time.

        One that does not (the key was removed, or is of a kind that the rule does not permit)
        keeps nobody from voting with a good key.
        """
        rule = self.policy.rule(case.signed.request.operation)
        kinds = frozenset() if rule is None else frozenset(rule.keys)
        good = {key.key_id for key in person.keys if key.kind in kinds}
        used = [approval.proof.key_id for approval in case.approvals]
        return event.proof.key_id in used or any(key in good for key in used)

    def _plan_closing(self, note: DecisionNote, proof: Proof, act: Act, how: str) -> Effect:
        case = self._known(note.request)
        signer = self._human(act, note, proof)

        def take() -> None:
            setattr(case, how, True)
            self._count(signer)

        return take

    def _plan_end(self, event: Ended) -> Effect:
        case = self._known(event.note.request)
        signer = None if event.proof is None else self._signer(Act.END, event.note, event.proof)
        if signer is not None and signer.person.id != case.signed.request.requester:
            raise GrantError("only the requester gives a grant back; others revoke it")

        def take() -> None:
            case.ended = True
            if signer is not None:
                self._count(signer)

        return take

    def _plan_use(self, event: Used) -> Effect:
        case = self._known(event.request)
        request = case.signed.request
        # 1. Where and by what: exactly as approved.
        if (event.host, event.workload_sha256) != (request.host, request.workload_sha256):
            raise GrantError("expected the host and workload of the request, got others")
        # 2. The request holds at this very moment.
        decision = self.decide(event.request, event.time)
        if isinstance(decision, Refused):
            raise GrantError(f"refused ({decision.reason.value}): {decision.detail}")
        # 3. Its effect is possible.
        roster, policy, exemption = apply_details(request, self.roster, self.policy)
        correction = self._correction(request.details)
        self._check_chain(request)
        self._check_renewal(request)

        def take() -> None:
            case.uses += 1
            case.used_at = event.time if case.used_at is None else case.used_at
            case.carried_by = decision.approvers
            case.exemption = exemption
            self.roster, self._policy = roster, policy
            if correction is not None:
                self.last_time = self.newest = correction
                self.cases.unpack()

        return take

    def _check_chain(self, request: GrantRequest) -> None:
        """Refuse a release that does not follow the one in force of its channel.

        So nobody approves a second release of one version, and no channel gets stuck with one.
        """
        details = request.details
        if not isinstance(details, PublishRelease):
            return
        if request.host != details.channel:
            raise GrantError(
                f"expected a grant for the host {details.channel}, got one for {request.host}"
            )
        before = [
            one.details for one in self.head(0).releases if one.details.channel == details.channel
        ]
        version = max((one.version for one in before), default=0)
        newest = next((one.release_sha256 for one in before if one.version == version), "")
        if (details.version, details.previous) != (version + 1, newest):
            raise GrantError(
                f"expected version {version + 1} of {details.channel} after "
                f"{short(newest) or 'none'}, got version {details.version}"
            )

    def _check_renewal(self, request: GrantRequest) -> None:
        """Refuse a renewal of what was never given, or of another subject's or use case's."""
        details = request.details
        if not isinstance(details, ExemptionTerms) or details.vetting.renewal is None:
            return
        before = self.cases.get(details.vetting.renewal.of)
        old = None if before is None else before.exemption
        if old is None or (old.subject, old.use_case) != (details.subject, details.use_case):
            raise GrantError("expected to renew an exemption of this subject and use case")

    def _correction(self, details: object) -> int | None:
        """Return the time that the log gets, if this is what the act does."""
        if not isinstance(details, CorrectClock):
            return None
        if not details.right < details.wrong <= self.last_time:
            raise GrantError(
                f"expected to set the log's time back from {self.last_time} or before, "
                f"got from {details.wrong} to {details.right}"
            )
        return details.right

    def _plan_release(self, event: Released) -> Effect:
        case = self._known(event.request)
        if case.closed or case.releases >= case.uses:
            raise GrantError("expected a use of an open grant before the release")
        if event.host != case.signed.request.host:
            raise GrantError("expected the host of the request, got another")

        def take() -> None:
            case.releases += 1

        return take

    def _plan_break_glass(self, event: BrokeGlass) -> Effect:
        case = self._known(event.request)
        request = case.signed.request
        rule = self.policy.rule(request.operation)
        if not request.break_glass or rule is None or rule.break_glass is None:
            raise GrantError("neither this request nor its rule is for break-glass")
        if case.broken_at is not None:
            raise GrantError("the glass of this request is broken already")
        allowed = rule.break_glass
        signer = self._human(Act.BREAK_GLASS, request, event.proof)
        if signer.person.id != request.requester:
            raise GrantError("only the requester breaks the glass")
        approval = Approval(request_sha256=event.request, time=event.time, proof=event.proof)

        def take() -> None:
            case.broken_at = event.time
            self._broken[event.request] = None
            case.reviews_due = allowed.reviews
            case.reviews_until = event.time + allowed.review_within_s
            case.approvals.append(approval)
            case.counters[signer.key.key_id] = self._counters.get(signer.key.key_id, 0)
            self._count(signer)

        return take

    def _plan_review(self, event: Reviewed) -> Effect:
        case = self._known(event.note.request)
        signer = self._human(Act.REVIEW, event.note, event.proof)
        person = signer.person.id
        if case.broken_at is None:
            raise GrantError("only a break-glass grant is reviewed")
        if person == case.signed.request.requester or person in case.reviewers:
            raise GrantError("expected a reviewer who is neither the requester nor counted yet")

        def take() -> None:
            case.reviewers.append(person)
            self._count(signer)

        return take

    # ---- shared --------------------------------------------------------------------------

    def _known(self, request: str) -> Case:
        if request not in self.cases:
            raise GrantError(f"expected a request of the log, got {short(request)}")
        return self.cases[request]

    def _signer(self, act: Act, document: object, proof: Proof) -> Verified:
        return verify_proof(
            self.roster,
            act,
            document,
            proof,
            relying_party=self.policy.relying_party,
            counter_floor=self._counters.get(proof.key_id, 0),
        )

    def _human(self, act: Act, document: object, proof: Proof) -> Verified:
        signer = self._signer(act, document, proof)
        if signer.person.kind is not Kind.HUMAN:
            raise GrantError("only a human can do this; agents and services never can")
        return signer

    def _count(self, signer: Verified) -> None:
        key = signer.key.key_id
        self._counters[key] = max(self._counters.get(key, 0), signer.sign_count)


def _stakes(request: GrantRequest) -> tuple[str, ...]:
    """Return the persons whose declared stake keeps them from approving."""
    details = request.details
    return details.vetting.conflicts if isinstance(details, ExemptionTerms) else ()


def _nothing() -> None:
    """Take nothing in."""


def _is_recent(case: Case, now: int, breaking_at: int | None) -> bool:
    """Tell whether a broken glass counts: it was broken, or its window is, within a week.

    Rarity is of breakings, so a window that lies days ahead hides none of them.
    """
    if case.broken_at is None:
        return False
    moments = (now,) if breaking_at is None else (now, breaking_at)
    return (
        any(case.broken_at > moment - WEEK_S for moment in moments)
        or case.signed.request.expires > now - WEEK_S
    )


def _is_overdue(case: Case, now: int) -> bool:
    return (
        case.broken_at is not None
        and now > case.reviews_until
        and len(case.reviewers) < case.reviews_due
    )


def names(roster: Roster, persons: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of persons, or their ids where they are no longer enrolled."""
    found: list[Person | None] = [roster.person(person) for person in persons]
    return tuple(
        one.name if one is not None else person for one, person in zip(found, persons, strict=True)
    )
