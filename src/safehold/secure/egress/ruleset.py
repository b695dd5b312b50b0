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
4. A socket that its process closed has no owner any more, but TCP still sends what it held, and
   the kernel itself answers for it later. So a connection is bound to its flow (by a secret
   connection mark) when a packet with an owner is accepted, and what comes without one follows.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from safehold.secure.egress.interface import Direction, KernelError, Mode, Window, Wire
from safehold.secure.egress.plan import NEIGHBOUR_BYTES_PER_DAY, Plan
from safehold.secure.egress.register import Flow

TABLE = "safehold_egress"
WIRE_TABLE = "safehold_wire"
FAMILY = "inet"
LOG_GROUP = 117
NEIGHBOURS = "neighbours"
ARP = "arp"
RAW = "raw"
LINK_LOCAL = "link_local"
PLAIN_COUNTERS = ("undeclared", "invalid", "loopback", "sealed", LINK_LOCAL)
TOTAL = "total"

DISPATCH = {"output": "local", "forward": "transit"}
"""Local and forwarded flows apart: the kernel takes a cgroup match only where a socket is known."""

LOCAL_NETWORKS = {
    "ip": [ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("224.0.0.0/3")],
    "ip6": [ipaddress.ip_network("fe80::/10"), ipaddress.ip_network("ff00::/8")],
}
"""Link-local, multicast, reserved and broadcast: a row for the whole Internet never means these
(cloud metadata services live at 169.254.169.254)."""

Json = dict[str, Any]
CT_MARK: Json = {"ct": {"key": "mark"}}
NO_UID = 2**32 - 1
"""The user id that no user has."""
QuotaKey = tuple[str, Window]


class Quota(msgspec.Struct, frozen=True):
    """How many bytes one window of one flow has left, and how the kernel learns it.

    `limit` is the value for the kernel's object; `fresh` says to make the object anew with
    `used` = 0 (only for an object that does not exist or is depleted).
    """

    limit: int
    fresh: bool


class Desired(msgspec.Struct, frozen=True):
    """All that a transaction is made from."""

    flows: tuple[Flow, ...]
    plan: Plan
    uids: Mapping[str, int]
    interfaces: Mapping[str, str]
    quotas: Mapping[QuotaKey, Quota]
    blocked: frozenset[str] = frozenset()
    sealed: bool = False
    gone: tuple[str, ...] = ()
    mark: int = 1


def windows_of(name: str, flows: Sequence[Flow], plan: Plan) -> Mapping[Window, int]:
    """The budgets of a flow, of the total (`total`) or of neighbour discovery."""
    if name == TOTAL:
        return plan.total
    if name in {NEIGHBOURS, ARP}:
        return {Window.DAY: NEIGHBOUR_BYTES_PER_DAY}
    return next(flow.budget for flow in flows if flow.id == name)


def accounts(flows: Sequence[Flow], plan: Plan) -> tuple[str, ...]:
    """Every name that has budgets: the flows, the total and neighbour discovery."""
    total = (TOTAL,) if plan.total else ()
    neighbours = (NEIGHBOURS,) if plan.local.neighbour_discovery else ()
    arp = (ARP,) if plan.local.raw_frame_guard else ()
    return (*(flow.id for flow in flows), *total, *neighbours, *arp)


def quota_name(name: str, window: Window) -> str:
    """The kernel's name of one quota."""
    return f"q_{name}_{window.value}"


def class_id(flow: str, flows: Sequence[Flow]) -> int:
    """The tc class of a flow, `1:<minor>`, as one 32-bit number."""
    return (1 << 16) | (0x100 + [row.id for row in flows].index(flow))


def transaction(desired: Desired) -> Json:
    """Return the transaction that makes the kernel hold `desired`, whatever it held before."""
    commands: list[Json] = [_table(FAMILY, TABLE)]
    if desired.plan.local.raw_frame_guard:
        commands.append(_table("netdev", WIRE_TABLE))
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
    commands += _hooks(desired)
    for flow in desired.flows:
        commands += _dispatch(flow, desired)
        commands += _pay(flow, desired)
    commands += _ownerless(desired)
    for name in desired.gone:
        commands += _remove(name)
    if desired.plan.local.raw_frame_guard:
        commands += _wire_guard(desired.plan, desired.mark)
    return {"nftables": commands}


def quota_update(lines: Mapping[QuotaKey, int]) -> Json:
    """Return the transaction that only moves quota limits; `used` stays."""
    return {"nftables": [_quota(name, window, limit) for (name, window), limit in lines.items()]}


