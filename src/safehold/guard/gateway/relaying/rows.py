"""Ledger rows from what happened to one exchange."""

from safehold.guard.gateway.bundles.joined_session import CompanionResult
from safehold.guard.gateway.interface import Exempt, NotExempt, Relief
from safehold.guard.gateway.relaying.run_state import RunState
from safehold.guard.interface import Allow, Block
from safehold.guard.ledger.interface import (
    Action,
    Detail,
    EventKind,
    EventRow,
    FinalRow,
    LedgerVerdict,
    Outcome,
    PromptRow,
    Row,
)


def prompt_row(state: RunState, at: float) -> PromptRow:
    """Return the row that must be durable before anything is released."""
    ask, verdict = state.ask, state.verdict
    blocked = verdict if isinstance(verdict, Block) else None
    judged = LedgerVerdict.UNSCORED
    if verdict is not None:
        judged = LedgerVerdict.ALLOW if isinstance(verdict, Allow) else LedgerVerdict.BLOCK
    action = Action.REFUSE if verdict is None else state.action
    return PromptRow(
        decision_id=ask.decision_id,
        at=at,
        surface=str(ask.surface),
        protocol=str(ask.surface),
        model=ask.call.model,
        stream=ask.call.streamed,
        exchange=ask.exchange,
        bundle_digest=state.bundle_digest,
        mode=ask.policy.mode,
        verdict=judged,
        action=action,
        tenant=ask.key.tenant if ask.key else None,
        key_id=ask.key.id if ask.key else None,
        use_case=ask.use_case,
        grant_id=state.grant_id,
        clause=blocked.full_clause if blocked else None,
        stage=blocked.stage if blocked else None,
        score=verdict.score if verdict is not None else None,
        shadow=ask.policy.shadow,
        would_block=ask.policy.shadow and blocked is not None,
        turn=blocked.turn if blocked else None,
    )


def final_row(state: RunState, at: float, outcome: Outcome, judged: LedgerVerdict) -> FinalRow:
    """Return the row that must be durable before the response ends."""
    block = state.block
    report = state.report()
    return FinalRow(
        decision_id=state.ask.decision_id,
        at=at,
        outcome=outcome,
        verdict=judged,
        delivered=state.delivered(),
        delivered_bytes=state.out.text_bytes,
        scored_bytes=state.bytes_fed,
        clause=block.full_clause if block else None,
        stage=block.stage if block else None,
        score=block.score if block else report.reply_score,
        lane=block.lane if block else None,
        offset=block.offset if block else None,
        tokens_in=state.tokens.read,
        tokens_out=state.tokens.written,
        latency=state.timing.latency(),
        error=state.error,
        unreadable=report.unreadable,
    )


def bypass_rows(state: RunState, at: float, bypasses: tuple[str, ...]) -> list[Row]:
    """Return one event for each scorer failure that the fail mode let pass."""
    return [
        EventRow(
            at=at,
            kind=EventKind.BYPASS,
            detail={"reason": reason, "bundle": state.bundle_digest},
            surface=str(state.ask.surface),
            decision_id=state.ask.decision_id,
        )
        for reason in bypasses
    ]


def media_rows(state: RunState, at: float) -> list[Row]:
    """Return one event for each image or file that went to the scorer; a failure says why."""
    return [
        EventRow(
            at=at,
            kind=EventKind.MEDIA,
            detail={
                "sha256": one.media.sha256,
                "media_type": one.media.media_type,
                "size_bytes": len(one.media.data),
                "score": one.score,
                **({"failed": one.failed} if one.failed else {}),
            },
            surface=str(state.ask.surface),
            decision_id=state.ask.decision_id,
        )
        for one in state.media
    ]


def hit_rows(state: RunState, at: float) -> list[Row]:
    """Return one event for each hot rule that matched, whether it blocks or is in shadow."""
    return [
        EventRow(
            at=at,
            kind=EventKind.RULE_HIT,
            detail={"rule": one.rule, "owner": one.owner, "acted": one.acted},
            surface=str(state.ask.surface),
            decision_id=state.ask.decision_id,
        )
        for one in state.report().hot
        if not state.ask.canary
    ]


def class_rows(state: RunState, at: float) -> list[Row]:
    """Return one event for each further class: what its bundle said of the exchange."""
    return [
        EventRow(
            at=at,
            kind=EventKind.CLASS,
            detail=_said(one),
            surface=str(state.ask.surface),
            decision_id=state.ask.decision_id,
        )
        for one in (state.several.results() if state.several is not None else ())
        if not state.ask.canary
    ]


def _said(one: CompanionResult) -> Detail:
    block = one.block
    return {
        "class": one.name,
        "bundle": one.digest,
        "acts": one.acts,
        "verdict": one.verdict,
        "clause": block.clause if block else None,
        "stage": str(block.stage) if block else None,
        "prompt_score": one.report.prompt_score,
        "reply_score": one.report.reply_score,
        "escalations": one.report.escalations,
        "bypasses": len(one.report.bypasses),
        "failed": one.failed or None,
        "offset": block.offset if block else None,
        "turn": block.turn if block else None,
    }


def review_row(state: RunState, at: float) -> EventRow:
    """Return the event that puts a withheld exchange into the reviewers' queue."""
    block = state.verdict if isinstance(state.verdict, Block) else state.block
    return EventRow(
        at=at,
        kind=EventKind.REVIEW,
        detail={"clause": block.full_clause if block else None},
        surface=str(state.ask.surface),
        decision_id=state.ask.decision_id,
    )


def exemption_rows(state: RunState, at: float) -> list[Row]:
    """Return what grants did in an exchange: the action they changed, and what they ran out of."""
    rows: list[Row] = []
    for clause, ruling in state.rulings.items():
        match ruling:
            case Exempt():
                rows.append(
                    _exemption(
                        state,
                        at,
                        {"grant": ruling.grant_id, "clause": clause, "action": str(ruling.relief)},
                    )
                )
                if ruling.relief is Relief.REVIEW and state.action is not Action.REVIEW:
                    rows.append(review_row(state, at))
            case NotExempt() if ruling.overrun:
                detail = {"grant": ruling.grant_id, "clause": clause, "overrun": ruling.overrun}
                rows.append(_exemption(state, at, detail))
                if ruling.alarm:
                    rows.append(_overrun_alarm(state, at, ruling))
            case NotExempt():
                pass
    return rows


def _exemption(state: RunState, at: float, detail: dict[str, str]) -> EventRow:
    return EventRow(
        at=at,
        kind=EventKind.EXEMPTION,
        detail={**detail},
        surface=str(state.ask.surface),
        decision_id=state.ask.decision_id,
    )


def _overrun_alarm(state: RunState, at: float, ruling: NotExempt) -> EventRow:
    return EventRow(
        at=at,
        kind=EventKind.ALARM,
        detail={"alarm": f"exemption-{ruling.overrun}", "grant": ruling.grant_id},
        surface=str(state.ask.surface),
        decision_id=state.ask.decision_id,
    )
