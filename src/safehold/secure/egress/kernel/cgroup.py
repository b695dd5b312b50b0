"""Rules on control groups: the one match that nft 1.0's JSON cannot say, sent over netlink.

The chain `s_<flow>` is declared (empty, so it matches nothing) by the JSON transaction and filled
here with `socket cgroupv2 level L == ID goto f_<flow>`; so is `i_<flow>`, which looks for the
listener that an incoming connection is for. Until it is filled, and when the group was
removed, nothing matches: the flow's packets are undeclared and dropped. It fails closed.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from safehold.secure.egress.declare.register import Flow
from safehold.secure.egress.interface import KernelError
from safehold.secure.egress.kernel.dispatch import serves_group
from safehold.secure.egress.kernel.nft import NftKernel
from safehold.secure.egress.kernel.statements import TABLE

ROOTS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))

_NETLINK_NETFILTER = 12
_SUBSYS_NFTABLES = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWRULE = (_SUBSYS_NFTABLES << 8) | 6
_DELRULE = (_SUBSYS_NFTABLES << 8) | 8
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_NESTED = 0x8000
_FAMILY_INET = 1
_ERROR = 2
_SOCKET_CGROUPV2 = 3
_REG_VERDICT, _REG_1 = 0, 1
_GOTO = -4


def cgroup_root() -> Path:
    """Where cgroup v2 is mounted; raises KernelError when it is not."""
    for root in ROOTS:
        if (root / "cgroup.procs").exists() and (root / "cgroup.controllers").exists():
            return root
    raise KernelError("cgroup v2 is not mounted, so rules on cgroups can't be used")


def fill_cgroup_chains(flows: Sequence[Flow], kernel: NftKernel) -> None:
    """Point every cgroup flow's chain at its group.

    Raises:
        KernelError: The group does not exist or the kernel refused.
    """
    bound = [flow for flow in flows if flow.source.cgroup]
    if not bound:
        return
    root = cgroup_root()
    messages = []
    for flow in bound:
        folder = root / flow.source.cgroup
        try:
            number = folder.stat().st_ino
        except OSError as error:
            raise KernelError(f"flow {flow.id}: its cgroup does not exist") from error
        level = flow.source.cgroup.count("/") + 1
        messages += _replace_chain(f"s_{flow.id}", f"f_{flow.id}", number, level)
        if serves_group(flow):
            messages += _replace_chain(f"i_{flow.id}", f"h_{flow.id}", number, level)
    with _netlink(kernel.netns) as link:
        _send(link, messages)


def _replace_chain(chain: str, target: str, number: int, level: int) -> list[bytes]:
    place = _attr(1, _text(TABLE)) + _attr(2, _text(chain))
    load = _expression(
        "socket",
        _attr(1, struct.pack(">I", _SOCKET_CGROUPV2))
        + _attr(2, struct.pack(">I", _REG_1))
        + _attr(3, struct.pack(">I", level)),
    )
    compare = _expression(
        "cmp",
        _attr(1, struct.pack(">I", _REG_1))
        + _attr(2, struct.pack(">I", 0))
        + _attr(3 | _NESTED, _attr(1, struct.pack("=Q", number))),
    )
    verdict = _attr(1, struct.pack(">i", _GOTO)) + _attr(2, _text(target))
    leap = _expression(
        "immediate",
        _attr(1, struct.pack(">I", _REG_VERDICT)) + _attr(2 | _NESTED, _attr(2 | _NESTED, verdict)),
    )
    rule = place + _attr(4 | _NESTED, load + compare + leap)
    return [
        _message(_DELRULE, _REQUEST | _ACK, place),
        _message(_NEWRULE, _REQUEST | _ACK | _CREATE | _APPEND, rule),
    ]


def _expression(name: str, data: bytes) -> bytes:
    return _attr(1 | _NESTED, _attr(1, _text(name)) + _attr(2 | _NESTED, data))


def _text(value: str) -> bytes:
    return value.encode("ascii") + b"\0"


def _attr(kind: int, payload: bytes) -> bytes:
    padding = -len(payload) % 4
    return struct.pack("=HH", len(payload) + 4, kind) + payload + b"\0" * padding


def _message(
    kind: int, flags: int, payload: bytes, family: int = _FAMILY_INET, resource: int = 0
) -> bytes:
    body = struct.pack(">BBH", family, 0, resource) + payload
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def _netlink(netns: str | None) -> socket.socket:
    """Open a netfilter socket inside a namespace: a socket stays where it was made."""
    if netns is None:
        return _bound()
    from pyroute2.netns import popns, pushns

    pushns(netns)
    try:
        return _bound()
    finally:
        popns()


def _bound() -> socket.socket:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    with contextlib.ExitStack() as unless_bound:
        unless_bound.callback(link.close)
        link.bind((0, 0))
        link.settimeout(5.0)
        unless_bound.pop_all()
    return link


def _send(link: socket.socket, messages: Sequence[bytes]) -> None:
    begin = _message(_BATCH_BEGIN, _REQUEST, b"", 0, _SUBSYS_NFTABLES)
    end = _message(_BATCH_END, _REQUEST, b"", 0, _SUBSYS_NFTABLES)
    link.send(begin + b"".join(messages) + end)
    answers = 0
    while answers < len(messages):
        try:
            data = link.recv(1 << 16)
        except TimeoutError as error:
            raise KernelError("the kernel did not answer a rule on a cgroup") from error
        while data:
            length, kind = struct.unpack_from("=IH", data)
            if kind == _ERROR:
                answers += 1
                (code,) = struct.unpack_from("=i", data, 16)
                if code:
                    raise KernelError(
                        f"the kernel refused a rule on a cgroup: {os.strerror(-code)}"
                    )
            data = data[(length + 3) & ~3 :]
