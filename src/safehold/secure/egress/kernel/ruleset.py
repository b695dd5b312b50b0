"""Compile flows into one nftables transaction, as libnftables-json(5) values.

Every packet that leaves meets `output` (or `forward`), is matched to exactly one flow chain, pays
the quotas of that flow's windows and the total ones, and is counted only when it passes. What no
row declares meets the policy: drop. Three facts of the kernel shape this file:

1. Replacing a table resets each quota's `used`: a reload would refund the budget. So quotas are
   never deleted with their table. The transaction flushes chains and *updates* quota objects in
   place, which sets the limit and leaves `used` alone, with no packet in between.
2. A quota counts dropped packets too, and reports `used` cut to its limit. So what passed is
   counted by a counter behind the quotas, and a depleted quota is made anew, inside the same
   transaction, with exactly what its window has left.
3. `limit rate` lets a whole unit through at once, so it never appears here.

Which chain a packet's flow is, and whose it is, is in `dispatch`.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from safehold.secure.egress.declare.plan import NEIGHBOUR_BYTES_PER_DAY, EgressPlan
from safehold.secure.egress.declare.register import Flow
from safehold.secure.egress.interface import EgressMode, Window
from safehold.secure.egress.kernel.dispatch import (
    DISPATCH,
    Owners,
    bind,
    dispatch,
    handshakes,
    ownerless,
    serves_group,
)
from safehold.secure.egress.kernel.statements import (
    FAMILY,
    TABLE,
    Json,
    add,
    in_table,
    match,
    meta,
    networks,
    payload,
    rule,
    table,
)

WIRE_TABLE = "safehold_wire"
LOG_GROUP = 117
NEIGHBOURS = "neighbours"
ARP = "arp"
RAW = "raw"
LINK_LOCAL = "link_local"
ALIVE, DEAD = "alive", "dead"
INWARD = "inward"
"""On a box: packets on their way to what it guards; they carry nothing out."""
PLAIN_COUNTERS = (DEAD, "undeclared", "invalid", "loopback", "sealed", LINK_LOCAL)
UNDECLARED = ("undeclared", "invalid", LINK_LOCAL)
"""Counters of packets that no row declares: dropped, or in map mode let through."""
TOTAL = "total"

LOCAL_NETWORKS = {
    "ip": [ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("224.0.0.0/3")],
    "ip6": [ipaddress.ip_network("fe80::/10"), ipaddress.ip_network("ff00::/8")],
}
"""Link-local, multicast, reserved and broadcast: a row for the whole Internet never means these
(cloud metadata services live at 169.254.169.254)."""

_COUNTS = ("c_", "d_", "t_", "x_")
"""Counters of a flow: what passed and what was dropped; for a reconciled one, of what passed, the
segments with 12 bytes of TCP options or more, and the packets over IPv6."""

_TCP_HEADERS, _UDP_HEADERS, _OPTIONS, _IPV6_MORE = 40, 28, 12, 20
_DATA_OFFSET = 8
"""A TCP header of 8 words: 20 bytes, and the 12 of the timestamps that the kernel sends."""

QuotaKey = tuple[str, Window]


class Quota(msgspec.Struct, frozen=True):
    """How many bytes one window of one flow has left, and how the kernel learns it.

    `limit` is the value for the kernel's object; `fresh` says to make the object anew with
    `used` = 0 (only for an object that does not exist or is depleted).
    """

    limit: int
    fresh: bool


class Desired(msgspec.Struct, frozen=True):
    """All that a transaction is made from.

    `rows` are (account, row) where the rows to match are not the accounts that pay, on a box.
    """

    flows: tuple[Flow, ...]
    plan: EgressPlan
    uids: Mapping[str, int]
    interfaces: Mapping[str, str]
    quotas: Mapping[QuotaKey, Quota]
    blocked: frozenset[str] = frozenset()
    sealed: bool = False
    gone: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    rows: tuple[tuple[str, Flow], ...] = ()


def budgets_of(flows: Sequence[Flow], plan: EgressPlan) -> dict[str, Mapping[Window, int]]:
    """The budgets of every account: the flows, the total and neighbour discovery."""
    others = {
        TOTAL: plan.total,
        NEIGHBOURS: {Window.DAY: NEIGHBOUR_BYTES_PER_DAY},
        ARP: {Window.DAY: NEIGHBOUR_BYTES_PER_DAY},
    }
    own = {flow.id: flow.budget for flow in flows}
    return {name: own[name] if name in own else others[name] for name in accounts(flows, plan)}


def accounts(flows: Sequence[Flow], plan: EgressPlan) -> tuple[str, ...]:
    """Every name that has budgets: the flows, the total and neighbour discovery."""
    total = (TOTAL,) if plan.total else ()
    neighbours = (NEIGHBOURS,) if plan.local.neighbour_discovery else ()
    arp = (ARP,) if plan.local.raw_frame_guard else ()
    return (*(flow.id for flow in flows), *total, *neighbours, *arp)


def quota_name(name: str, window: Window) -> str:
    """The kernel's name of one quota."""
    return f"q_{name}_{window.value}"


