"""Whose packet is it: the rules that send each packet to the chain of exactly one flow.

The kernel knows a packet's owner by the socket that sent it. Two kinds of TCP packet have none:

* A socket that its process closed still sends what it held, and the kernel answers for it in
  TIME_WAIT. Without these a reply written just before `close` would never arrive whole.
* The answer to a new connection (SYN with ACK) is sent before there is a socket. Its user is the
  listener's; its control group can't be asked for.

So a connection is bound to its flow by a connection mark: when a packet with an owner reaches the
flow's chain, or, for a control group that serves, when the first packet comes in for a listener of
that group. What has no owner follows the mark, pays the flow's budgets and ends with its block. A
packet whose owner is known never follows a mark: nobody inherits a connection of another user.
"""

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from safehold.secure.egress.declare.register import Flow
from safehold.secure.egress.interface import Direction, KernelError, Wire
from safehold.secure.egress.kernel.statements import (
    CT_MARK,
    Json,
    match,
    meta,
    networks,
    payload,
    rule,
)

DISPATCH = {"output": "local", "forward": "transit"}
"""Local and forwarded flows apart: the kernel takes a cgroup match only where a socket is known."""

_NO_UID = 2**32 - 1
"""The user id that no user has."""

_SYN, _SYN_ACK, _FLAGS = 0x02, 0x12, 0x17
_SYN_ACK_BYTES = 128
"""No answer to a new connection is longer: a forged one carries next to nothing."""


class Owners(msgspec.Struct, frozen=True):
    """The names of this host: user ids, and interfaces by namespace."""

    uids: Mapping[str, int]
    interfaces: Mapping[str, str]


def serves_group(flow: Flow) -> bool:
    """Whether the row is for TCP connections that a control group accepts."""
    serving = flow.direction is Direction.SERVE and not flow.source.forwarded
    return bool(flow.source.cgroup) and serving and "tcp" in flow.transport()


def dispatch(flow: Flow, owners: Owners, account: str) -> list[Json]:
    """One rule per address family that sends the packet to the chain of its account.

    Raises:
        KernelError: The row's addresses are of different families, so nothing can match.
    """
    source = flow.source
    who: list[Json] = []
    if source.user or source.uid is not None:
        uid = owners.uids[source.user] if source.user else source.uid
        who.append(match(meta("skuid"), uid))
    if source.forwarded:
        interface = source.interface or owners.interfaces[source.netns]
        who.append(match(meta("iifname"), interface))
    chain = DISPATCH["forward" if source.forwarded else "output"]
    # A jump comes back when the group is another one, and the next row is asked.
    target: Json = (
        {"jump": {"target": f"s_{flow.id}"}}
        if source.cgroup
        else {"goto": {"target": f"f_{account}"}}
    )
    rules = [rule(chain, [*expr, target], flow.id) for expr in _leaving(flow, who)]
    if not rules:
        raise KernelError(f"flow {flow.id}: no rule can match it (address families differ)")
    return rules


def bind(flow: Flow) -> list[Json]:
    """Rules at the head of a flow's chain that bind a connection to the flow.

    A mark that other software gave is left alone: then only what has no owner is lost.
    """
    if not _bound(flow):
        return []
    return [rule(f"f_{flow.id}", [match(meta("l4proto"), "tcp"), *_give(flow)])]


def handshakes(flows: Sequence[Flow]) -> list[Json]:
    """Rules that let a control group answer new connections.

    The chain `i_<flow>`, filled over netlink, goes on to `h_<flow>` when the listener is in the
    group.
    """
    rules = []
    for flow in filter(serves_group, flows):
        rules.append(rule(f"h_{flow.id}", _give(flow)))
        rules += [
            rule("input", [*expr, {"jump": {"target": f"i_{flow.id}"}}], flow.id)
            for expr in _arriving(flow)
        ]
        answer = [
            _has_flags(_SYN_ACK),
            match(meta("length"), _SYN_ACK_BYTES, "<="),
            match({"&": [{"ct": {"key": "status"}}, "assured"]}, 0),
        ]
        rules += _follow(flow, answer)
    return rules