def removal() -> Json:
    """Return the transaction that takes all of it away (opens the host)."""
    commands: list[Json] = []
    for family, name in ((FAMILY, TABLE), ("netdev", WIRE_TABLE)):
        table = {"family": family, "name": name}
        commands += [{"add": {"table": table}}, {"delete": {"table": table}}]
    return {"nftables": commands}


def _in_table() -> Json:
    return {"family": FAMILY, "table": TABLE}


def _table(family: str, name: str) -> Json:
    return {"add": {"table": {"family": family, "name": name}}}


def _add(kind: str, *, name: str, **more: object) -> Json:
    return {"add": {kind: {**_in_table(), "name": name, **more}}}


def _place(account: str) -> Json:
    """The table that an account's objects live in."""
    return {"family": "netdev", "table": WIRE_TABLE} if account == ARP else _in_table()


def _counter(name: str) -> Json:
    account = name[2:] if name[:2] in {"c_", "d_"} else name
    place = {"family": "netdev", "table": WIRE_TABLE} if name == RAW else _place(account)
    return {"add": {"counter": {**place, "name": name}}}


def _quota(name: str, window: Window, limit: int) -> Json:
    # The kernel refuses a quota of 0; a limit of 1 lets no packet pass.
    body = {**_place(name), "name": quota_name(name, window), "bytes": max(1, limit), "inv": True}
    return {"add": {"quota": body}}


def _rule(chain: str, expr: list[Json], comment: str = "") -> Json:
    rule: Json = {**_in_table(), "chain": chain, "expr": expr}
    if comment:
        rule["comment"] = comment
    return {"add": {"rule": rule}}