def header_bytes(flow: Flow, packets: Mapping[str, int]) -> int:
    """The header bytes among what passed of a reconciled flow, from the kernel's packet counters.

    Options beyond timestamps (rare on segments with data) are not taken as headers: whoever could
    stuff options would else send unseen. 0 for a protocol whose headers are not known.
    """
    count, more = packets.get(f"c_{flow.id}", 0), packets.get(f"x_{flow.id}", 0) * _IPV6_MORE
    if flow.transport() == {"tcp"}:
        return count * _TCP_HEADERS + packets.get(f"t_{flow.id}", 0) * _OPTIONS + more
    return count * _UDP_HEADERS + more if flow.transport() == {"udp"} else 0


def class_ids(flows: Sequence[Flow]) -> dict[str, int]:
    """The tc class of each flow, `1:<minor>`, as one 32-bit number."""
    return {flow.id: (1 << 16) | (0x100 + place) for place, flow in enumerate(flows)}


def transaction(desired: Desired, *, renew: bool = True) -> Json:
    """Return the transaction that makes the kernel hold `desired`, whatever it held before.

    `renew=False` gives the dead man no more time: packets pass for as long as the last look said.
    """
    commands: list[Json] = [table(FAMILY, TABLE)]
    if desired.plan.local.raw_frame_guard:
        commands.append(table("netdev", WIRE_TABLE))
        # A quota that a rule names can't be made anew: after the other table was deleted it must.
        commands += _wire_chains(desired)
    commands += [_counter(name) for name in (*PLAIN_COUNTERS, *_flow_counters(desired))]
    commands += _chains(desired)
    for (name, window), quota in desired.quotas.items():
        if quota.fresh:
            # An `add` first makes the `delete` valid when the object is missing.
            commands.append(_quota(name, window, quota.limit))
            commands.append(
                {"delete": {"quota": {**_place(name), "name": quota_name(name, window)}}}
            )
        commands.append(_quota(name, window, quota.limit))
    commands += renewal(desired.plan, renew=renew)
    commands += _hooks(desired)
    owners = Owners(desired.uids, desired.interfaces)
    for account, flow in desired.rows or [(flow.id, flow) for flow in desired.flows]:
        commands += dispatch(flow, owners, account)
    classes = class_ids(desired.flows)
    for flow in desired.flows:
        commands += _pay(flow, desired, classes[flow.id])
    commands += handshakes(desired.flows)
    commands += ownerless(desired.flows)
    for name in desired.gone:
        commands += _remove(name)
    if desired.plan.local.raw_frame_guard:
        commands += _wire_guard(desired)
    return {"nftables": commands}


def first_drop(account: str | None, plan: EgressPlan) -> Json:
    """Return one rule at the head that drops a flow, or (None) all that leaves this host.

    It is for the moment until the rules are made anew; the kernel refuses it where there are none.
    """
    if account is not None:
        drop: list[Json] = [{"counter": f"d_{account}"}, {"drop": None}]
        return {"nftables": [_inserted(f"f_{account}", drop)]}
    inner = (["lo"] if plan.local.loopback else []) + ([plan.box.inside] if plan.box.inside else [])
    leaves = [match(meta("oifname"), name, "!=") for name in inner]
    drop = [*leaves, {"counter": "sealed"}, {"drop": None}]
    return {"nftables": [_inserted(hook, drop) for hook in ("output", "forward")]}


