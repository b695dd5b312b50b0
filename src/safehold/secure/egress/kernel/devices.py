"""The network devices of one namespace, with their own counters: a judge that no rule can bend.

The rules count what they let through; a device counts what it sent, whoever handed it over
(AF_XDP, raw frames, a filter of traffic control, a rule put in by hand).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from safehold.secure.egress.interface import KernelError
from safehold.secure.egress.kernel.netns import inside, open_links

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_UP = 0x1
_ETHERNET, _LOOPBACK = 1, 772
_ETHERNET_HEADER, _TAG = 14, 4
_UPPER_KINDS = frozenset({"bridge", "bond", "team", "vlan", "macvlan", "macvtap", "ipvlan", "vrf"})
"""A frame of these is sent, and counted, once more by the device below."""


class Device(msgspec.Struct, frozen=True):
    """One device: what it is, and how much it sent since it was made.

    `master` is the index of the bridge or bond that it belongs to, or 0, `mac` its
    hardware address.

    `below` says that other devices of this namespace send through it; `above` that it sends
    through others. `backlog` counts bytes that its queue holds; `xdp` says that a program is
    attached.
    """

    name: str
    index: int
    kind: str = ""
    master: int = 0
    mac: str = ""
    ethernet: bool = True
    loopback: bool = False
    up: bool = True
    above: bool = False
    below: bool = False
    tagged: bool = False
    xdp: bool = False
    sent: int = 0
    packets: int = 0
    backlog: int = 0

    @property
    def key(self) -> str:
        """Name it so that one that was deleted and made again is another."""
        return f"{self.name}#{self.index}"

    @property
    def header(self) -> int:
        """Bytes that it counts for each packet beside those of the IP packet."""
        return (_ETHERNET_HEADER if self.ethernet else 0) + (_TAG if self.tagged else 0)


def read_devices(netns: str | None, *, late: bool = False) -> tuple[Device, ...]:
    """Read every device of a namespace.

    A frame that leaves its queue between the two questions to the kernel is in neither answer;
    with `late` it is in both. So the one is never above the truth, the other never below.

    Raises:
        KernelError: The namespace does not exist.
    """
    with open_links(netns) as links:
        if late:
            queues = _backlogs(links)
            return _devices(list(links.get_links()), queues)
        found = list(links.get_links())
        return _devices(found, _backlogs(links))


def _backlogs(links: "IPRoute") -> dict[int, int]:
    found: dict[int, int] = {}
    for qdisc in links.get_qdiscs():
        stats = qdisc.get_attr("TCA_STATS2")
        queue = stats.get_attr("TCA_STATS_QUEUE") if stats is not None else None
        if queue is not None and qdisc["parent"] == _TC_ROOT:
            found[qdisc["index"]] = int(queue["backlog"])
    return found


_TC_ROOT = 0xFFFFFFFF


def _devices(links: Iterable[Any], backlogs: dict[int, int]) -> tuple[Device, ...]:
    links = list(links)
    here = {link["index"] for link in links}
    lower: set[int] = set()
    tagged: set[int] = set()
    for link in links:
        below = link.get_attr("IFLA_LINK")
        if _kind(link) in _UPPER_KINDS and below in here and not link.get_attr("IFLA_LINK_NETNSID"):
            lower.add(below)
            if _kind(link) == "vlan":
                tagged.add(below)
        if link.get_attr("IFLA_MASTER") in here:
            lower.add(link["index"])
    return tuple(
        _device(link, backlogs.get(link["index"], 0), lower, tagged, here) for link in links
    )


def _device(
    link: Any,
    backlog: int,
    lower: set[int],
    tagged: set[int],
    here: set[int],
) -> Device:
    stats = link.get_attr("IFLA_STATS64") or {}
    xdp = link.get_attr("IFLA_XDP")
    kind, index = _kind(link), link["index"]
    masters = kind in {"bridge", "bond", "team", "vrf"}
    through = link.get_attr("IFLA_LINK") in here and link.get_attr("IFLA_LINK") != index
    return Device(
        name=str(link.get_attr("IFLA_IFNAME")),
        index=index,
        kind=kind,
        mac=str(link.get_attr("IFLA_ADDRESS") or ""),
        master=int(link.get_attr("IFLA_MASTER") or 0),
        ethernet=link["ifi_type"] == _ETHERNET,
        loopback=link["ifi_type"] == _LOOPBACK,
        up=bool(link["flags"] & _UP),
        above=masters or (kind in _UPPER_KINDS and through),
        below=index in lower,
        tagged=index in tagged,
        xdp=bool(xdp and xdp.get_attr("IFLA_XDP_ATTACHED")),
        sent=int(stats.get("tx_bytes", 0)),
        packets=int(stats.get("tx_packets", 0)),
        backlog=backlog,
    )


def _kind(link: Any) -> str:
    return str(link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "")


def guarded(devices: Iterable[Device]) -> tuple[str, ...]:
    """The devices that IP packets are sent on: all but loopback and those below others."""
    return tuple(sorted(d.name for d in devices if not d.loopback and not d.below))


def inner(devices: Iterable[Device], inside: str) -> frozenset[str]:
    """The devices that lead into what a box guards: `inside` and, if it is a bridge, its ports."""
    devices = list(devices)
    heads = {d.index for d in devices if inside and d.name == inside}
    return frozenset(d.name for d in devices if d.index in heads or d.master in heads)


def set_down(netns: str | None, names: Iterable[str]) -> None:
    """Take devices down: nothing leaves a device that is down, whoever hands it frames."""
    _set(netns, names, "down")


def set_up(netns: str | None, names: Iterable[str]) -> None:
    """Take devices up again."""
    _set(netns, names, "up")


def least_segment(netns: str | None, size: int) -> None:
    """Let no peer ask for TCP segments smaller than `size`: each repeats its headers.

    Raises:
        KernelError: The setting can't be written.
    """
    with inside(netns):
        try:
            _LEAST_SEGMENT.write_text(f"{size}\n")
        except OSError as error:
            raise KernelError(f"{_LEAST_SEGMENT.name} can't be set ({error.strerror})") from error


_LEAST_SEGMENT = Path("/proc/sys/net/ipv4/tcp_min_snd_mss")


def _set(netns: str | None, names: Iterable[str], state: str) -> None:
    with open_links(netns) as links:
        for name in names:
            for index in links.link_lookup(ifname=name):
                links.link("set", index=index, state=state)
