"""Ledger rows from what happened to one exchange."""

from typing import TYPE_CHECKING

from safehold.guard.gateway.interface import Exempt, NotExempt, Relief
from safehold.guard.interface import Allow, Block
from safehold.guard.ledger.interface import (
    Action,
    EventKind,
    EventRow,
    FinalRow,
    Latency,
    LedgerVerdict,
    Outcome,
    PromptRow,
    Row,
)

if TYPE_CHECKING:
    from safehold.guard.gateway.relaying.relay import Run


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


def prompt_row(run: "Run") -> PromptRow:
    """Return the row that must be durable before anything is released."""
    ask, verdict = run.ask, run.verdict
    blocked = verdict if isinstance(verdict, Block) else None
    judged = LedgerVerdict.UNSCORED
    if verdict is not None:
        judged = LedgerVerdict.ALLOW if isinstance(verdict, Allow) else LedgerVerdict.BLOCK
    action = Action.REFUSE if verdict is None else run.action
    return PromptRow(
        decision_id=ask.decision_id,
        at=run.relay.clock(),
        surface=str(ask.surface),
        protocol=str(ask.surface),
        model=ask.call.model,
        stream=ask.call.streamed,
        exchange=ask.exchange,
        bundle_digest=run.held.digest,
        mode=ask.policy.mode,
        verdict=judged,
        action=action,
        tenant=ask.key.tenant if ask.key else None,
        key_id=ask.key.id if ask.key else None,
        use_case=ask.use_case,
        grant_id=run.grant_id,
        clause=blocked.clause if blocked else None,
        stage=blocked.stage if blocked else None,
        score=verdict.score if verdict is not None else None,
        shadow=ask.policy.shadow,
        would_block=ask.policy.shadow and blocked is not None,
        turn=blocked.turn if blocked else None,
    )


def final_row(run: "Run", outcome: Outcome, judged: LedgerVerdict) -> FinalRow:
    """Return the row that must be durable before the response ends."""
    block = run.block
    report = run.session.report()
    return FinalRow(
        decision_id=run.ask.decision_id,
        at=run.relay.clock(),
        outcome=outcome,
        verdict=judged,
        delivered=run.delivery.delivered() if run.delivery else (),
        delivered_bytes=run.out.text_bytes,
        scored_bytes=run.bytes_fed,
        clause=block.clause if block else None,
        stage=block.stage if block else None,
        score=block.score if block else report.reply_score,
        lane=block.lane if block else None,
        offset=block.offset if block else None,
        tokens_in=run.tokens.read,
        tokens_out=run.tokens.written,
        latency=run.timing.latency(),
        error=run.error,
    )


def bypass_rows(run: "Run", bypasses: tuple[str, ...]) -> list[Row]:
    """Return one event for each scorer failure that the fail mode let pass."""
    return [
        EventRow(
            at=run.relay.clock(),
            kind=EventKind.BYPASS,
            detail={"reason": reason, "bundle": run.held.digest},
            surface=str(run.ask.surface),
            decision_id=run.ask.decision_id,
        )
        for reason in bypasses
    ]


def review_row(run: "Run") -> EventRow:
    """Return the event that puts a withheld exchange into the reviewers' queue."""
    block = run.verdict if isinstance(run.verdict, Block) else run.block
    return EventRow(
        at=run.relay.clock(),
        kind=EventKind.REVIEW,
        detail={"clause": block.clause if block else None},
        surface=str(run.ask.surface),
        decision_id=run.ask.decision_id,
    )


def exemption_rows(run: "Run") -> list[Row]:
    """Return what grants did in an exchange: the action they changed, and what they ran out of."""
    rows: list[Row] = []
    for clause, ruling in run.rulings.items():
        match ruling:
            case Exempt():
                rows.append(
                    _exemption(
                        run,
                        {"grant": ruling.grant_id, "clause": clause, "action": str(ruling.relief)},
                    )
                )
                if ruling.relief is Relief.REVIEW and run.action is not Action.REVIEW:
                    rows.append(review_row(run))
            case NotExempt() if ruling.overrun:
                detail = {"grant": ruling.grant_id, "clause": clause, "overrun": ruling.overrun}
                rows.append(_exemption(run, detail))
                if ruling.alarm:
                    rows.append(_overrun_alarm(run, ruling))
            case NotExempt():
                pass
    return rows


def _exemption(run: "Run", detail: dict[str, str]) -> EventRow:
    return EventRow(
        at=run.relay.clock(),
        kind=EventKind.EXEMPTION,
        detail={**detail},
        surface=str(run.ask.surface),
        decision_id=run.ask.decision_id,
    )


def _overrun_alarm(run: "Run", ruling: NotExempt) -> EventRow:
    return EventRow(
        at=run.relay.clock(),
        kind=EventKind.ALARM,
        detail={"alarm": f"exemption-{ruling.overrun}", "grant": ruling.grant_id},
        surface=str(run.ask.surface),
        decision_id=run.ask.decision_id,
    )