def flow_closed(account: str, desired: Desired) -> Json | None:
    """Return the transaction that makes a blocked flow's own chain whole; None for no such flow."""
    for flow in desired.flows:
        if flow.id == account and account in desired.blocked:
            chain = {"flush": {"chain": {**in_table(), "name": f"f_{account}"}}}
            return {"nftables": [chain, *_pay(flow, desired, 0)]}
    return None


def _inserted(chain: str, expr: list[Json]) -> Json:
    return {"insert": {"rule": {**in_table(), "chain": chain, "expr": expr}}}


def quota_update(lines: Mapping[QuotaKey, int], plan: EgressPlan, *, renew: bool = True) -> Json:
    """Return the transaction that only moves quota limits and renews the dead man; `used` stays."""
    moved = [_quota(name, window, limit) for (name, window), limit in lines.items()]
    return {"nftables": [*moved, *renewal(plan, renew=renew)]}


def renewal(plan: EgressPlan, *, renew: bool = True) -> list[Json]:
    """Commands that let packets pass for another `dead_man_s`, or with `renew=False` only the set.

    The set `alive` holds both address families for that long; the kernel drops the elements, and
    with them every packet, by itself.
    """
    if not dead_man(plan):
        return []
    body = {**in_table(), "name": ALIVE}
    elements = [
        {"elem": {"val": family, "timeout": plan.judge.dead_man_s}} for family in ("ipv4", "ipv6")
    ]
    place = {"element": {**body, "elem": elements}}
    made: Json = {"add": {"set": {**body, "type": "nf_proto", "flags": ["timeout"]}}}
    if not renew:
        return [made]
    return [
        made,
        {"add": place},
        {"delete": {"element": {**body, "elem": ["ipv4", "ipv6"]}}},
        {"add": place},
    ]


def dead_man(plan: EgressPlan) -> bool:
    """Whether the kernel closes by itself when no look renews the rules."""
    return bool(plan.judge.dead_man_s) and plan.mode is EgressMode.ENFORCE


def foreign_removal(chains: Iterable[tuple[str, str]]) -> Json:
    """Return the transaction that takes chains out of our tables that nobody compiled."""
    commands: list[Json] = []
    for name, chain in chains:
        place = {"family": FAMILY if name == TABLE else "netdev", "table": name, "name": chain}
        commands += [{"flush": {"chain": place}}, {"delete": {"chain": place}}]
    return {"nftables": commands}


def removal() -> Json:
    """Return the transaction that takes all of it away (opens the host)."""
    commands: list[Json] = []
    for family, name in ((FAMILY, TABLE), ("netdev", WIRE_TABLE)):
        table = {"family": family, "name": name}
        commands += [{"add": {"table": table}}, {"delete": {"table": table}}]
    return {"nftables": commands}


def _place(account: str) -> Json:
    """The table that an account's objects live in."""
    return {"family": "netdev", "table": WIRE_TABLE} if account == ARP else in_table()


def _counter(name: str) -> Json:
    account = name[2:] if name[:2] in _COUNTS else name
    place = {"family": "netdev", "table": WIRE_TABLE} if name == RAW else _place(account)
    return {"add": {"counter": {**place, "name": name}}}


def _quota(name: str, window: Window, limit: int) -> Json:
    # The kernel refuses a quota of 0; a limit of 1 lets no packet pass.
    body = {**_place(name), "name": quota_name(name, window), "bytes": max(1, limit), "inv": True}
    return {"add": {"quota": body}}


def _flow_counters(desired: Desired) -> Iterable[str]:
    if desired.plan.local.raw_frame_guard:
        yield RAW
    if desired.plan.box.inside:
        yield INWARD
    for name in accounts(desired.flows, desired.plan):
        yield f"c_{name}"
        yield f"d_{name}"
    for flow in desired.flows:
        if flow.reconciled:
            yield f"t_{flow.id}"
            yield f"x_{flow.id}"


