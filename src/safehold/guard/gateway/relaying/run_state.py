"""What is known of one request on its way: values that rows, metrics, traces and logs read."""

from collections.abc import Mapping, Sequence

import msgspec

from safehold.exchange import Exchange, Lane
from safehold.guard.gateway.bundles.active_guard import Session
from safehold.guard.gateway.bundles.joined_session import JoinedSession
from safehold.guard.gateway.interface import (
    Call,
    Codec,
    Exempt,
    NotExempt,
    Notice,
    Surface,
    Tokens,
)
from safehold.guard.gateway.policy import Key, SurfacePolicy
from safehold.guard.gateway.relaying.client_response import Outlet
from safehold.guard.gateway.relaying.media_scoring import MediaScored
from safehold.guard.interface import Block, SessionReport, Verdict
from safehold.guard.ledger.interface import Action, Delivered, Latency


class AdmittedRequest(msgspec.Struct, frozen=True):
    """A request that was admitted: who asks, where, and under which policy."""

    decision_id: str
    surface: Surface
    codec: Codec
    call: Call
    exchange: Exchange
    policy: SurfacePolicy
    key: Key | None = None
    use_case: str | None = None
    headers: Mapping[str, str] = {}
    canary: bool = False


class Timing:
    """When things happened, by the relay's clock, in seconds."""

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self.upstream_first_byte_at: float | None = None
        self.first_release_at: float | None = None
        self.ended_at: float | None = None
        self.guard_s = 0.0
        self.ledger_s = 0.0

    def latency(self) -> Latency:
        """Return the row's latencies in milliseconds."""
        return Latency(
            total_ms=self._since(self.ended_at),
            first_byte_ms=self._since(self.first_release_at),
            upstream_first_byte_ms=self._since(self.upstream_first_byte_at),
            guard_ms=round(self.guard_s * 1000, 3),
            ledger_ms=round(self.ledger_s * 1000, 3),
        )

    def _since(self, at: float | None) -> float | None:
        return None if at is None else round((at - self.started_at) * 1000, 3)


class RunState:
    """What happened to one request so far; the relay and the delivery write it, others read it."""

    __slots__ = (
        "action",
        "ask",
        "block",
        "bundle_digest",
        "bytes_fed",
        "error",
        "grant_id",
        "items",
        "media",
        "out",
        "refused",
        "reported",
        "response_id",
        "rulings",
        "session",
        "several",
        "texts",
        "timing",
        "tokens",
        "verdict",
    )

    def __init__(
        self,
        ask: AdmittedRequest,
        out: Outlet,
        session: Session,
        *,
        bundle_digest: str,
        started_at: float,
        several: JoinedSession | None = None,
    ) -> None:
        self.several = several
        self.ask = ask
        self.out = out
        self.session = session
        self.bundle_digest = bundle_digest
        self.timing = Timing(started_at)
        self.verdict: Verdict | None = None
        self.action = Action.FORWARD
        self.grant_id: str | None = None
        self.rulings: dict[str, Exempt | NotExempt] = {}
        self.reported: SessionReport | None = None
        self.block: Block | None = None
        self.tokens = Tokens()
        self.refused = False
        self.bytes_fed = 0
        self.texts: dict[Lane, list[str]] = {}
        self.response_id: str | None = None
        self.items: Mapping[str, bytes] = {}
        self.media: Sequence[MediaScored] = ()
        self.error: str | None = None

    def report(self) -> SessionReport:
        """Return what the session reported at the end; before it, what it reports now."""
        return self.reported or self.session.report()

    @property
    def notice(self) -> Notice:
        """What the client is told about a block."""
        return Notice(decision_id=self.ask.decision_id, category=self.ask.policy.category)

    def delivered(self) -> tuple[Delivered, ...]:
        """Return what the client was sent, lane by lane."""
        return tuple(Delivered(lane, "".join(texts)) for lane, texts in self.texts.items())