def _match(left: Json, right: object, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def _meta(key: str) -> Json:
    return {"meta": {"key": key}}


def _payload(protocol: str, field: str) -> Json:
    return {"payload": {"protocol": protocol, "field": field}}


def _flow_counters(desired: Desired) -> Iterable[str]:
    if desired.plan.local.raw_frame_guard:
        yield RAW
    for name in accounts(desired.flows, desired.plan):
        yield f"c_{name}"
        yield f"d_{name}"


def _chains(desired: Desired) -> list[Json]:
    policy = "drop" if desired.plan.mode is Mode.ENFORCE or desired.sealed else "accept"
    hooked = [
        _add("chain", name=hook, type="filter", hook=hook, prio=0, policy=policy)
        for hook in ("output", "forward")
    ]
    plain = [*DISPATCH.values(), "undeclared", "pass", *(f"f_{flow.id}" for flow in desired.flows)]
    plain += [f"s_{flow.id}" for flow in desired.flows if flow.source.cgroup]
    declared = hooked + [_add("chain", name=name) for name in plain]
    # The cgroup chains are filled by their own netlink message, and only when they change.
    flushed = [
        {"flush": {"chain": {**_in_table(), "name": name}}}
        for name in ("output", "forward", *plain)
        if not name.startswith("s_")
    ]
    return declared + flushed


def _hooks(desired: Desired) -> list[Json]:
    rules: list[Json] = []
    if desired.plan.local.loopback:
        lo = [_match(_meta("oifname"), "lo"), {"counter": "loopback"}, {"accept": None}]
        rules.append(_rule("output", lo, "loopback never leaves this network namespace"))
    for hook in ("output", "forward"):
        if desired.sealed:
            rules.append(_rule(hook, [{"counter": "sealed"}, {"drop": None}]))
            continue
        bad = [_match({"ct": {"key": "state"}}, ["invalid", "untracked"], "in")]
        if hook == "output":
            # Neighbour discovery is untracked by the kernel; it pays its own quota.
            rules += [_rule("output", expr) for expr in _neighbour_rules(desired)]
        rules.append(_rule(hook, [*bad, {"counter": "invalid"}, _verdict(desired)]))
        if not desired.plan.local.link_local:
            rules += [
                _rule(
                    hook, [_match(_payload(family, "daddr"), _set(nets)), *_refuse_local(desired)]
                )
                for family, nets in LOCAL_NETWORKS.items()
            ]
        rules.append(_rule(hook, [{"jump": {"target": DISPATCH[hook]}}]))
        rules.append(_rule(hook, [{"goto": {"target": "undeclared"}}]))
    rules.append(
        _rule(
            "undeclared",
            [{"counter": "undeclared"}, {"log": {"group": LOG_GROUP, "snaplen": 96}}],
        )
    )
    rules.append(_rule("undeclared", [_verdict(desired)]))
    rules += [_rule("pass", expr) for expr in _paid(TOTAL, desired)] if desired.plan.total else []
    mark = {"mangle": {"key": _meta("mark"), "value": desired.mark}}
    rules.append(_rule("pass", [mark, {"accept": None}]))
    return rules


def _refuse_local(desired: Desired) -> list[Json]:
    return [{"counter": LINK_LOCAL}, _verdict(desired)]


def _verdict(desired: Desired) -> Json:
    return {"drop": None} if desired.plan.mode is Mode.ENFORCE else {"accept": None}


def _neighbour_rules(desired: Desired) -> list[list[Json]]:
    if not desired.plan.local.neighbour_discovery:
        return []
    kinds = ["nd-router-solicit", "nd-neighbor-solicit", "nd-neighbor-advert"]
    nd = [
        _match(_payload("icmpv6", "type"), {"set": kinds}),
        _match(_payload("ip6", "hoplimit"), 255),
    ]
    quota = {"quota": quota_name(NEIGHBOURS, Window.DAY)}
    mark = {"mangle": {"key": _meta("mark"), "value": desired.mark}}
    return [
        [*nd, quota, {"counter": f"d_{NEIGHBOURS}"}, {"drop": None}],
        [*nd, {"counter": f"c_{NEIGHBOURS}"}, mark, {"accept": None}],
    ]


def binding(flow: str, mark: int) -> int:
    """The connection mark of a flow: the same after every reload, and not to be guessed."""
    digest = hashlib.sha256(f"{mark}/{flow}".encode()).digest()
    return int.from_bytes(digest[:4], "big") | 1


def _ownerless(desired: Desired) -> list[Json]:
    """Rules for packets of a TCP connection whose socket was closed: they stay in their flow.

    A packet whose owner is known never gets here, so no user inherits another's connection.
    """
    chain = DISPATCH["output"]
    known = [_match(_meta("skuid"), NO_UID, "!="), {"goto": {"target": "undeclared"}}]
    rules = [_rule(chain, known, "whoever is known matched above, or is undeclared")]
    for flow in desired.flows:
        if _owned(flow) and "tcp" in flow.transport():
            rules += _dispatch(flow, desired, bound=True)
    return rules


def _owned(flow: Flow) -> bool:
    """Whether a row names the owner of the socket."""
    source = flow.source
    return bool(source.user or source.uid is not None or source.cgroup)


def _dispatch(flow: Flow, desired: Desired, *, bound: bool = False) -> list[Json]:
    """One rule per address family and transport that sends the packet to its flow's chain.

    `bound` asks for the connection's mark in place of the socket's owner.
    """
    rules = []
    target = f"s_{flow.id}" if flow.source.cgroup and not bound else f"f_{flow.id}"
    for version, family in ((4, "ip"), (6, "ip6")):
        nets = [net for net in flow.networks() if net.version == version]
        if not nets:
            continue
        sources = [
            net for net in map(ipaddress.ip_network, flow.source.address) if net.version == version
        ]
        if flow.source.address and not sources:
            continue
        expr: list[Json] = [_match(_meta("nfproto"), f"ipv{version}")]
        if bound:
            expr.append(_match(_meta("l4proto"), "tcp"))
            expr.append(_match(CT_MARK, binding(flow.id, desired.mark)))
        else:
            expr += _source(flow, desired)
        if sources:
            expr.append(_match(_payload(family, "saddr"), _set(sources)))
        # The whole space needs no test, and the kernel has no match of zero bits.
        if all(net.prefixlen for net in nets):
            expr.append(_match(_payload(family, "daddr"), _set(nets)))
        transport = _transport(flow, version)
        if transport is None:
            continue
        expr += transport
        way = "original" if flow.direction is Direction.OUT else "reply"
        expr.append(_match({"ct": {"key": "direction"}}, way))
        chain = DISPATCH["forward" if flow.source.forwarded else "output"]
        rules.append(_rule(chain, [*expr, {"goto": {"target": target}}], flow.id))
    if not rules:
        raise KernelError(f"flow {flow.id}: no rule can match it (address families differ)")
    return rules


def _set(nets: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> Json:
    return {
        "set": [
            {"prefix": {"addr": str(net.network_address), "len": net.prefixlen}}
            if net.prefixlen < net.max_prefixlen
            else str(net.network_address)
            for net in nets
        ]
    }


def _source(flow: Flow, desired: Desired) -> list[Json]:
    source = flow.source
    expr: list[Json] = []
    if source.user or source.uid is not None:
        uid = desired.uids[source.user] if source.user else source.uid
        expr.append(_match(_meta("skuid"), uid))
    if source.forwarded:
        interface = source.interface or desired.interfaces[source.netns]
        expr.append(_match(_meta("iifname"), interface))
    return expr


def _transport(flow: Flow, version: int) -> list[Json] | None:
    """Return the matches on protocol and port, or None when this family can't carry it."""
    match flow.protocol:
        case Wire.ICMP:
            echo = _match(_payload("icmp", "type"), "echo-request")
            return [echo] if version == 4 else None  # noqa: PLR2004 - the IP version
        case Wire.ICMPV6:
            echo = _match(_payload("icmpv6", "type"), "echo-request")
            return [echo] if version == 6 else None  # noqa: PLR2004 - the IP version
        case _:
            field = "dport" if flow.direction is Direction.OUT else "sport"
            return [
                _match(_meta("l4proto"), {"set": sorted(flow.transport())}),
                _match(_payload("th", field), {"set": list(flow.ports)}),
            ]


def _pay(flow: Flow, desired: Desired) -> list[Json]:
    chain = f"f_{flow.id}"
    if flow.id in desired.blocked:
        return [_rule(chain, [{"counter": f"d_{flow.id}"}, {"drop": None}], "blocked")]
    priority = {
        "mangle": {"key": _meta("priority"), "value": class_id(flow.id, desired.flows)},
    }
    bind: list[Json] = []
    if _owned(flow) and "tcp" in flow.transport():
        # A mark that some other software gave is left alone: then only the tail is lost.
        mark = {"mangle": {"key": CT_MARK, "value": binding(flow.id, desired.mark)}}
        bind = [_rule(chain, [_match(_meta("l4proto"), "tcp"), _match(CT_MARK, 0), mark])]
    return [
        *bind,
        *(_rule(chain, expr) for expr in _paid(flow.id, desired)),
        _rule(chain, [priority, {"goto": {"target": "pass"}}]),
    ]


def _paid(name: str, desired: Desired) -> list[list[Json]]:
    """Rules that drop when a window is spent, then count what passes."""
    rules: list[list[Json]] = [
        [{"quota": quota_name(name, window)}, {"counter": f"d_{name}"}, {"drop": None}]
        for window in windows_of(name, desired.flows, desired.plan)
    ]
    return [*rules, [{"counter": f"c_{name}"}]]


def _remove(name: str) -> list[Json]:
    """Delete whatever an account that left the register still has.

    An `add` before each `delete` makes it valid when the object is missing.
    """
    commands: list[Json] = []
    for chain in (f"s_{name}", f"f_{name}"):
        place = {**_in_table(), "name": chain}
        commands += [{"add": {"chain": place}}, {"flush": {"chain": place}}]
        commands.append({"delete": {"chain": place}})
    for window in Window:
        commands.append(_quota(name, window, 1))
        place = {**_place(name), "name": quota_name(name, window)}
        commands.append({"delete": {"quota": place}})
    for kind in "cd":
        commands.append(_counter(f"{kind}_{name}"))
        commands.append({"delete": {"counter": {**_place(name), "name": f"{kind}_{name}"}}})
    return commands


def _wire_guard(plan: Plan, mark: int) -> list[Json]:
    """Stop frames that never met the rules above, at each device's own egress hook.

    A process with CAP_NET_RAW can hand complete frames to a device (AF_PACKET), past `output`
    and `forward`. Here only ARP, within its quota, and packets that carry the mark set by the
    last accepting rule go on. The mark is this host's secret: a process may mark its own frames.
    """
    inside = {"family": "netdev", "table": WIRE_TABLE}
    policy = "drop" if plan.mode is Mode.ENFORCE else "accept"
    arp = [_match(_meta("protocol"), "arp")]
    commands: list[Json] = []
    for interface in plan.link.interfaces:
        chain = {**inside, "name": f"wire_{interface}"}
        hook = {"type": "filter", "hook": "egress", "dev": interface, "prio": 0}
        commands.append({"add": {"chain": {**chain, **hook, "policy": policy}}})
        commands.append({"flush": {"chain": chain}})
        commands += [
            {"add": {"rule": {**inside, "chain": chain["name"], "expr": expr}}}
            for expr in (
                [_match(_meta("mark"), mark), {"accept": None}],
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