def _chains(desired: Desired) -> list[Json]:
    policy = "drop" if desired.plan.mode is EgressMode.ENFORCE or desired.sealed else "accept"
    hooked = [
        add("chain", name=hook, type="filter", hook=hook, prio=0, policy=policy)
        for hook in ("output", "forward")
    ]
    hooked.append(add("chain", name="input", type="filter", hook="input", prio=0, policy="accept"))
    plain = [*DISPATCH.values(), "undeclared", "pass", *(f"f_{flow.id}" for flow in desired.flows)]
    plain += [f"s_{flow.id}" for flow in desired.flows if flow.source.cgroup]
    for flow in desired.flows:
        if serves_group(flow):
            plain += [f"i_{flow.id}", f"h_{flow.id}"]
    declared = hooked + [add("chain", name=name) for name in plain]
    # The cgroup chains are filled by their own netlink message, and only when they change.
    flushed = [
        {"flush": {"chain": {**in_table(), "name": name}}}
        for name in ("output", "forward", "input", *plain)
        if not name.startswith(("s_", "i_"))
    ]
    return declared + flushed


def _hooks(desired: Desired) -> list[Json]:
    rules: list[Json] = []
    if desired.plan.local.loopback:
        lo = [match(meta("oifname"), "lo"), {"counter": "loopback"}, {"accept": None}]
        rules.append(rule("output", lo, "loopback never leaves this network namespace"))
    for hook in ("output", "forward"):
        if desired.plan.box.inside:
            inward = [match(meta("oifname"), desired.plan.box.inside), {"counter": INWARD}]
            rules.append(rule(hook, [*inward, {"accept": None}], "into what the box guards"))
        if desired.sealed:
            rules.append(rule(hook, [{"counter": "sealed"}, {"drop": None}]))
            continue
        if dead_man(desired.plan):
            dead = match(meta("nfproto"), f"@{ALIVE}", "!=")
            rules.append(rule(hook, [dead, {"counter": DEAD}, {"drop": None}]))
        bad = [match({"ct": {"key": "state"}}, ["invalid", "untracked"], "in")]
        if hook == "output":
            # Neighbour discovery is untracked by the kernel; it pays its own quota.
            rules += [rule("output", expr) for expr in _neighbour_rules(desired)]
        rules.append(rule(hook, [*bad, {"counter": "invalid"}, _verdict(desired)]))
        if not desired.plan.local.link_local:
            rules += [
                rule(
                    hook, [match(payload(family, "daddr"), networks(nets)), *_refuse_local(desired)]
                )
                for family, nets in LOCAL_NETWORKS.items()
            ]
        rules.append(rule(hook, [{"jump": {"target": DISPATCH[hook]}}]))
        rules.append(rule(hook, [{"goto": {"target": "undeclared"}}]))
    rules.append(
        rule(
            "undeclared",
            [{"counter": "undeclared"}, {"log": {"group": LOG_GROUP, "snaplen": 96}}],
        )
    )
    rules.append(rule("undeclared", [_verdict(desired)]))
    rules += (
        [rule("pass", expr) for expr in _paid(TOTAL, desired.plan.total)]
        if desired.plan.total
        else []
    )
    rules.append(rule("pass", [{"accept": None}]))
    return rules


def _refuse_local(desired: Desired) -> list[Json]:
    return [{"counter": LINK_LOCAL}, _verdict(desired)]


def _verdict(desired: Desired) -> Json:
    return {"drop": None} if desired.plan.mode is EgressMode.ENFORCE else {"accept": None}


def _neighbour_rules(desired: Desired) -> list[list[Json]]:
    if not desired.plan.local.neighbour_discovery:
        return []
    kinds = ["nd-router-solicit", "nd-neighbor-solicit", "nd-neighbor-advert"]
    nd = [
        match(payload("icmpv6", "type"), {"set": kinds}),
        match(payload("ip6", "hoplimit"), 255),
    ]
    quota = {"quota": quota_name(NEIGHBOURS, Window.DAY)}
    return [
        [*nd, quota, {"counter": f"d_{NEIGHBOURS}"}, {"drop": None}],
        [*nd, {"counter": f"c_{NEIGHBOURS}"}, {"accept": None}],
    ]


