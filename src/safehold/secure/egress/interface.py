"""The values, seams and errors of egress control.

EgressError (safehold.errors)
├── RegisterError      the flow register must be corrected
├── BudgetError        the plan breaks its bound, or can't be compiled
├── KernelError        the kernel refused, or lacks, what a rule needs
├── StateError         the enforcement state can't be read, or contradicts the kernel
└── ExplainedRowError  a row of explained bytes is false, replayed or malformed
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Protocol

import msgspec

from safehold.errors import EgressError, TrustError


class RegisterError(EgressError):
    """Correct the flow register at the row named in the message."""


class BudgetError(EgressError):
    """Cut the flows named in the message, or change the bound."""


class KernelError(EgressError):
    """Look at the host: the kernel refused a rule or lacks a feature."""


class StateError(EgressError):
    """Look at the enforcement state named in the message before anything leaves."""


class ExplainedRowError(EgressError):
    """Find out who wrote this row: it is false, replayed or malformed."""


class Window(StrEnum):
    """A length of time that a byte budget covers; every window slides."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    @property
    def seconds(self) -> int:
        """How long the window is; a month is 30 days."""
        return {"hour": 3_600, "day": 86_400, "week": 604_800, "month": 2_592_000}[self.value]


class Wire(StrEnum):
    """The protocol of a flow as the register names it."""

    TCP = "tcp"
    UDP = "udp"
    QUIC = "quic"
    DNS = "dns"
    ICMP = "icmp"
    ICMPV6 = "icmpv6"


REPEAT_SHARE = 0.125
"""What TCP sent again on one connection is taken off up to this share of what it sent first.

A process can change bytes that it lent to the kernel (MSG_ZEROCOPY, sendfile) before they are sent
again, so each unexplained byte may bring so many more unseen: the residual line is as much lower.
"""


class Direction(StrEnum):
    """Who opened the connection: this host (`out`) or a client of it (`serve`)."""

    OUT = "out"
    SERVE = "serve"


class EgressMode(StrEnum):
    """What happens to a byte no row declares: recorded (`map`) or dropped (`enforce`)."""

    MAP = "map"
    ENFORCE = "enforce"


class Tuple5(msgspec.Struct, frozen=True):
    """One observed or imagined flow of packets leaving.

    `port` is the remote port of an `out` flow and the local port of a `serve` flow; 0 for ICMP.
    """

    protocol: str
    destination: str
    port: int
    direction: Direction = Direction.OUT
    uid: int | None = None
    user: str = ""
    interface: str = ""
    source: str = ""
    cgroup: str = ""


class Authorization(msgspec.Struct, frozen=True):
    """Proof that two persons granted one exact operation: the grant's id and its log position."""

    grant_id: str
    log_index: int = -1


class Authorizer(Protocol):
    """Says whether one exact operation on one exact resource is granted now."""

    def require(self, operation: str, resource: str) -> Authorization:
        """Return the live grant, or raise TrustError when there is none."""
        ...


class AuditLog(Protocol):
    """An append-only log that outlives the process."""

    def append(self, kind: str, body: Mapping[str, object]) -> int:
        """Make the event durable before returning its index."""
        ...

    def events(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        """Yield every event's kind and body, oldest first; nothing if it can't be read back."""
        ...


class WeightGrants(Protocol):
    """The live grants on weights, as far as an alarm must end them."""

    def revoke_all(self, reason: str) -> int:
        """Revoke every live weight grant; return how many there were."""
        ...


class RefuseAll:
    """The authorizer of a host without two-party trust configured: nothing is ever granted."""

    def require(self, operation: str, resource: str) -> Authorization:
        """Refuse."""
        raise TrustError(
            f"{operation} on {resource} needs a two-party grant; no trust store is configured"
        )


class NoWeightGrants:
    """A host that holds no weight grants."""

    def revoke_all(self, reason: str) -> int:
        """Nothing to revoke."""
        del reason
        return 0
