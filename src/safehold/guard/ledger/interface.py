"""The ledger's rows, its one-method seam and its settings.

What a client may receive is in the ledger first:

1. `PromptRow` is durable before the first byte of a reply is released.
2. `ProgressRow` (optional) is durable before the text that it holds is released, so that even a
   killed process leaves a record of everything it delivered.
3. `FinalRow` is durable before the stream ends.
4. `EventRow` records what happened around exchanges: a bypass, a bundle swap, a canary, an alarm.

A row's order is its sequence number, given by the storage; clocks are only shown, never trusted.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

import msgspec

from safehold.exchange import Exchange, Lane
from safehold.guard.interface import DeliveryMode, Stage

Detail = Mapping[str, str | int | float | bool | None]
"""What an event tells beside its kind: names, digests and numbers, never content."""


class Outcome(StrEnum):
    """How an exchange ended; five, never two."""

    COMPLIED = "complied"
    REFUSED_BY_MODEL = "refused_by_model"
    BLOCKED_BY_GUARD = "blocked_by_guard"
    UNSCORABLE = "unscorable"
    ERROR = "error"


class LedgerVerdict(StrEnum):
    """What the guard said about a prompt or a reply; `unscored` when it never came to a score."""

    ALLOW = "allow"
    BLOCK = "block"
    UNSCORED = "unscored"


class Action(StrEnum):
    """What the gateway did about the verdict on a prompt."""

    FORWARD = "forward"
    BLOCK = "block"
    FALLBACK = "fallback"
    REVIEW = "review"
    REFUSE = "refuse"
    """The request never reached the guard: malformed, unauthorised, over budget."""


class EventKind(StrEnum):
    """What an event row records."""

    START = "start"
    STOP = "stop"
    BYPASS = "bypass"
    BUNDLE_SWAP = "bundle_swap"
    BUNDLE_REFUSED = "bundle_refused"
    CANARY = "canary"
    ALARM = "alarm"
    SURFACE_CLOSED = "surface_closed"
    SURFACE_OPENED = "surface_opened"
    POLICY = "policy"
    BUDGET = "budget"
    EXEMPTION = "exemption"
    REVIEW = "review"
    SETTLE = "settle"
    PRUNE = "prune"
    HOT_RULES = "hot_rules"
    """Other hot rules are in force, or a file of them was refused."""
    RULE_HIT = "rule_hit"
    """A hot rule matched in an exchange."""
    ACCOUNT_STATES = "account_states"
    """Other account states are in force, or a file of them was refused."""
    TRIAL = "trial"
    """A trial of a challenger moved, or its two bundles disagreed on an exchange."""
    CLASS = "class"
    """What a class beside the first one said of an exchange."""
    CLASS_SWITCH = "class_switch"
    """A grant switched a class off, or its end brought the class back."""
    MEDIA = "media"
    """An image or a file of a prompt was scored; without a score the scorer failed."""


class PromptRow(msgspec.Struct, frozen=True, kw_only=True, tag="prompt"):
    """A request and the verdict on its prompt; durable before the first released byte.

    `clause` of a class beside the first one begins with that class's name (`soap.lye`).

    `at` is seconds since the epoch, UTC. `exchange` is None when the request could not be read as
    one. `key_id` is an identifier of the client's key, never the key. `score` is the calibrated
    score in [0, 1]; `turn` is the turn that a block was found in (-1: only in the user's turns
    together). `would_block` says that a policy in shadow would have blocked.
    """

    decision_id: str
    at: float
    surface: str
    protocol: str
    model: str
    stream: bool
    exchange: Exchange | None
    bundle_digest: str
    mode: DeliveryMode
    verdict: LedgerVerdict
    action: Action
    tenant: str | None = None
    key_id: str | None = None
    use_case: str | None = None
    grant_id: str | None = None
    clause: str | None = None
    stage: Stage | None = None
    score: float | None = None
    shadow: bool = False
    would_block: bool = False
    turn: int | None = None


class Delivered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The text of one lane that a client was sent."""

    lane: Lane
    text: str


class ProgressRow(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Text of one lane, scored and about to be released; durable before it is.

    `offset` is the number of characters of the lane that earlier progress rows hold. Without a
    final row (the process died) the progress rows are an upper bound of what was delivered.
    """

    decision_id: str
    at: float
    lane: Lane
    offset: int
    text: str


class Latency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an exchange's time went, in milliseconds; None where it never came to that."""

    total_ms: float | None = None
    first_byte_ms: float | None = None
    upstream_first_byte_ms: float | None = None
    guard_ms: float | None = None
    ledger_ms: float | None = None


class FinalRow(msgspec.Struct, frozen=True, kw_only=True, tag="final"):
    """How an exchange ended; durable before the stream does.

    `delivered_bytes` counts UTF-8 bytes of reply text where they are handed to the client's socket,
    `scored_bytes` those where they are handed to the scorers: two counters, kept apart, that the
    coverage audit compares. `lane` and `offset` say where a block fired. `error` is an error's
    class name, never a message with content in it. `unreadable` counts the reply's characters that
    nobody can read; None in rows of before it was counted, or where no reply was scored.
    """

    decision_id: str
    at: float
    outcome: Outcome
    verdict: LedgerVerdict
    delivered: tuple[Delivered, ...]
    delivered_bytes: int
    scored_bytes: int
    clause: str | None = None
    stage: Stage | None = None
    score: float | None = None
    lane: Lane | None = None
    offset: int | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    latency: Latency = Latency()
    error: str | None = None
    unreadable: int | None = None


class EventRow(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """Something that happened around exchanges; `detail` never holds content or keys."""

    at: float
    kind: EventKind
    detail: Detail
    surface: str | None = None
    decision_id: str | None = None


Row = PromptRow | ProgressRow | FinalRow | EventRow


class Entry(msgspec.Struct, frozen=True):
    """A row as it was kept: its sequence number (1, 2, 3 … without holes) and its writer."""

    seq: int
    writer: str
    row: Row


class RowSink(Protocol):
    """Something that keeps rows. `safehold.testing.MemoryLedger` is one without a disk."""

    async def append(self, row: Row, *more: Row) -> int:
        """Return the last row's sequence number once all rows are durable, all or none.

        Waits while the queue is full (backpressure).

        Raises:
            LedgerError: nothing was kept, or it can't be known; the caller must not release.
        """
        ...

    async def close(self) -> None:
        """Keep what is still queued, then let go of the storage."""
        ...

    @property
    def trouble(self) -> str | None:
        """What is wrong with the storage, as of the last row or heartbeat; None when it is sound.

        A sentence for the operator; it may name hosts and files, so no client ever sees it.
        """
        ...


class LedgerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one ledger.

    `max_pending` rows may wait before `append` itself waits; `max_batch` rows share one commit;
    `max_row_bytes` bounds one row; `wait_s` bounds how long a lock or a connection is waited for;
    `heartbeat_s` is how often an idle writer says that it lives, which is how the coverage audit
    tells a running stream from a crashed one.
    """

    max_pending: int = 1024
    max_batch: int = 512
    max_row_bytes: int = 64 * 1024 * 1024
    wait_s: float = 5.0
    heartbeat_s: float = 5.0
