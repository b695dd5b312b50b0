"""The life of a grant as log leaves: one frozen value for each kind of event.

`time` is POSIX seconds, `request` the request's SHA-256.
"""

import msgspec

from safehold.trust.grants.interface import Seconds, Sha256, SignedRequest
from safehold.trust.people.interface import PersonId, Proof, Roster
from safehold.trust.text import Document, Line


class Founding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the founders sign: the enclave's name, its first people and its first policy."""

    origin: Line
    roster: Roster
    policy_text: Document


class Founded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="founded"):
    """The first leaf: the founding, signed by every founder (at least two persons)."""

    time: Seconds
    founding: Founding
    proofs: tuple[Proof, ...]


class Requested(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="request"):
    """Somebody asks."""

    time: Seconds
    signed: SignedRequest


class Approved(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="approval"):
    """A person approves exactly this request."""

    time: Seconds
    request: Sha256
    proof: Proof


class DecisionNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a denial, a revocation, an end or a review signs."""

    request: Sha256
    text: Line


class Denied(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="denial"):
    """A person refuses; the request is closed."""

    time: Seconds
    note: DecisionNote
    proof: Proof


class GrantIssued(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="grant"):
    """The quorum was reached. A notice: every use evaluates again."""

    time: Seconds
    request: Sha256
    approvers: tuple[PersonId, ...]
    expires: Seconds


class Used(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="use"):
    """The grant is about to be used (logged before it takes effect)."""

    time: Seconds
    request: Sha256
    host: Line
    workload_sha256: Sha256


class Released(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="release"):
    """The key service hands out a data key: for which sealed header, to which recipient."""

    time: Seconds
    request: Sha256
    host: Line
    header_sha256: Sha256
    recipient: Line


class Ended(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="end"):
    """The requester, or a service that watched the use, gives the grant back."""

    time: Seconds
    note: DecisionNote
    proof: Proof | None


class Revoked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="revocation"):
    """An enrolled person takes the grant away."""

    time: Seconds
    note: DecisionNote
    proof: Proof


class BrokeGlass(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="break-glass"):
    """One person alone; `paged` says who was told before it took effect."""

    time: Seconds
    request: Sha256
    proof: Proof
    paged: Line


class Reviewed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="review"):
    """Another person has looked at a break-glass grant afterwards."""

    time: Seconds
    note: DecisionNote
    proof: Proof


class RefusedUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="refusal"):
    """A use or release was asked for and refused."""

    time: Seconds
    request: Sha256
    reason: Line
    host: Line


class Alarm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="alarm"):
    """Something a person must look at: a seat overrun, an overdue review, an expiry near."""

    time: Seconds
    subject: Line
    kind: Line
    detail: Line


Event = (
    Founded
    | Requested
    | Approved
    | Denied
    | GrantIssued
    | Used
    | Released
    | Ended
    | Revoked
    | BrokeGlass
    | Reviewed
    | RefusedUse
    | Alarm
)
