"""Requests, approvals, the policy and the decision: the values of two-party authorization."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import msgspec

from safehold.canonical import MAX_INTEGER, canonical, sha256_hex
from safehold.errors import TrustError
from safehold.trust.clock import CORRECT
from safehold.trust.grants.details import Details, NoDetails
from safehold.trust.people.interface import KeyKind, Label, PersonId, Proof, RelyingParty, TeamId
from safehold.trust.text import Line

Seconds = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Operation = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z][a-z-]{0,19}\.[a-z][a-z-]{0,29}\Z", max_length=50)
]


class GrantError(TrustError):
    """Make the request again: it is not one that can be decided."""


class PolicyError(TrustError):
    """Correct the policy file at the place named in the message."""


class RefusedError(TrustError):
    """Obtain what the reason names; nothing was granted."""


class Resource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be touched: a kind, a name, a version, and which parts of it.

    `parts` are shard or tensor names; `("*",)` says all of them. It is never empty.
    """

    kind: Label
    name: Line
    version: Line
    parts: Annotated[tuple[Line, ...], msgspec.Meta(min_length=1, max_length=1000)]


class GrantRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request; its canonical JSON is what every approver signs. Times are POSIX seconds."""

    enclave: Sha256
    """Digest of the founding: what is signed for one enclave is worth nothing in another."""
    requester: PersonId
    purpose: Line
    ticket: Line
    operation: Operation
    resource: Resource
    host: Line
    """Name of the one host where the grant may be used."""
    workload_sha256: Sha256
    """Digest of the program, image or change that will run."""
    byte_budget: Count
    uses: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    not_before: Seconds
    expires: Seconds
    nonce: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    policy_version: Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]
    policy_sha256: Sha256
    break_glass: bool = False
    details: Details = msgspec.field(default_factory=NoDetails)

    @property
    def sha256(self) -> str:
        """The request's id: SHA-256 of its canonical JSON."""
        return sha256_hex(canonical(self))


class SignedRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request and its requester's signature, so that none is filed in another's name."""

    request: GrantRequest
    proof: Proof


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One person's signature over exactly one request, and when the log took it."""

    request_sha256: Sha256
    time: Seconds
    proof: Proof


class Quorum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`count` distinct persons of one team, nested teams included."""

    team: TeamId
    count: Annotated[int, msgspec.Meta(ge=1, le=100)]


class BreakGlass(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One person alone, in need: who may, for how long, and what must follow."""

    team: TeamId
    max_duration_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)]
    reviews: Annotated[int, msgspec.Meta(ge=2, le=10)] = 2
    review_within_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 86_400
    max_per_week: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1


class GrantRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who must approve one operation, how, and how far a grant of it may reach."""

    operation: Operation
    thresholds: Annotated[tuple[Quorum, ...], msgspec.Meta(min_length=1)]
    max_duration_s: Annotated[int, msgspec.Meta(ge=1, le=400 * 86_400)]
    approval_ttl_s: Annotated[int, msgspec.Meta(ge=1, le=14 * 86_400)] = 86_400
    """How old an approval may be when the grant is used for the first time and after."""
    max_byte_budget: Count = 0
    max_uses: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    keys: tuple[KeyKind, ...] = (KeyKind.PASSKEY, KeyKind.SSH_SK)
    """Which kinds of key may sign an approval."""
    break_glass: BreakGlass | None = None


class Policy(msgspec.Struct, frozen=True):
    """A checked policy file. `sha256` is of its exact bytes."""

    version: int
    sha256: str
    relying_party: RelyingParty
    rules: tuple[GrantRule, ...]
    cedar: str
    """Cedar policies that must also permit (empty: none)."""

    def rule(self, operation: str) -> GrantRule | None:
        """Return the one rule of the operation, or None: then it is refused."""
        found = next((rule for rule in self.rules if rule.operation == operation), None)
        if found is None and operation == CORRECT:
            # A policy of before the need arose: whoever may change the policy may do this too.
            governing = self.rule("policy.change")
            return None if governing is None else _for(CORRECT, governing)
        return found


def _for(operation: str, rule: GrantRule) -> GrantRule:
    return msgspec.structs.replace(rule, operation=operation)


class LogView(msgspec.Struct, frozen=True):
    """What the log already says of one request; the decision is taken against it."""

    last_time: int
    """Time of the newest leaf: no honest clock is before it."""
    policy_version: int
    policy_sha256: str
    """The newest policy that the log has accepted."""
    founding_sha256: str
    """Digest of the founding of this log."""
    requested_at: int | None = None
    """When this exact request was logged; None: it never was."""
    denied: bool = False
    revoked: bool = False
    ended: bool = False
    uses: int = 0
    counters: Mapping[str, int] = msgspec.field(default_factory=dict)
    """For each key id: the authenticator counter seen before its approval of this request."""
    break_glass_recent: int = 0
    """Break-glass grants of the last seven days, of everybody."""
    reviews_overdue: int = 0
    """Break-glass grants whose reviews are late."""


class Reason(StrEnum):
    """Why a request is refused; each is one numbered step of `evaluate`."""

    CLOCK = "clock"
    NOT_LOGGED = "not-logged"
    POLICY_VERSION = "policy-version"
    ENCLAVE = "enclave"
    NO_RULE = "no-rule"
    DETAILS = "details"
    REQUESTER = "requester"
    REQUEST_SIGNATURE = "request-signature"
    WINDOW = "window"
    SCOPE = "scope"
    CLOSED = "closed"
    SPENT = "spent"
    BREAK_GLASS = "break-glass"
    APPROVAL_OF_OTHER_REQUEST = "approval-of-other-request"
    APPROVAL_SIGNATURE = "approval-signature"
    APPROVAL_AGE = "approval-age"
    APPROVER = "approver"
    APPROVER_IS_REQUESTER = "approver-is-requester"
    CONFLICT = "conflict"
    KEY_KIND = "key-kind"
    COUNTER = "counter"
    NO_APPROVAL = "no-approval"
    QUORUM = "quorum"
    CEDAR = "cedar"


class Granted(msgspec.Struct, frozen=True):
    """The request holds now: its id, who carried it, and until when (POSIX seconds)."""

    request_sha256: str
    approvers: tuple[str, ...]
    expires: int
    uses_left: int
    break_glass: bool = False


class Refused(msgspec.Struct, frozen=True):
    """The request does not hold now. `detail` is for the operator's eyes."""

    reason: Reason
    detail: str


Decision = Granted | Refused


def short(request_sha256: str) -> str:
    """Return the part of a request's id that people read aloud."""
    return request_sha256[:12]


DIGEST = re.compile(r"[0-9a-f]{64}")
