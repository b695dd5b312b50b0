"""The arithmetic of the budget compiler: worst-case leaks, time to steal, flows to cut.

Every budget is a *sliding* window: no interval of length W carries more than B(W). So an interval
of length H carries at most `ceil(H / W) * B(W)` for every window, and at most `burst + rate * H`
through the shaper; the least of these holds. A thief who owns a flow can use all of it. On a
reconciled flow whose sender is honest the thief gets only what the residual line lets pass, and
what leaves within the accounting lag.
"""

import bisect
import math
from collections.abc import Callable, Sequence

import msgspec

from safehold.secure.egress.declare.plan import (
    COMPRESSIONS,
    NEIGHBOUR_BYTES_PER_DAY,
    Bound,
    EgressPlan,
)
from safehold.secure.egress.declare.register import Flow
from safehold.secure.egress.interface import REPEAT_SHARE, BudgetError, Window
from safehold.secure.egress.units import human_bytes, human_time

PACKET_BYTES = 65_536
"""The stated overshoot of one quota: one packet, at most 64 KiB with segmentation offload."""

_CENTURY_S = 36_500 * 86_400.0


def flow_leak(flow: Flow, plan: EgressPlan, seconds: float) -> int:
    """The most bytes the kernel lets one flow send in any interval of this length."""
    return min(_windows(dict(flow.budget), seconds), shaped(plan, seconds, flow.peak_bit_s))


def shaped(plan: EgressPlan, seconds: float, peak_bit_s: int = 0) -> int:
    """The most bytes the shaper passes in an interval: burst + rate * seconds."""
    rate = min(peak_bit_s or plan.link.rate_bit_s, plan.link.rate_bit_s)
    return int(plan.link.burst_bytes + rate / 8 * seconds) if plan.link.shape else 2**62


def _windows(budget: dict[Window, int], seconds: float) -> int:
    return min(
        (
            math.ceil(seconds / window.seconds) * (limit + PACKET_BYTES)
            for window, limit in budget.items()
        ),
        default=2**62,
    )


def total_leak(flows: Sequence[Flow], plan: EgressPlan, seconds: float) -> int:
    """The most bytes all these flows, ARP, neighbour discovery and link control send in it."""
    each = sum(flow_leak(flow, plan, seconds) for flow in flows)
    each_day = int(plan.local.neighbour_discovery) + int(plan.local.raw_frame_guard)
    own = NEIGHBOUR_BYTES_PER_DAY * each_day + plan.judge.control_bytes_a_day
    neighbours = math.ceil(seconds / 86_400) * own
    return min(each, _windows(plan.total, seconds), shaped(plan, seconds)) + neighbours


class FlowProof(msgspec.Struct, frozen=True):
    """One row's part in the worst case, in bytes."""

    flow: str
    reconciled: bool
    budget: dict[str, int]
    leak_hour: int
    leak_day: int
    leak_incident: int
    steal_days: float


class Proof(msgspec.Struct, frozen=True):
    """What the compiled rules guarantee, and under which assumption.

    `honest_*`: senders of reconciled flows sign only what they mean to send; everything else on
    the host may be the thief's. `owned_*`: the thief owns every sender too, and only the kernel's
    budgets hold.
    """

    weight_bytes: int
    compression: float
    stolen_bytes: int
    incident_bytes: int
    steal_days_wanted: float
    residual_line: int
    lag_bytes: int
    slack_bytes: int
    honest_incident_leak: int
    honest_steal_days: float
    owned_incident_leak: int
    owned_steal_days: float
    owned_steal_days_by_compression: dict[str, float]
    flows: tuple[FlowProof, ...]


def _honest_leak(flows: Sequence[Flow], plan: EgressPlan, line: int, seconds: float) -> int:
    blind = [flow for flow in flows if not _reconciled(flow, plan)]
    reviews = math.ceil(seconds / (plan.bound.review_days * 86_400))
    each = int(line * (1 + REPEAT_SHARE)) + lag_bytes(flows, plan) + slack_bytes(flows, plan)
    residual = reviews * each if len(blind) < len(flows) else 0
    return min(total_leak(blind, plan, seconds) + residual, total_leak(flows, plan, seconds))


def _reconciled(flow: Flow, plan: EgressPlan) -> bool:
    return flow.reconciled and plan.trust_senders


def lag_bytes(flows: Sequence[Flow], plan: EgressPlan) -> int:
    """What reconciled flows can carry before the accounting can notice: lag and reaction."""
    seen = [flow for flow in flows if _reconciled(flow, plan)]
    if not seen:
        return 0
    lag = plan.accounting_lag_s + 1.0
    return min(sum(flow_leak(flow, plan, lag) for flow in seen), shaped(plan, lag))


def slack_bytes(flows: Sequence[Flow], plan: EgressPlan) -> int:
    """What a thief can hide between two reviews in the error of the learned overhead."""
    seen = [flow for flow in flows if _reconciled(flow, plan)]
    review = plan.bound.review_days * 86_400
    return int(plan.overhead_slack * sum(flow_leak(flow, plan, review) for flow in seen))


def time_to_reach(leak: Callable[[float], int], wanted: int) -> float:
    """The shortest interval, in seconds to within an hour, in which `leak` can reach `wanted`."""
    if leak(_CENTURY_S) < wanted:
        return math.inf
    low, high = 0.0, _CENTURY_S
    while high - low > max(1.0, low * 1e-4):
        middle = (low + high) / 2
        low, high = (middle, high) if leak(middle) < wanted else (low, middle)
    return high


