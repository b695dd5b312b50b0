"""The response ladder: warn, throttle, block the flow, block everything and revoke.

Deciding is pure; carrying out goes through the enforcer, which blocks before it logs. Nothing
here loosens: only a two-party grant does.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import assert_never

import msgspec

from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.interface import AuditLog, StateError, WeightGrants
from safehold.secure.egress.units import human_bytes

REPEAT_S = 86_400.0
UNDECLARED = "undeclared"


class Rung(IntEnum):
    """The rungs, lowest first."""

    WARN = 1
    THROTTLE = 2
    BLOCK = 3
    SEAL = 4
    CUT = 5


RESIDUAL_RUNGS = ((Rung.BLOCK, 1.0), (Rung.THROTTLE, 0.75), (Rung.WARN, 0.5))
"""What share of the residual line takes a flow to which rung."""


class Step(msgspec.Struct, frozen=True):
    """One decision: how far to go, for which flow (`*` for everything), and why."""

    level: Rung
    flow: str
    reason: str


class Signals(msgspec.Struct, frozen=True):
    """What accounting and detection say at one moment.

    `residual` is the unexplained odometer by flow in bytes, `line` its limit, `alarms` the flows
    with a detector alarm now, `forged` flows with a false row, `tampered` says that the kernel's
    rules or counters were changed behind our back, `undeclared` counts new undeclared bytes, `odd`
    names shapes and accounts that are over their limits: a warning, once until it is over.
    `bypass` says what left the devices past the rules, and `on_bypass` what the plan wants then.
    """

    now: float
    line: int
    residual: Mapping[str, float] = {}
    alarms: Mapping[str, str] = {}
    forged: Mapping[str, str] = {}
    tampered: tuple[str, ...] = ()
    undeclared: int = 0
    odd: Mapping[str, str] = {}
    bypass: str = ""
    on_bypass: str = "cut"


class Ladder(msgspec.Struct, frozen=True):
    """Where every flow stands; kept over restarts.

    `rung` is the level reached, `alarms` the times of a flow's recent detector alarms.
    """

    rung: Mapping[str, int] = {}
    alarms: Mapping[str, tuple[float, ...]] = {}


def decide(ladder: Ladder, signals: Signals) -> tuple[Ladder, tuple[Step, ...]]:
    """Return where the flows stand now, and the steps that were not taken before."""
    alarms = _remember(ladder, signals)
    wanted = [*_residual_steps(signals), *_alarm_steps(alarms, signals), *_other_steps(signals)]
    rungs = {k: v for k, v in ladder.rung.items() if ":" not in k or k in signals.odd}
    steps = []
    for step in sorted(wanted, key=lambda step: -step.level):
        if step.level > rungs.get(step.flow, 0) or step.flow == UNDECLARED:
            steps.append(step)
            rungs[step.flow] = int(step.level)
    return Ladder(rung=rungs, alarms=alarms), tuple(steps)


def _remember(ladder: Ladder, signals: Signals) -> dict[str, tuple[float, ...]]:
    alarms = dict(ladder.alarms)
    for flow in signals.alarms:
        recent = (t for t in alarms.get(flow, ()) if signals.now - t < REPEAT_S)
        alarms[flow] = (*recent, signals.now)
    return alarms


def _residual_steps(signals: Signals) -> Iterator[Step]:
    for flow, size in signals.residual.items():
        share = size / max(signals.line, 1)
        reason = f"{human_bytes(size)} left unexplained, {share:.0%} of the line"
        for level, least in RESIDUAL_RUNGS:
            if share >= least:
                yield Step(level, flow, reason)
                break
    total = sum(signals.residual.values())
    if total >= signals.line:
        yield Step(Rung.SEAL, "*", f"{human_bytes(total)} left unexplained, the residual line")


def _alarm_steps(alarms: Mapping[str, tuple[float, ...]], signals: Signals) -> Iterator[Step]:
    for flow, what in signals.alarms.items():
        count = len(alarms[flow])
        level = Rung(min(count, int(Rung.BLOCK)))
        yield Step(level, flow, f"{what} (alarm {count} within a day)")


def _other_steps(signals: Signals) -> Iterator[Step]:
    for flow, what in signals.forged.items():
        yield Step(Rung.BLOCK, flow, f"a false row of explained bytes: {what}")
    for name, what in signals.odd.items():
        yield Step(Rung.WARN, name, what)
    for what in signals.tampered:
        yield Step(Rung.SEAL, "*", f"enforcement was tampered with: {what}")
    if signals.bypass:
        level = {"cut": Rung.CUT, "seal": Rung.SEAL}.get(signals.on_bypass, Rung.WARN)
        yield Step(level, "*", signals.bypass)
    if signals.undeclared:
        size = human_bytes(signals.undeclared)
        yield Step(Rung.WARN, UNDECLARED, f"{size} of undeclared traffic")


def released(ladder: Ladder, flow: str) -> Ladder:
    """Return the ladder after a granted release put a flow back on the ground."""
    rung = {} if flow == "*" else {k: v for k, v in ladder.rung.items() if k != flow}
    alarms = {} if flow == "*" else {k: v for k, v in ladder.alarms.items() if k != flow}
    return Ladder(rung=rung, alarms=alarms)


def carry_out(
    steps: Sequence[Step], enforcer: Enforcer, grants: WeightGrants, audit: AuditLog
) -> None:
    """Take the steps, the gravest first; each is blocked in the kernel before it is logged.

    Raises:
        StateError: Every step was taken, but one could not be made durable or logged.
    """
    known = {flow.id for flow in enforcer.register.flows}
    failed: list[StateError] = []
    for step in steps:
        try:
            if step.flow not in known and Rung.WARN < step.level < Rung.SEAL:
                # A total has no flow of its own to slow down or block.
                audit.append("egress.warn", {"flow": step.flow, "reason": step.reason})
            else:
                _carry_out(step, enforcer, grants, audit)
        except StateError as error:
            failed.append(error)
    if failed:
        raise failed[0]


def _carry_out(step: Step, enforcer: Enforcer, grants: WeightGrants, audit: AuditLog) -> None:
    match step.level:
        case Rung.WARN:
            audit.append("egress.warn", {"flow": step.flow, "reason": step.reason})
        case Rung.THROTTLE:
            enforcer.throttle(step.flow, step.reason)
        case Rung.BLOCK:
            enforcer.block(step.flow, step.reason)
        case Rung.SEAL | Rung.CUT:
            try:
                close = enforcer.cut if step.level is Rung.CUT else enforcer.close_all
                close(step.reason)
            finally:
                count = grants.revoke_all(step.reason)
            audit.append("egress.revoke", {"grants": count, "reason": step.reason})
        case _:
            assert_never(step.level)
