"""Settling: bring what is remembered up to what the kernel says, and never refund a byte."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from safehold.secure.egress.bounds.budget import shaped
from safehold.secure.egress.bounds.odometer import FlowOdometer
from safehold.secure.egress.declare.plan import EgressPlan
from safehold.secure.egress.declare.register import Flow
from safehold.secure.egress.enforcement.state import Clock, State
from safehold.secure.egress.interface import Window
from safehold.secure.egress.kernel.nft import CounterReading
from safehold.secure.egress.kernel.ruleset import Quota, QuotaKey, accounts, budgets_of, quota_name

_REFILL_BYTES = 65_536
"""A depleted quota is made anew once its window has this much again (or its whole budget)."""


def settle(
    state: State,
    reading: CounterReading | None,
    clock: Clock,
    flows: Sequence[Flow],
    plan: EgressPlan,
) -> tuple[State, tuple[str, ...]]:
    """Bring the state up to what the kernel says now.

    Where the kernel's memory was lost (a reboot, a deleted table, a reset counter), every account
    is charged the most it could have sent since the last durable reading.
    """
    uptime, boot = clock.uptime_s(), clock.boot_id()
    rebooted = boot != state.boot_id
    elapsed = 0.0 if rebooted else max(0.0, uptime - state.uptime_s)
    at = state.at + elapsed
    findings: list[str] = []
    lost = reading is None or rebooted
    if lost and state.accounts:
        findings.append("rebooted" if rebooted else "the kernel's table had disappeared")
    updated, repeated = dict(state.accounts), dict(state.repeated)
    counters = reading.counters if reading else {}
    leaving = (name for name in state.approved if f"c_{name}" in counters)
    for name in dict.fromkeys((*accounts(flows, plan), *leaving)):
        account = state.accounts.get(name, FlowOdometer())
        raw = counters.get(f"c_{name}", 0)
        expected = name in state.approved or name in state.accounts
        reset = lost or f"c_{name}" not in counters or raw < account.raw
        extra = 0
        if not reset and _overrun(state, account, name, raw):
            findings.append(f"more passed than the budget of {name} had left")
        if reset and expected and account.samples:
            if not lost and name in state.approved:
                findings.append(f"the counter of {name} went backwards or vanished")
            budget = {Window(w): b for w, b in state.approved.get(name, {}).items()}
            remaining = min(account.remaining(budget, state.at).values(), default=0)
            # How long the old boot went on after the last reading is not known.
            extra = remaining if rebooted else min(remaining, shaped(plan, elapsed))
        if reset:
            account = msgspec.structs.replace(account, raw=0)
            repeated.pop(name, None)
        updated[name] = account.advance(raw, extra, at)
    fresh = msgspec.structs.replace(
        state,
        boot_id=boot,
        uptime_s=uptime,
        at=at,
        wall_s=clock.wall_s(),
        accounts=updated,
        repeated=repeated,
    )
    return fresh, tuple(findings)


def _overrun(state: State, account: FlowOdometer, name: str, raw: int) -> bool:
    """Whether more passed since the last look than any quota object left: its limit was moved."""
    budget = {Window(w): b for w, b in state.approved.get(name, {}).items()}
    left = min(account.remaining(budget, state.at).values(), default=None)
    return left is not None and raw - account.raw > left + _REFILL_BYTES


def quotas(
    remaining: Mapping[str, Mapping[Window, int]],
    reading: CounterReading | None,
    flows: Sequence[Flow],
    plan: EgressPlan,
) -> Iterator[tuple[QuotaKey, Quota]]:
    """Yield every quota's new limit: what it used, and what its window has left."""
    held = reading.quotas if reading else {}
    budgets = budgets_of(flows, plan)
    for name, windows in remaining.items():
        for window, left in windows.items():
            limit, used = held.get(quota_name(name, window), (0, -1))
            budget = budgets[name][window]
            if used < 0:
                yield (name, window), Quota(limit=left, fresh=True)
            elif used >= limit and left < min(_REFILL_BYTES, budget):
                yield (name, window), Quota(limit=limit, fresh=False)
            elif used >= limit:
                yield (name, window), Quota(limit=left, fresh=True)
            else:
                yield (name, window), Quota(limit=used + left, fresh=False)
