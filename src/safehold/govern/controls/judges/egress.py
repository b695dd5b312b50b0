"""Judges of egress."""

import ipaddress
from collections.abc import Iterator, Sequence

from safehold.govern.controls.facts.documents import FlowRecords, Outputs
from safehold.govern.controls.facts.egress import EgressFacts, WatchFacts
from safehold.govern.controls.facts.machine import Kernel
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.system import Ruleset, Shaped, Sysctls
from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.facts.weights import WeightFacts
from safehold.govern.controls.interface import DAY, HostFacts, Judge, need
from safehold.govern.controls.judges.common import drill_faults, drilled, some
from safehold.secure.egress.interface import Window, Wire
from safehold.secure.egress.kernel.ruleset import quota_name
from safehold.secure.egress.kernel.statements import TABLE

_FRESH_S = 300
_LAG_S = 120
_PACKET = 65_536


def egr_01(facts: HostFacts) -> Iterator[str]:
    """Ways out drop by default, in the kernel and in the plan."""
    chains = {one.name: one for one in facts.of(Ruleset).chains if one.table == TABLE}
    for hook in ("output", "forward"):
        drops = hook in chains and chains[hook].hook == hook and chains[hook].policy == "drop"
        yield from need(drops, f"chain {hook} of {TABLE} does not drop by default")
    yield from need(facts.of(EgressFacts).enforcing, "the plan only maps")


def egr_02(facts: HostFacts) -> Iterator[str]:
    """Every chain of a flow is a row of the register, and every row has one."""
    chains = {
        one.name[2:]
        for one in facts.of(Ruleset).chains
        if one.table == TABLE and one.name.startswith("f_")
    }
    rows = {one.id for one in facts.of(EgressFacts).flows}
    yield from some(rows, "row of the register")
    for name in sorted(chains - rows):
        yield f"chain f_{name} has no row"
    for name in sorted(rows - chains):
        yield f"row {name} has no chain"


def egr_03(facts: HostFacts) -> Iterator[str]:
    """Each window of each flow has a quota that matches when spent, at or below its budget."""
    quotas, flows = facts.of(Ruleset).quotas, facts.of(EgressFacts).flows
    yield from some(flows, "declared flow")
    for flow in flows:
        for window, limit in flow.budget.items():
            name = quota_name(flow.id, window)
            found = quotas.get(name)
            if found is None:
                yield f"quota {name} is missing"
                continue
            yield from need(found.over, f"quota {name} does not match when spent")
            yield from need(found.limit <= limit, f"quota {name} is above its budget")


def egr_04(facts: HostFacts) -> Iterator[str]:
    """Each way out is shaped at its root, at or below the plan's rate."""
    plan, roots = facts.of(EgressFacts), facts.of(Shaped).roots
    yield from some(plan.interfaces, "interface")
    for name in plan.interfaces:
        kind, rate = roots.get(name, ("", 0))
        held = kind in {"tbf", "htb"} and (kind == "htb" or 0 < rate <= plan.rate_bit_s)
        yield from need(held, f"{name} is not shaped to {plan.rate_bit_s} bit/s")


def egr_05(facts: HostFacts) -> Iterator[str]:
    """What unreconciled flows may send in the days of a theft is below the weights' least size."""
    plan = facts.of(EgressFacts)
    yield from need(
        0 < plan.leak < plan.stolen_bytes,
        f"flows may send {plan.leak} bytes, and {plan.stolen_bytes} are the weights",
    )
    sizes = [one.header.plain_bytes for one in facts.of(WeightFacts).models]
    yield from some(sizes, "sealed model")
    for size in sizes:
        yield from need(
            plan.weight_bytes <= size, "the plan calls the weights larger than they are"
        )


def egr_06(facts: HostFacts) -> Iterator[str]:
    """Every flow has a budget in each of the four windows, and none was ever exceeded in it."""
    egress = facts.of(EgressFacts)
    yield from some(egress.flows, "declared flow")
    for flow in egress.flows:
        missing = sorted(set(Window) - set(flow.budget))
        yield from need(not missing, f"{flow.id} has no budget for {', '.join(missing)}")
        account = egress.state.accounts.get(flow.id)
        for window, limit in flow.budget.items():
            # One packet may pass beyond the line: the rules' proof says so.
            spent = 0 if account is None else account.within(window.seconds, egress.state.at)
            yield from need(
                spent <= limit + _PACKET, f"{flow.id} sent more in a {window.value} than its budget"
            )


def egr_07(facts: HostFacts) -> Iterator[str]:
    """Odometers exist for every flow, are of this boot, and were written lately."""
    egress = facts.of(EgressFacts)
    state = egress.state
    for flow in egress.flows:
        yield from need(flow.id in state.accounts, f"{flow.id} has no odometer")
    boot = facts.of(Sysctls).values.get("kernel/random/boot_id")
    yield from need(state.boot_id == boot, "the odometers are of another boot")
    age = facts.at - state.wall_s
    yield from need(0 <= age <= _FRESH_S, f"the odometers were written {age:.0f} s ago")


def egr_08(facts: HostFacts) -> Iterator[str]:
    """No budget is above the approved one, and two persons carried every loosening."""
    egress = facts.of(EgressFacts)
    for flow in egress.flows:
        approved = egress.state.approved.get(flow.id, {})
        for window, limit in flow.budget.items():
            yield from need(
                limit <= approved.get(window.value, 0), f"{flow.id}: nobody approved its budget"
            )
    for case in facts.of(LogReading).used("egress."):
        yield from need(
            len(set(case.carried_by) - {case.requester}) >= 2,
            f"{case.operation} of {case.request[:8]} was not carried by two",
        )