def ownerless(flows: Sequence[Flow]) -> list[Json]:
    """The last rules for local packets: what has no owner follows its connection's mark."""
    known = [match(meta("skuid"), _NO_UID, "!="), {"goto": {"target": "undeclared"}}]
    rules = [rule(DISPATCH["output"], known, "an owner, and no row for it")]
    for flow in filter(_bound, flows):
        rules += _follow(flow, [match(meta("l4proto"), "tcp")])
    return rules


def _bound(flow: Flow) -> bool:
    """Whether a row asks for the owner of a TCP socket."""
    source = flow.source
    named = bool(source.user or source.uid is not None or source.cgroup)
    return named and not source.forwarded and "tcp" in flow.transport()


def _binding(flow: Flow) -> int:
    """The connection mark of a flow: the same after every reload, and no secret.

    It lives in the kernel's table of connections, where no process can write it and no tap on a
    device can see it; one that may change that table (CAP_NET_ADMIN) may change these rules too.
    """
    digest = hashlib.sha256(f"safehold egress flow {flow.id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") | 1


def _give(flow: Flow) -> list[Json]:
    value = _binding(flow)
    return [match(CT_MARK, 0), {"mangle": {"key": CT_MARK, "value": value}}]


def _follow(flow: Flow, more: list[Json]) -> list[Json]:
    who = [*more, match(CT_MARK, _binding(flow))]
    return [
        rule(DISPATCH["output"], [*expr, {"goto": {"target": f"f_{flow.id}"}}], flow.id)
        for expr in _leaving(flow, who)
    ]


def _has_flags(flags: int) -> Json:
    return match({"&": [payload("tcp", "flags"), _FLAGS]}, flags)


def _leaving(flow: Flow, who: list[Json]) -> list[list[Json]]:
    """What a packet of the flow looks like on its way out, by address family."""
    way = "original" if flow.direction is Direction.OUT else "reply"
    field = "dport" if flow.direction is Direction.OUT else "sport"
    found = []
    for version, ours, theirs in _families(flow, "saddr", "daddr"):
        transport = _transport(flow, version, field)
        if transport is not None:
            head = match(meta("nfproto"), f"ipv{version}")
            direction = match({"ct": {"key": "direction"}}, way)
            found.append([head, *who, *ours, *theirs, *transport, direction])
    return found


def _arriving(flow: Flow) -> list[list[Json]]:
    """What the first packet of a connection to the flow looks like, by address family."""
    return [
        [
            match(meta("nfproto"), f"ipv{version}"),
            match(meta("l4proto"), "tcp"),
            *ours,
            *theirs,
            match(payload("th", "dport"), {"set": list(flow.ports)}),
            _has_flags(_SYN),
        ]
        for version, ours, theirs in _families(flow, "daddr", "saddr")
    ]


def _families(flow: Flow, here: str, there: str) -> list[tuple[int, list[Json], list[Json]]]:
    """For each IP version that the row covers: matches on our address and on the other's."""
    found = []
    for version, family in ((4, "ip"), (6, "ip6")):
        nets = [net for net in flow.networks() if net.version == version]
        sources = [net for net in flow.source_networks() if net.version == version]
        if not nets or (flow.source.address and not sources):
            continue
        ours = [match(payload(family, here), networks(sources))] if sources else []
        # The whole space needs no test, and the kernel has no match of zero bits.
        some = all(net.prefixlen for net in nets)
        theirs = [match(payload(family, there), networks(nets))] if some else []
        found.append((version, ours, theirs))
    return found


def _transport(flow: Flow, version: int, field: str) -> list[Json] | None:
    """Return the matches on protocol and port, or None when this family can't carry it."""
    echoes = {
        Wire.ICMP: (4, match(payload("icmp", "type"), "echo-request")),
        Wire.ICMPV6: (6, match(payload("icmpv6", "type"), "echo-request")),
    }
    if flow.protocol in echoes:
        only, echo = echoes[flow.protocol]
        return [echo] if version == only else None
    return [
        match(meta("l4proto"), {"set": sorted(flow.transport())}),
        match(payload("th", field), {"set": list(flow.ports)}),
    ]
