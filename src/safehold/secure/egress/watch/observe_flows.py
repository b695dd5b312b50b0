"""Map mode: see what leaves, compare it with the register, propose rows.

A table of its own records every packet's (address, protocol, port, user) with bytes, in sets that
the kernel keeps; it accepts everything and changes nothing. What was seen is proposed as rows
that a person must finish: owner, purpose and expiry can't be observed.
"""

import datetime as dt
import ipaddress
import pwd
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from safehold.secure.egress.declare.register import Register
from safehold.secure.egress.interface import Direction, KernelError, Tuple5
from safehold.secure.egress.kernel.nft import NftKernel
from safehold.secure.egress.kernel.statements import Json

_FIELDS = ("address", "protocol", "port", "user")

TABLE = "safehold_learn"
_ENTRIES = 65_536
HEADROOM = 1.5


class SeenFlow(msgspec.Struct, frozen=True):
    """One observed flow with what it sent."""

    flow: Tuple5
    sent: int
    packets: int


def observer() -> Json:
    """Return the transaction that starts to observe (idempotent; keeps what was seen)."""
    table = {"family": "inet", "name": TABLE}
    inside = {"family": "inet", "table": TABLE}
    commands: list[Json] = [{"add": {"table": table}}]
    for version, address in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        for way in Direction:
            for kind, fields in (
                ("port", ["inet_proto", "inet_service"]),
                ("bare", ["inet_proto"]),
            ):
                body = {
                    **inside,
                    "name": _set_name(way, version, kind),
                    "type": [address, *fields, "uid"],
                    "size": _ENTRIES,
                    "flags": ["timeout"],
                    "timeout": 90 * 86_400,
                }
                commands.append({"add": {"set": body}})
    for hook in ("output", "forward"):
        chain = {**inside, "name": hook, "type": "filter", "hook": hook, "prio": 10}
        commands.append({"add": {"chain": {**chain, "policy": "accept"}}})
        commands.append({"flush": {"chain": {**inside, "name": hook}}})
    commands += [
        {"add": {"rule": {**inside, "chain": hook, "expr": expr}}}
        for expr in _rules()
        for hook in ("output", "forward")
    ]
    return {"nftables": commands}


def stop_observing() -> Json:
    """Return the transaction that removes the observer."""
    table = {"table": {"family": "inet", "name": TABLE}}
    return {"nftables": [{"add": table}, {"delete": table}]}


def _set_name(way: Direction, version: int, kind: str) -> str:
    return f"{way.value}{version}_{kind}"


def _rules() -> Iterable[list[Json]]:
    ported = {"set": ["tcp", "udp"]}
    for version, family in ((4, "ip"), (6, "ip6")):
        for way in Direction:
            ways = {"out": "original", "serve": "reply"}
            common = [
                {"match": {"op": "!=", "left": {"meta": {"key": "oifname"}}, "right": "lo"}},
                _same({"meta": {"key": "nfproto"}}, f"ipv{version}"),
                _same({"ct": {"key": "direction"}}, ways[way.value]),
            ]
            port = {"payload": {"protocol": "th", "field": "dport" if way == "out" else "sport"}}
            address = {"payload": {"protocol": family, "field": "daddr"}}
            protocol = {"meta": {"key": "l4proto"}}
            yield [
                *common,
                _same(protocol, ported),
                _update(_set_name(way, version, "port"), [address, protocol, port, _UID]),
            ]
            yield [
                *common,
                {"match": {"op": "!=", "left": protocol, "right": ported}},
                _update(_set_name(way, version, "bare"), [address, protocol, _UID]),
            ]


_UID: Json = {"meta": {"key": "skuid"}}


def _same(left: Json, right: object) -> Json:
    return {"match": {"op": "==", "left": left, "right": right}}


def _update(name: str, key: list[Json]) -> Json:
    elem = {"concat": key}
    return {"set": {"op": "update", "elem": elem, "set": f"@{name}", "stmt": [{"counter": None}]}}


