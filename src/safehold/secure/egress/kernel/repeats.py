"""What TCP sent twice: bytes on the wire that carry nothing that was not carried before.

A sender signs for a byte once, and the rules count it each time it passes. The kernel counts per
socket what it retransmitted (`tcpi_bytes_retrans`, payload without headers). Sockets are asked at
each look, and the kernel tells of each that ends (sock_diag's destroy groups), so that short
connections count too.

A process can make its kernel send bytes again, and may change those that it lent to the kernel
(MSG_ZEROCOPY, sendfile) before that. So a connection's repeats count up to `REPEAT_SHARE` of what
it sent first, and the residual line is as much lower. What the rules dropped never passed;
`RepeatLedger` gives no credit for a flow around looks in which its packets were dropped.
"""

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from safehold.secure.egress.declare.register import Flow
from safehold.secure.egress.interface import REPEAT_SHARE, Direction, KernelError
from safehold.secure.egress.kernel.netns import inside

_SOCK_DIAG, _BY_FAMILY = 4, 20
_GROUPS = 1 << 0 | 1 << 2
"""SKNLGRP_INET_TCP_DESTROY and SKNLGRP_INET6_TCP_DESTROY, as a mask."""
_REQUEST, _DUMP = 0x1, 0x300
_ERROR, _DONE = 2, 3
_INFO = 2
_STATES = 0xFFF & ~(1 << 3 | 1 << 6 | 1 << 7 | 1 << 10)
"""All but SYN_RECV, TIME_WAIT, CLOSE and LISTEN."""
_FORCE_BUFFER, _BUFFER = 33, 16 * 2**20
_HEADER = struct.Struct("=IHHII")
_MESSAGE = struct.Struct("=BBBB2s2s16s16sI8sIIIII")
_SENT = struct.Struct("=QQ")
_OFFSET = 200
"""Where `tcpi_bytes_sent` and `tcpi_bytes_retrans` are in `struct tcp_info` (Linux 4.19)."""
_FORGET = 8
"""A socket that was not seen at so many looks, and whose end was not told, is forgotten."""


class RepeatedSocket(msgspec.Struct, frozen=True):
    """What one TCP socket sent again since the last look, as far as it may be taken off.

    `uid` is its user's; `seen` says that the socket was seen open, with its user.
    """

    cookie: bytes
    local_port: int
    destination: str
    port: int
    uid: int
    size: int
    seen: bool = True


class RepeatReader:
    """Asks the kernel, in one network namespace, what its TCP sockets sent again."""

    def __init__(self, netns: str | None = None) -> None:
        """Begin to listen for sockets that end.

        Raises:
            KernelError: The kernel does not tell (no CAP_NET_ADMIN, no inet_diag).
        """
        self._known: dict[bytes, tuple[RepeatedSocket, int]] = {}
        with contextlib.ExitStack() as opened:
            try:
                with inside(netns):
                    self._told = opened.enter_context(_netlink())
                    self._asked = opened.enter_context(_netlink())
                self._told.setsockopt(socket.SOL_SOCKET, _FORCE_BUFFER, _BUFFER)
                self._told.bind((0, _GROUPS))
                self._told.setblocking(False)
                self._asked.bind((0, 0))
                self._asked.settimeout(10)
            except OSError as error:
                raise KernelError(
                    f"the kernel does not tell what TCP sent again: {error}"
                ) from error
            # What was sent again before the first look is nobody's credit.
            self.look()
            self._opened = opened.pop_all()

    def close(self) -> None:
        """End both sockets."""
        self._opened.close()

    def look(self) -> list[RepeatedSocket]:
        """What each socket sent again since the last look; those that sent nothing are left out.

        What is missed (the kernel drops messages when there are too many) is missing here: then
        honest bytes look unexplained, never the other way round.
        """
        found = [self._since(item, ended=True) for item in self._ended()]
        self._known = {
            cookie: (item, missed + 1)
            for cookie, (item, missed) in self._known.items()
            if missed < _FORGET
        }
        found += [self._since(item, ended=False) for item in self._open()]
        return [item for item in found if item.size > 0]

    def _since(self, item: RepeatedSocket, *, ended: bool) -> RepeatedSocket:
        before, _ = self._known.pop(item.cookie, (None, 0))
        if not ended:
            # An answer that came late must not be credited again by the next.
            late = before is not None and before.size > item.size
            self._known[item.cookie] = (before if before and late else item, 0)
        if before is None:
            return msgspec.structs.replace(item, seen=not ended)
        # A socket that its process closed may have lost its user.
        size = max(0, item.size - before.size)
        return msgspec.structs.replace(before, size=size, seen=True)

    def _ended(self) -> Iterator[RepeatedSocket]:
        while True:
            try:
                data = self._told.recv(2**20)
            except BlockingIOError:
                return
            except OSError:
                # ENOBUFS: some were lost; the rest can still be read.
                continue
            for kind, body in _messages(data):
                if kind == _BY_FAMILY:
                    yield _parsed(body)

    def _open(self) -> Iterator[RepeatedSocket]:
        for family in (socket.AF_INET, socket.AF_INET6):
            asked = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, _STATES)
            asked += bytes(48)
            head = _HEADER.pack(_HEADER.size + len(asked), _BY_FAMILY, _REQUEST | _DUMP, 1, 0)
            try:
                self._asked.send(head + asked)
                yield from self._answers()
            except OSError as error:
                raise KernelError(f"TCP sockets can't be listed: {error}") from error

    def _answers(self) -> Iterator[RepeatedSocket]:
        while True:
            for kind, body in _messages(self._asked.recv(2**20)):
                if kind in {_DONE, _ERROR}:
                    return
                if kind == _BY_FAMILY:
                    yield _parsed(body)