def egr_09(facts: HostFacts) -> Iterator[str]:
    """The watch looked lately, and what nobody explains is below its line."""
    last = facts.of(WatchFacts).rows[-1]
    age = facts.at - last.time
    yield from need(0 <= age <= _LAG_S, f"the watch looked {age:.0f} s ago")
    yield from need(last.line > 0, "no residual line is set")
    for flow, residual in sorted(last.residual.items()):
        yield from need(residual < last.line, f"{flow}: unexplained bytes are above the line")


def egr_14(facts: HostFacts) -> Iterator[str]:
    """Names are asked of the site's resolvers only."""
    flows, resolvers = facts.of(EgressFacts).flows, facts.of(Site).resolvers
    yield from some(resolvers, "resolver of the site")
    for flow in flows:
        if flow.protocol is Wire.DNS or {53, 853} & set(flow.ports):
            yield from need(
                _within(flow.destination, resolvers), f"{flow.id} asks others than the resolvers"
            )


def egr_15(facts: HostFacts) -> Iterator[str]:
    """The web is reached through the proxies only, and the canary past them failed."""
    flows, proxies = facts.of(EgressFacts).flows, facts.of(Site).proxies
    for flow in flows:
        if flow.direction.value == "out" and {80, 443} & set(flow.ports):
            yield from need(_within(flow.destination, proxies), f"{flow.id} passes the proxies by")
    yield from drill_faults(facts, "egress-direct-https", days=7)


def egr_16(facts: HostFacts) -> Iterator[str]:
    """ICMP goes to single hosts only, and the canary's ping failed."""
    for flow in facts.of(EgressFacts).flows:
        if flow.protocol is Wire.ICMP:
            single = all(one.num_addresses == 1 for one in flow.networks())
            yield from need(single, f"{flow.id} lets ICMP reach a network")
    yield from drill_faults(facts, "egress-icmp", days=7)


def egr_18(facts: HostFacts) -> Iterator[str]:
    """Nothing undeclared left since the rows before, and no row has expired."""
    rows, egress = facts.of(WatchFacts).rows, facts.of(EgressFacts)
    grown = rows[-1].undeclared > rows[0].undeclared
    yield from need(not grown, "undeclared bytes tried to leave")
    for name in egress.expired:
        yield f"row {name} has expired"


def egr_19(facts: HostFacts) -> Iterator[str]:
    """Flow records have no gap, the kernel counts connections, and a day of looks is whole."""
    records = facts.of(FlowRecords)
    yield from need(records.longest_gap_s <= _FRESH_S, "flow records have a gap")
    counted = facts.of(Sysctls).number("net/netfilter/nf_conntrack_acct") == 1
    yield from need(counted, "the kernel counts no connections")


def egr_20(facts: HostFacts) -> Iterator[str]:
    """Less than half a per cent of the bytes have no process."""
    records = facts.of(FlowRecords)
    yield from some([None] * (records.bytes_seen > 0), "byte")
    yield from need(
        records.bytes_unattributed * 200 < max(1, records.bytes_seen),
        "too many bytes have no process",
    )


def egr_21(facts: HostFacts) -> Iterator[str]:
    """Drivers of removable media are not loaded and refused."""
    kernel = facts.of(Kernel)
    for name in ("usb_storage", "uas"):
        yield from need(name not in kernel.modules, f"module {name} is loaded")
        yield from need(name in kernel.refused_modules, f"module {name} is not refused")


def egr_22(facts: HostFacts) -> Iterator[str]:
    """There is no radio."""
    for name in facts.of(Kernel).wireless:
        yield f"{name} is a radio"


def egr_24(facts: HostFacts) -> Iterator[str]:
    """No key was sent more than its quota, and no more than the top token's chance is told."""
    outputs = facts.of(Outputs)
    yield from need(outputs.quota > 0, "keys have no quota")
    for key, sent in sorted(outputs.bytes_per_key.items()):
        yield from need(sent <= outputs.quota, f"key {key} is above its quota")
    yield from need(outputs.top_logprobs <= 1, "chances of many tokens are told")


def _within(inner: Sequence[str], outer: Sequence[str]) -> bool:
    nets = [ipaddress.ip_network(one) for one in outer]
    return all(
        any(
            ipaddress.ip_network(one).version == net.version
            and ipaddress.ip_network(one).subnet_of(net)  # type: ignore[arg-type]
            for net in nets
        )
        for one in inner
    )


JUDGES: dict[str, Judge] = {
    "egr-01": egr_01,
    "egr-02": egr_02,
    "egr-03": egr_03,
    "egr-04": egr_04,
    "egr-05": egr_05,
    "egr-06": egr_06,
    "egr-07": egr_07,
    "egr-08": egr_08,
    "egr-09": egr_09,
    "egr-10": drilled("egress-drift", days=7, seconds=7 * DAY),
    "egr-11": drilled("egress-slow", days=30),
    "egr-12": drilled("egress-ratio", days=7),
    "egr-13": drilled("egress-beacon", days=7),
    "egr-14": egr_14,
    "egr-15": egr_15,
    "egr-16": egr_16,
    "egr-17": drilled("egress-kill-switch", days=7, seconds=1),
    "egr-18": egr_18,
    "egr-19": egr_19,
    "egr-20": egr_20,
    "egr-21": egr_21,
    "egr-22": egr_22,
    "egr-24": egr_24,
    "egr-26": drilled("weights-archiving", days=30),
}
