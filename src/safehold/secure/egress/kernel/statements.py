"""Statements of the packet filter as libnftables-json(5) values: the words of `ruleset`."""

import ipaddress
from collections.abc import Sequence
from typing import Any

TABLE = "safehold_egress"
FAMILY = "inet"

Json = dict[str, Any]
CT_MARK: Json = {"ct": {"key": "mark"}}


def in_table() -> Json:
    """Name our table."""
    return {"family": FAMILY, "table": TABLE}


def table(family: str, name: str) -> Json:
    """Declare a table."""
    return {"add": {"table": {"family": family, "name": name}}}


def add(kind: str, *, name: str, **more: object) -> Json:
    """Declare an object of our table."""
    return {"add": {kind: {**in_table(), "name": name, **more}}}


def rule(chain: str, expr: list[Json], comment: str = "") -> Json:
    """Append a rule to a chain of our table."""
    said = {"comment": comment} if comment else {}
    return {"add": {"rule": {**in_table(), "chain": chain, "expr": expr, **said}}}


def match(left: Json, right: object, op: str = "==") -> Json:
    """Compare an expression with a value."""
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str) -> Json:
    """A packet's meta information."""
    return {"meta": {"key": key}}


def payload(protocol: str, field: str) -> Json:
    """A field of a packet's header."""
    return {"payload": {"protocol": protocol, "field": field}}


def networks(nets: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> Json:
    """A set of networks and addresses."""
    return {
        "set": [
            {"prefix": {"addr": str(net.network_address), "len": net.prefixlen}}
            if net.prefixlen < net.max_prefixlen
            else str(net.network_address)
            for net in nets
        ]
    }