def _pay(flow: Flow, desired: Desired, class_id: int) -> list[Json]:
    chain = f"f_{flow.id}"
    if flow.id in desired.blocked:
        return [rule(chain, [{"counter": f"d_{flow.id}"}, {"drop": None}], "blocked")]
    shaped = {"mangle": {"key": meta("priority"), "value": class_id}}
    return [
        *bind(flow),
        *(rule(chain, expr) for expr in _paid(flow.id, flow.budget)),
        *(rule(chain, expr) for expr in _header_counts(flow)),
        rule(chain, [*([shaped] if desired.plan.link.shape else []), {"goto": {"target": "pass"}}]),
    ]


def _header_counts(flow: Flow) -> list[list[Json]]:
    """Rules that count what the size of a passed packet's headers depends on."""
    if not flow.reconciled:
        return []
    counts = [[match(meta("nfproto"), "ipv6"), {"counter": f"x_{flow.id}"}]]
    if flow.transport() == {"tcp"}:
        long = match(payload("tcp", "doff"), _DATA_OFFSET, ">=")
        counts.append([long, {"counter": f"t_{flow.id}"}])
    return counts


def _paid(name: str, windows: Iterable[Window]) -> list[list[Json]]:
    """Rules that drop when a window is spent, then count what passes."""
    rules: list[list[Json]] = [
        [{"quota": quota_name(name, window)}, {"counter": f"d_{name}"}, {"drop": None}]
        for window in windows
    ]
    return [*rules, [{"counter": f"c_{name}"}]]


def _remove(name: str) -> list[Json]:
    """Delete whatever an account that left the register still has.

    An `add` before each `delete` makes it valid when the object is missing.
    """
    commands: list[Json] = []
    for chain in (f"s_{name}", f"i_{name}", f"h_{name}", f"f_{name}"):
        place = {**in_table(), "name": chain}
        commands += [{"add": {"chain": place}}, {"flush": {"chain": place}}]
        commands.append({"delete": {"chain": place}})
    for window in Window:
        commands.append(_quota(name, window, 1))
        place = {**_place(name), "name": quota_name(name, window)}
        commands.append({"delete": {"quota": place}})
    for kind in _COUNTS:
        commands.append(_counter(f"{kind}{name}"))
        commands.append({"delete": {"counter": {**_place(name), "name": f"{kind}{name}"}}})
    return commands


def _wire_chains(desired: Desired) -> list[Json]:
    """Every guarded device's chain, without rules."""
    policy = "drop" if desired.plan.mode is EgressMode.ENFORCE else "accept"
    commands: list[Json] = []
    for interface in desired.devices or desired.plan.link.interfaces:
        chain = {"family": "netdev", "table": WIRE_TABLE, "name": f"wire_{interface}"}
        hook = {"type": "filter", "hook": "egress", "dev": interface, "prio": 0}
        commands.append({"add": {"chain": {**chain, **hook, "policy": policy}}})
        commands.append({"flush": {"chain": chain}})
    return commands


def _wire_guard(desired: Desired) -> list[Json]:
    """Stop frames that never met the rules above, at each device's own egress hook.

    A process with CAP_NET_RAW can hand complete frames to a device (AF_PACKET), past `output`
    and `forward`. Here only ARP, within its quota, and packets that have a route go on. The kernel
    attaches the route where it routes, before those hooks, and a frame that a process made has
    none: there is no secret that a tap could read and no value that a process could set.
    """
    inside = {"family": "netdev", "table": WIRE_TABLE}
    arp = [match(meta("protocol"), "arp")]
    commands: list[Json] = []
    routed = match(meta("rtclassid"), 2**32 - 1, "<=")
    for interface in desired.devices or desired.plan.link.interfaces:
        commands += [
            {"add": {"rule": {**inside, "chain": f"wire_{interface}", "expr": expr}}}
            for expr in (
                [routed, {"accept": None}],
                [
                    *arp,
                    {"quota": quota_name(ARP, Window.DAY)},
                    {"counter": "d_arp"},
                    {"drop": None},
                ],
                [*arp, {"counter": "c_arp"}, {"accept": None}],
                [{"counter": RAW}],
            )
        ]
    return commands