def residual_line(flows: Sequence[Flow], plan: EgressPlan) -> int:
    """How many unexplained bytes may leave between two reviews: what alpha leaves over.

    alpha * S * c, less what flows without reconciliation can leak in one incident, less what
    passes within the accounting lag or hides in the overhead; and low enough that reviews spaced
    `review_days` apart can't add up to the whole secret before the wanted time. What TCP sends
    again is not counted, so a line lets `REPEAT_SHARE` more pass than it says. Negative when the
    bound is broken already.
    """
    bound = plan.bound
    blind = [flow for flow in flows if not _reconciled(flow, plan)]
    lag = lag_bytes(flows, plan) + slack_bytes(flows, plan)
    incident = bound.detect_s + bound.respond_s
    per_incident = bound.incident_bytes - total_leak(blind, plan, incident) - lag
    horizon = bound.steal_days * 86_400
    reviews = math.ceil(bound.steal_days / bound.review_days)
    by_time = (bound.stolen_bytes - total_leak(blind, plan, horizon)) // reviews - lag
    return int(min(per_incident, by_time) / (1 + REPEAT_SHARE))


def prove(flows: Sequence[Flow], plan: EgressPlan) -> Proof:
    """Compute the worst case of a register under a plan.

    Raises:
        BudgetError: The register alone breaks the bound; the message names the flows to cut.
    """
    bound = plan.bound
    if not flows:
        raise BudgetError("no live flow: every row has expired, so there is nothing to compile")
    line = residual_line(flows, plan)
    incident = bound.detect_s + bound.respond_s
    if line <= 0:
        raise BudgetError(_refusal(flows, plan))
    steal = time_to_reach(lambda s: _honest_leak(flows, plan, line, s), bound.stolen_bytes)
    owned = {
        f"{c:.4g}": _days(_owned(flows, plan, int(bound.weight_bytes * c))) for c in COMPRESSIONS
    }
    return Proof(
        weight_bytes=bound.weight_bytes,
        compression=bound.compression,
        stolen_bytes=bound.stolen_bytes,
        incident_bytes=bound.incident_bytes,
        steal_days_wanted=bound.steal_days,
        residual_line=line,
        lag_bytes=lag_bytes(flows, plan),
        slack_bytes=slack_bytes(flows, plan),
        honest_incident_leak=_honest_leak(flows, plan, line, min(incident, _review_s(bound))),
        honest_steal_days=_days(steal),
        owned_incident_leak=total_leak(flows, plan, incident),
        owned_steal_days=_days(_owned(flows, plan, bound.stolen_bytes)),
        owned_steal_days_by_compression=owned,
        flows=tuple(_flow_proof(flow, plan) for flow in flows),
    )


def _review_s(bound: Bound) -> float:
    return bound.review_days * 86_400


def _owned(flows: Sequence[Flow], plan: EgressPlan, wanted: int) -> float:
    return time_to_reach(lambda s: total_leak(flows, plan, s), wanted)


def _days(seconds: float) -> float:
    return round(seconds / 86_400, 4)


def _flow_proof(flow: Flow, plan: EgressPlan) -> FlowProof:
    steal = time_to_reach(lambda s: flow_leak(flow, plan, s), plan.bound.stolen_bytes)
    return FlowProof(
        flow=flow.id,
        reconciled=flow.reconciled,
        budget={window.value: limit for window, limit in flow.budget.items()},
        leak_hour=flow_leak(flow, plan, 3_600),
        leak_day=flow_leak(flow, plan, 86_400),
        leak_incident=flow_leak(flow, plan, plan.bound.detect_s + plan.bound.respond_s),
        steal_days=_days(steal),
    )


def flows_to_cut(flows: Sequence[Flow], plan: EgressPlan) -> tuple[str, ...]:
    """The fewest flows whose removal makes the rest keep the bound, largest first."""
    incident = plan.bound.detect_s + plan.bound.respond_s

    def share(flow: Flow) -> int:
        if _reconciled(flow, plan):
            return lag_bytes([flow], plan) + slack_bytes([flow], plan)
        return flow_leak(flow, plan, incident)

    largest = sorted(flows, key=share, reverse=True)

    def keeps(cut: int) -> bool:
        return residual_line(largest[cut:], plan) > 0

    # The fewer are left, the more the line leaves over: so the place is searched by halves.
    cut = bisect.bisect_left(range(len(largest)), x=True, key=keeps)
    return tuple(flow.id for flow in largest[:cut])


def _refusal(flows: Sequence[Flow], plan: EgressPlan) -> str:
    bound = plan.bound
    incident = bound.detect_s + bound.respond_s
    blind = [flow for flow in flows if not _reconciled(flow, plan)]
    cut = flows_to_cut(flows, plan)
    remedy = (
        f"cut, shrink or reconcile: {', '.join(cut)}"
        if len(cut) < len(flows)
        else f"no choice of flows keeps it; every row must shrink, largest first: {', '.join(cut)}"
    )
    return (
        f"the register breaks the bound: flows without reconciliation can leak "
        f"{human_bytes(total_leak(blind, plan, incident))} in one incident of "
        f"{human_time(incident)}; reconciled ones {human_bytes(lag_bytes(flows, plan))} within "
        f"the accounting lag and {human_bytes(slack_bytes(flows, plan))} in the overhead's error; "
        f"{human_bytes(bound.incident_bytes)} are allowed; {remedy}"
    )
