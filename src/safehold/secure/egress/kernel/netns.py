"""Network namespaces: made for drills and tests, and found for registered sources."""

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from safehold.errors import DependencyError
from safehold.secure.egress.interface import KernelError
from safehold.secure.egress.kernel.nft import NETNS_FOLDER

if TYPE_CHECKING:
    from pyroute2 import IPRoute


def open_links(netns: str | None = None) -> "IPRoute":
    """Open rtnetlink in this network namespace or a named one.

    Raises:
        DependencyError: pyroute2 is not installed.
        KernelError: The namespace does not exist.
    """
    if netns is not None and not (NETNS_FOLDER / netns).exists():
        raise KernelError(f"network namespace {netns} does not exist")
    return opened(netns)


def opened(place: str | None) -> "IPRoute":
    """Open rtnetlink here, or in the namespace of a name or a path.

    Raises:
        DependencyError: pyroute2 is not installed.
    """
    try:
        from pyroute2 import IPRoute
    except ImportError as error:
        raise DependencyError("egress needs pyroute2: pip install 'safehold[egress]'") from error
    return IPRoute(netns=place, flags=0) if place else IPRoute()


@contextlib.contextmanager
def inside(netns: str | None) -> Iterator[None]:
    """Be inside a named namespace for a while (None: stay here)."""
    if netns is None:
        yield
        return
    from pyroute2.netns import popns, pushns

    pushns(netns)
    try:
        yield
    finally:
        popns()


_NO_DAD = "/proc/sys/net/ipv6/conf/default/accept_dad"
"""Two seconds a device go into looking for duplicates of its address; a fresh pair has none."""


class Pair(msgspec.Struct, frozen=True):
    """Two namespaces joined by one cable: `inside` is the enclave, `outside` the world."""

    inside: str
    outside: str
    inside_interface: str = "up0"
    outside_interface: str = "down0"
    inside_v4: str = "10.231.7.1"
    outside_v4: str = "10.231.7.2"
    inside_v6: str = "fd5a:fe:7::1"
    outside_v6: str = "fd5a:fe:7::2"


@contextlib.contextmanager
def pair(name: str) -> Iterator[Pair]:
    """Make two joined namespaces and remove them afterwards, whatever happened."""
    from pyroute2 import netns

    both = Pair(inside=f"{name}-in", outside=f"{name}-out")
    with contextlib.ExitStack() as stack:
        for space in (both.inside, both.outside):
            netns.create(space)
            stack.callback(netns.remove, space)
            run_in(space, ["sh", "-c", f"echo 0 >{_NO_DAD}"])
        with open_links(both.inside) as links:
            links.link(
                "add",
                ifname=both.inside_interface,
                kind="veth",
                peer={"ifname": both.outside_interface, "net_ns_fd": both.outside},
            )
        _up(both.inside, both.inside_interface, both.inside_v4, both.inside_v6)
        _up(both.outside, both.outside_interface, both.outside_v4, both.outside_v6)
        for space, interface in (
            (both.inside, both.inside_interface),
            (both.outside, both.outside_interface),
        ):
            _settled(space, interface)
        yield both


def _settled(space: str, interface: str) -> None:
    """Wait until duplicate address detection is over, or nothing leaves over IPv6."""
    tentative = 0x40
    end = time.monotonic() + 5.0
    with open_links(space) as links:
        index = links.link_lookup(ifname=interface)[0]
        while time.monotonic() < end:
            flags = [addr.get_attr("IFA_FLAGS") or 0 for addr in links.get_addr(index=index)]
            if not any(flag & tentative for flag in flags):
                return
            time.sleep(0.05)


def _up(space: str, interface: str, v4: str, v6: str) -> None:
    no_dad = 0x02
    with open_links(space) as links:
        index = links.link_lookup(ifname=interface)[0]
        links.addr("add", index=index, address=v4, prefixlen=24)
        links.addr("add", index=index, address=v6, prefixlen=64, ifa_flags=no_dad, flags=no_dad)
        for number in (links.link_lookup(ifname="lo")[0], index):
            links.link("set", index=number, state="up")


def enter(space: str, command: Sequence[str]) -> list[str]:
    """Return the command line that runs `command` inside a namespace."""
    return ["nsenter", f"--net={NETNS_FOLDER / space}", "--", *command]


def run_in(space: str, command: Sequence[str], timeout_s: float = 60.0) -> str:
    """Run a command inside a namespace; raises KernelError when it fails."""
    done = subprocess.run(
        enter(space, command), capture_output=True, timeout=timeout_s, check=False
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise KernelError(f"{command[0]} in {space} failed: {lines[-1][:200] if lines else ''}")
    return done.stdout.decode(errors="replace")


def host_interface(space: str) -> str:
    """Return this side's end of the veth that leads into a namespace.

    Raises:
        KernelError: The namespace has no veth, or its other end is not here.
    """
    with open_links(space) as there:
        peers = {
            link.get_attr("IFLA_LINK")
            for link in there.get_links()
            if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "veth"
        }
        addresses = {link["index"] for link in there.get_links()}
    with open_links() as here:
        for link in here.get_links():
            kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
            if (
                kind == "veth"
                and link["index"] in peers
                and link.get_attr("IFLA_LINK") in addresses
            ):
                return str(link.get_attr("IFLA_IFNAME"))
    raise KernelError(f"network namespace {space} has no veth whose other end is here")