def seen(kernel: NftKernel) -> list[SeenFlow]:
    """Return what the observer recorded.

    Raises:
        KernelError: Nobody observes: `learn` was never run, or without `--keep`.
    """
    found: list[SeenFlow] = []
    if not any(item.get("table", {}).get("name") == TABLE for item in kernel.listing("tables")):
        raise KernelError("nothing observes this host: run `safehold egress learn --keep` first")
    for item in kernel.listing("table", "inet", TABLE):
        if "set" in item:
            way = Direction.OUT if item["set"]["name"].startswith("out") else Direction.SERVE
            found += [_seen(way, element) for element in item["set"].get("elem", ())]
    return found


def _seen(way: Direction, element: dict[str, Any]) -> SeenFlow:
    inner = element["elem"]
    values = inner["val"]["concat"]
    uid = values[-1]
    port = values[2] if len(values) == len(_FIELDS) else 0
    protocol = {"ipv6-icmp": "icmpv6"}.get(values[1], str(values[1]))
    flow = Tuple5(
        protocol=protocol,
        destination=str(values[0]),
        port=int(port),
        direction=way,
        uid=uid if isinstance(uid, int) else None,
        user=_user(uid),
    )
    return SeenFlow(flow, int(inner["counter"]["bytes"]), int(inner["counter"]["packets"]))


def _user(uid: object) -> str:
    """The name of a user id on this host; nft lists names or numbers, as it finds them."""
    if not isinstance(uid, int):
        return str(uid)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


class Compared(msgspec.Struct, frozen=True):
    """Declared against seen."""

    declared: dict[str, int]
    undeclared: tuple[SeenFlow, ...]
    unused: tuple[str, ...]
    expired: tuple[str, ...]


def compare(register: Register, observed: Sequence[SeenFlow], today: dt.date) -> Compared:
    """Say which rows carried what, which seen flows no row declares, and which rows were idle."""
    by_row: dict[str, int] = defaultdict(int)
    undeclared = []
    for item in observed:
        row = register.owner_of(item.flow, today)
        if row is None:
            undeclared.append(item)
        else:
            by_row[row.id] += item.sent
    live = [flow.id for flow in register.live(today)]
    return Compared(
        declared=dict(by_row),
        undeclared=tuple(sorted(undeclared, key=lambda s: -s.sent)),
        unused=tuple(name for name in live if name not in by_row),
        expired=tuple(flow.id for flow in register.expired(today)),
    )


def propose(observed: Sequence[SeenFlow], seconds: float, today: dt.date) -> str:
    """Write rows for what was seen, as TOML that a person must finish.

    Destinations of one (protocol, port, user, direction) become one row; its budgets are what was
    seen scaled to each window with half as much again. Owner and purpose say `FILL IN`, the data
    class `internal`, and the row expires in 90 days.
    """
    groups: dict[tuple[str, int, Direction, int | None], list[SeenFlow]] = defaultdict(list)
    for item in observed:
        flow = item.flow
        groups[flow.protocol, flow.port, flow.direction, flow.uid].append(item)
    lines = ["version = 1", ""]
    number = 0
    for (protocol, port, way, uid), items in sorted(groups.items(), key=lambda g: str(g[0])):
        if protocol not in {"tcp", "udp", "icmp", "icmpv6"}:
            lines += [f"# {protocol} was seen and can't be declared: it will be dropped", ""]
            continue
        number += 1
        nets = sorted({str(ipaddress.ip_network(i.flow.destination)) for i in items})
        rate = max(1.0, sum(i.sent for i in items) / max(seconds, 1.0)) * HEADROOM
        budget = {"hour": 3_600, "day": 86_400, "week": 604_800, "month": 2_592_000}
        sizes = ", ".join(f"{w} = {max(2_000, int(rate * s))}" for w, s in budget.items())
        lines += [
            "[[flow]]",
            f'id = "seen_{number}"',
            'owner = "FILL IN"',
            'purpose = "FILL IN"',
            'data_class = "internal"',
            f'direction = "{way.value}"',
            f'protocol = "{protocol}"',
            *([f"ports = [{port}]"] if port else []),
            f"destination = {msgspec.json.encode(nets).decode()}",
            f"source = {{ uid = {uid} }}" if uid is not None else 'source = { interface = "?" }',
            f"expires = {today + dt.timedelta(days=90)}",
            f"budget = {{ {sizes} }}",
            "",
        ]
    return "\n".join(lines)
