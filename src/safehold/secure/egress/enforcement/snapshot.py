"""What one look at the kernel found, as values."""

from collections.abc import Mapping, Sequence

import msgspec

from safehold.secure.egress.bounds.judge import verdict
from safehold.secure.egress.declare.plan import EgressPlan
from safehold.secure.egress.declare.register import Flow
from safehold.secure.egress.enforcement.state import State
from safehold.secure.egress.interface import EgressMode, Window
from safehold.secure.egress.kernel.nft import CounterReading
from safehold.secure.egress.kernel.ruleset import RAW, TOTAL, UNDECLARED, header_bytes


class Snapshot(msgspec.Struct, frozen=True):
    """What one look at the kernel found.

    `findings` say that rules or counters were changed, `bypass` that more left the devices than the
    rules let through, `strangers` name devices that are new. `packets` counts what passed since the
    rules were made, `headers` the bytes in it of reconciled flows that carry nothing new (headers,
    and what TCP sent again), and `boot` names the machine's boot. `sealed`, `blocked`, `throttled`
    and `cut` are what is closed now: everything, flows, flows in part, and devices that are down.
    """

    at: float
    wall_s: float
    passed: dict[str, int]
    dropped: dict[str, int]
    remaining: dict[str, dict[str, int]]
    undeclared: int
    findings: tuple[str, ...]
    bypass: str = ""
    strangers: tuple[str, ...] = ()
    packets: dict[str, int] = {}
    boot: str = ""
    headers: dict[str, int] = {}
    sealed: bool = False
    blocked: tuple[str, ...] = ()
    throttled: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()


def snapshot_of(
    state: State,
    reading: CounterReading | None,
    remaining: Mapping[str, Mapping[Window, int]],
    findings: tuple[str, ...],
    plan: EgressPlan,
    flows: Sequence[Flow],
    moves: tuple[tuple[str, ...], tuple[str, ...]],
) -> Snapshot:
    """Say what a look found; `moves` are the devices that came, and those now elsewhere."""
    new, away = moves
    gone = f"{', '.join(away)} was moved into another network namespace" if away else ""
    counters = reading.counters if reading else {}
    packets = reading.packets if reading else {}
    return Snapshot(
        at=state.at,
        wall_s=state.wall_s,
        passed={name: state.accounts[name].passed for name in remaining},
        dropped={name: counters.get(f"d_{name}", 0) for name in remaining},
        remaining={
            name: {window.value: left for window, left in windows.items()}
            for name, windows in remaining.items()
        },
        undeclared=counters.get("undeclared", 0) + counters.get("raw", 0),
        findings=findings,
        bypass=verdict(state.bench, plan.judge.bound_bytes) or gone,
        strangers=new,
        packets={name: packets.get(f"c_{name}", 0) for name in remaining},
        boot=state.boot_id,
        headers={
            flow.id: header_bytes(flow, packets) + state.repeated.get(flow.id, 0)
            for flow in flows
            if flow.reconciled
        },
        sealed=state.sealed,
        blocked=tuple(sorted(state.blocked)),
        throttled=tuple(sorted(state.throttled)),
        cut=state.cut,
    )


def let_through(
    reading: CounterReading | None, plan: EgressPlan
) -> tuple[dict[str, int], dict[str, int]]:
    """The counters of what passed, in bytes and in packets; the total counts flows again."""
    if reading is None:
        return {}, {}
    names = {name for name in reading.counters if name[:2] == "c_" and name != f"c_{TOTAL}"}
    if plan.mode is EgressMode.MAP:
        names |= {*UNDECLARED, RAW} & set(reading.counters)
    return (
        {name: reading.counters[name] for name in names},
        {name: reading.packets[name] for name in names},
    )
