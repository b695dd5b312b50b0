"""Whose bytes were they: sockets to processes to control groups to grants, and conntrack's sums.

Sockets come from sock_diag (with the kernel's own byte counts per TCP socket), processes from
/proc, connections with their bytes from conntrack (whose accounting is off by default).
"""

import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from safehold.secure.egress.interface import KernelError
from safehold.secure.egress.kernel.netns import run_in

_ACCT = "net/netfilter/nf_conntrack_acct"


class Owner(msgspec.Struct, frozen=True):
    """Who holds a socket."""

    inode: int
    pid: int = 0
    process: str = ""
    cgroup: str = ""
    grant: str = ""


class SocketUse(msgspec.Struct, frozen=True):
    """One TCP socket: its ends and what it sent, as the kernel counts it."""

    destination: str
    port: int
    local_port: int
    uid: int
    sent: int
    received: int
    owner: Owner


class Connection(msgspec.Struct, frozen=True):
    """One tracked connection with its bytes in both directions."""

    protocol: str
    source: str
    destination: str
    sport: int
    dport: int
    original_bytes: int
    reply_bytes: int


def socket_owners(
    proc: Path = Path("/proc"), grants: Mapping[str, str] | None = None
) -> dict[int, Owner]:
    """Map socket inodes to processes and control groups; `grants` maps groups to grant ids."""
    owners: dict[int, Owner] = {}
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            inodes = list(_socket_inodes(folder / "fd"))
            if not inodes:
                continue
            name = (folder / "comm").read_text(errors="replace").strip()
            group = _cgroup(folder / "cgroup")
        except OSError:
            # The process ended while we looked, or is not ours to see.
            continue
        grant = (grants or {}).get(group, "")
        for inode in inodes:
            owners.setdefault(inode, Owner(inode, int(folder.name), name, group, grant))
    return owners


def _socket_inodes(folder: Path) -> Iterator[int]:
    for link in folder.iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            yield int(target[8:-1])


def _cgroup(path: Path) -> str:
    """The cgroup v2 path of a process, without its leading slash."""
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith("0::"):
            return line[3:].lstrip("/")
    return ""


def tcp_sockets(
    netns: str | None = None, grants: Mapping[str, str] | None = None
) -> list[SocketUse]:
    """Every connected TCP socket with the bytes it sent (tcp_info's bytes_acked)."""
    import socket

    from pyroute2 import DiagSocket
    from pyroute2.netlink.diag import SS_ESTABLISHED
    from pyroute2.netns import popns, pushns

    owners = socket_owners(grants=grants)
    found: list[SocketUse] = []
    if netns:
        pushns(netns)
    try:
        # A socket stays in the namespace where it was made.
        diag = DiagSocket()
    finally:
        if netns:
            popns()
    with diag:
        diag.bind()
        for family in (socket.AF_INET, socket.AF_INET6):
            for item in diag.get_sock_stats(
                family=family, states=(1 << SS_ESTABLISHED), extensions=_TCP_INFO
            ):
                info = item.get_attr("INET_DIAG_INFO") or {}
                inode = int(item["idiag_inode"])
                found.append(
                    SocketUse(
                        destination=str(ipaddress.ip_address(item["idiag_dst"])),
                        port=int(item["idiag_dport"]),
                        local_port=int(item["idiag_sport"]),
                        uid=int(item["idiag_uid"]),
                        sent=int(info.get("tcpi_bytes_acked", 0)),
                        received=int(info.get("tcpi_bytes_received", 0)),
                        owner=owners.get(inode, Owner(inode)),
                    )
                )
    return found


_TCP_INFO = 1 << 1


def enable_accounting(netns: str | None = None) -> None:
    """Turn conntrack's byte counting on (it is 0 by default, per namespace)."""
    if netns:
        run_in(netns, ["sh", "-c", f"echo 1 > /proc/sys/{_ACCT}"])
        return
    try:
        (Path("/proc/sys") / _ACCT).write_text("1")
    except OSError as error:
        raise KernelError("conntrack accounting can't be turned on") from error


def connections(netns: str | None = None) -> list[Connection]:
    """Every tracked connection with its byte counts."""
    import socket

    from pyroute2 import NFCTSocket

    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        with NFCTSocket(nfgen_family=family, netns=netns) as tracker:
            found += [_connection(item) for item in tracker.dump()]
    return found


def _connection(item: "object") -> Connection:
    get = item.get_nested  # type: ignore[attr-defined]
    six = get("CTA_TUPLE_ORIG", "CTA_TUPLE_IP", "CTA_IP_V6_SRC")
    kind = "V6" if six else "V4"
    number = get("CTA_TUPLE_ORIG", "CTA_TUPLE_PROTO", "CTA_PROTO_NUM")
    return Connection(
        protocol={1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}.get(number, str(number)),
        source=str(get("CTA_TUPLE_ORIG", "CTA_TUPLE_IP", f"CTA_IP_{kind}_SRC")),
        destination=str(get("CTA_TUPLE_ORIG", "CTA_TUPLE_IP", f"CTA_IP_{kind}_DST")),
        sport=int(get("CTA_TUPLE_ORIG", "CTA_TUPLE_PROTO", "CTA_PROTO_SRC_PORT") or 0),
        dport=int(get("CTA_TUPLE_ORIG", "CTA_TUPLE_PROTO", "CTA_PROTO_DST_PORT") or 0),
        original_bytes=int(get("CTA_COUNTERS_ORIG", "CTA_COUNTERS_BYTES") or 0),
        reply_bytes=int(get("CTA_COUNTERS_REPLY", "CTA_COUNTERS_BYTES") or 0),
    )