def _netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def _parsed(body: bytes) -> RepeatedSocket:
    """One inet_diag_msg with its tcp_info."""
    fields = _MESSAGE.unpack_from(body)
    family, sport, dport, to, cookie, uid = (fields[i] for i in (0, 4, 5, 7, 9, 13))
    size, at = 0, _MESSAGE.size
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:  # noqa: PLR2004 - an attribute's own header
            break
        if kind == _INFO and length >= 4 + _OFFSET + _SENT.size:
            sent, again = _SENT.unpack_from(body, at + 4 + _OFFSET)
            size = min(again, int(max(0, sent - again) * REPEAT_SHARE))
        at += length + 3 & ~3
    address = ipaddress.ip_address(to if family == socket.AF_INET6 else to[:4])
    mapped = getattr(address, "ipv4_mapped", None)
    return RepeatedSocket(
        cookie=cookie,
        local_port=int.from_bytes(sport),
        destination=str(mapped or address),
        port=int.from_bytes(dport),
        uid=uid,
        size=size,
    )


def repeated_by_flow(
    sockets: Sequence[RepeatedSocket], flows: Sequence[Flow], uids: Mapping[str, int]
) -> dict[str, int]:
    """What was sent again of each reconciled TCP flow; `uids` are the ids of named users.

    A socket counts for the only flow that it can belong to. A flow that connects out counts
    sockets whose user is known to be its own; a flow that serves counts those at its ports, which
    nobody but its listener can hold. Flows that are forwarded have no sockets here.
    """
    total: dict[str, int] = {}
    for item in sockets:
        address = ipaddress.ip_address(item.destination)
        if address.is_loopback:
            continue
        mine = [flow for flow in flows if _ends_fit(flow, item, address)]
        if len(mine) == 1 and _is_of(mine[0], item, uids):
            total[mine[0].id] = total.get(mine[0].id, 0) + item.size
    return total


def _ends_fit(
    flow: Flow, item: RepeatedSocket, address: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> bool:
    port = item.local_port if flow.direction is Direction.SERVE else item.port
    return (
        flow.transport() == {"tcp"}
        and port in flow.ports
        and any(address in net for net in flow.networks() if net.version == address.version)
    )


def _is_of(flow: Flow, item: RepeatedSocket, uids: Mapping[str, int]) -> bool:
    source = flow.source
    if not flow.reconciled or source.forwarded:
        return False
    wanted = source.uid if source.uid is not None else uids.get(source.user)
    if flow.direction is Direction.SERVE:
        return wanted is None or item.uid in {wanted, 0}
    # Kernels before 6.17 tell no user (0) of a socket that its process closed.
    return wanted is not None and item.uid == wanted and (item.seen or item.uid != 0)


class RepeatLedger(msgspec.Struct, frozen=True):
    """Which repeats may be taken off what passed: those of flows of which nothing was dropped.

    A segment that a rule dropped is sent again by the kernel, and neither passed before nor
    carries old bytes when it passes at last. `dropped` are the drop counters of the last look, and
    `grew` the flows whose counter had moved by then: a drop counts for the next look too, because
    sockets and rules are not read at the same moment.
    """

    dropped: dict[str, int] = {}
    grew: frozenset[str] = frozenset()

    def credited(
        self, repeated: Mapping[str, int], dropped: Mapping[str, int], shared: Collection[str]
    ) -> tuple["RepeatLedger", dict[str, int]]:
        """Return the ledger after this look and the credit of each flow.

        `shared` names counters of drops that may be of any flow.
        """
        grew = frozenset(
            name for name, size in dropped.items() if size != self.dropped.get(name, size)
        )
        closed = grew | self.grew
        credit = (
            {}
            if closed & set(shared)
            else {flow: size for flow, size in repeated.items() if f"d_{flow}" not in closed}
        )
        return RepeatLedger(dict(dropped), grew), credit
