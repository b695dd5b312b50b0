"""Root's ways past the rules on a real kernel: within the bound, or closed within two looks."""

import contextlib
import functools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from safehold.secure.egress.declare.plan import Link
from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.enforcement.state import BootClock
from safehold.secure.egress.interface import NoWeightGrants, RefuseAll
from safehold.secure.egress.kernel.devices import read_devices
from safehold.secure.egress.kernel.holders import holders
from safehold.secure.egress.kernel.netns import enter, open_links, run_in
from safehold.secure.egress.kernel.traffic_control import changed_controls, read_controls
from safehold.secure.egress.watch.response import Rung
from safehold.secure.egress.watch.watch import Inputs, Watch
from safehold.testing.egress import World, plan, register, row

HERE = Path(__file__).parent
BOUND = 65_536
COUNT = 300
"""Frames of 1,042 bytes that a thief sends at a time: 312,600 bytes."""


def arrived(world: World) -> int:
    """Bytes that truly reached the outside device, frames with their headers."""
    with open_links(world.pair.outside) as links:
        found = links.get_links(links.link_lookup(ifname="down0")[0])
        return int(found[0].get_attr("IFLA_STATS64")["rx_bytes"])


def mac(space: str, device: str) -> str:
    """A device's hardware address."""
    with open_links(space) as links:
        found = links.get_links(links.link_lookup(ifname=device)[0])[0]
        return str(found.get_attr("IFLA_ADDRESS"))


def frames(world: World, space: str, device: str) -> None:
    """Send whole frames, addressed to the outside, by a device of a namespace."""
    both = world.pair
    where = [device, both.inside_v4, both.outside_v4, str(COUNT)]
    macs = [mac(space, device), mac(both.outside, "down0")]
    command = [sys.executable, str(HERE / "thief.py"), "packet", *where, *macs]
    subprocess.run(enter(space, command), check=True, timeout=60)


def sh(space: str, text: str) -> None:
    """Run a shell script as root in a namespace."""
    run_in(space, ["sh", "-ec", text])


@pytest.fixture
def fresh(world: World) -> Iterator[str]:
    """A namespace that nobody watches."""
    name = f"{world.pair.inside}-x"
    run_in(world.pair.inside, ["ip", "netns", "add", name])
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def _cable(world: World, space: str) -> None:
    """Join the enclave to a namespace: v0 here, v1 there."""
    sh(world.pair.inside, f"ip link add v0 type veth peer name v1 netns {space}; ip link set v0 up")
    sh(space, "ip link set v1 up")


def mirred(world: World, space: str) -> Callable[[], None]:
    """A filter of traffic control sends on what comes in by a cable."""
    _cable(world, space)
    sh(
        world.pair.inside,
        "tc qdisc add dev v0 clsact; tc filter add dev v0 ingress u32 match u32 0 0 "
        "action mirred egress redirect dev up0",
    )
    return functools.partial(frames, world, space, "v1")


def ebpf(way: str, world: World, space: str) -> Callable[[], None]:
    """An eBPF program sends on what comes in by a cable."""
    _cable(world, space)
    run_in(world.pair.inside, [sys.executable, str(HERE / "redirect.py"), way, "v0", "up0"])
    return functools.partial(frames, world, space, "v1")


def macvlan(world: World, space: str) -> Callable[[], None]:
    """A second address on our device, in a namespace with an IP stack of its own."""
    sh(world.pair.inside, f"ip link add m0 link up0 netns {space} type macvlan mode bridge")
    sh(space, "ip addr add 10.231.7.9/24 dev m0; ip link set m0 up; ip link set lo up")
    return functools.partial(udp, space)


def bridge(world: World, space: str) -> Callable[[], None]:
    """A bridge joins our device and a namespace."""
    _cable(world, space)
    sh(
        world.pair.inside,
        "ip link add br0 type bridge; ip link set v0 master br0; ip link set up0 master br0; "
        "ip link set br0 up",
    )
    return functools.partial(frames, world, space, "v1")


def tunnel(world: World, space: str) -> Callable[[], None]:
    """A tunnel wraps packets of a namespace into packets of the kernel's own."""
    _cable(world, space)
    both = world.pair
    sh(
        both.inside,
        f"ip link add t0 type vxlan id 7 dstport 4789 remote {both.outside_v4} dev up0; "
        "ip link add br1 type bridge; ip link set t0 master br1; ip link set v0 master br1; "
        "ip link set t0 up; ip link set br1 up",
    )
    return functools.partial(frames, world, space, "v1")


def made_again(world: World, space: str) -> Callable[[], None]:
    """Our device is deleted and made again under its name; no rule is on it."""
    del space
    both = world.pair
    sh(both.inside, "ip link delete up0")
    sh(
        both.inside,
        f"ip link add up0 type veth peer name down0 netns {both.outside}; ip link set up0 up",
    )
    sh(both.outside, f"ip addr add {both.outside_v4}/24 dev down0; ip link set down0 up")
    return functools.partial(frames, world, both.inside, "up0")


def moved(world: World, space: str) -> Callable[[], None]:
    """Our device is moved into a namespace where no rule holds."""
    sh(world.pair.inside, f"ip link set up0 netns {space}")
    sh(space, "ip addr add 10.231.7.1/24 dev up0; ip link set up0 up; ip link set lo up")
    return functools.partial(udp, space)


def renamed(world: World, space: str) -> Callable[[], None]:
    """Our device gets another name; no rule knows it by that."""
    del space
    sh(
        world.pair.inside,
        "ip link set up0 down; ip link set up0 name other0; ip link set other0 up",
    )
    return functools.partial(frames, world, world.pair.inside, "other0")


def forwarded(world: World, space: str) -> Callable[[], None]:
    """The host routes for a namespace behind it."""
    _cable(world, space)
    sh(
        world.pair.inside,
        "ip addr add 10.99.0.1/24 dev v0; echo 1 > /proc/sys/net/ipv4/ip_forward",
    )
    sh(
        space,
        "ip addr add 10.99.0.2/24 dev v1; ip link set lo up; ip route add default via 10.99.0.1",
    )
    return functools.partial(udp, space)


def udp(space: str) -> None:
    """Send datagrams by a namespace's own IP stack."""
    command = [sys.executable, "-m", "safehold.secure.egress.simulation.traffic", "send", "udp"]
    arguments = ["10.231.7.2", "9000", "312000", "2"]
    subprocess.run(enter(space, [*command, *arguments]), check=False, timeout=60)


WAYS = {
    "mirred": mirred,
    "eBPF filter": functools.partial(ebpf, "filter"),
    "eBPF TCX": functools.partial(ebpf, "tcx"),
    "macvlan": macvlan,
    "bridge": bridge,
    "tunnel": tunnel,
    "made again": made_again,
    "moved": moved,
    "renamed": renamed,
    "forwarded": forwarded,
}


def watch(world: World, enforcer: Enforcer, *, looking: bool = False) -> Watch:
    """A watch beside the enforcer."""
    seen = functools.partial(holders, world.pair.inside) if looking else None
    return Watch(
        enforcer=enforcer,
        folder=world.folder,
        clock=BootClock(),
        audit=ChainedLog(world.folder / "watch-audit.jsonl"),
        grants=NoWeightGrants(),
        authorizer=RefuseAll(),
        inputs=Inputs(holders=seen),
    )


@pytest.mark.parametrize("name", WAYS)
def test_way_past_ends_within_the_bound_or_two_looks(world: World, fresh: str, name: str) -> None:
    """What root makes leaves at most the bound, or all is closed within two looks."""
    enforcer = world.enforcer(register(row(uid=12345)))
    enforcer.apply(first=True)
    looker = watch(world, enforcer)
    looker.tick()
    before = arrived(world)
    steal = WAYS[name](world, fresh)
    steps = []
    for _ in range(2):
        steal()
        steps += looker.tick()[1]
    taken = arrived(world)
    with contextlib.suppress(subprocess.CalledProcessError):  # a device that is down takes none
        steal()
    assert arrived(world) - taken < 1_500
    closed = {Rung.CUT, Rung.SEAL} & {step.level for step in steps}
    assert closed or taken - before <= BOUND


def test_all_ways_truly_lead_out_when_nobody_rules(world: World, fresh: str) -> None:
    """The twin of the attack: without rules these very programs get their bytes out."""
    before = arrived(world)
    for name in ("mirred", "eBPF filter"):
        made = f"{name} did not get out"
        steal = WAYS[name](world, fresh)
        steal()
        assert arrived(world) - before > COUNT * 1_000, made
        before = arrived(world)
        sh(world.pair.inside, "ip link delete v0")


def test_filter_of_traffic_control_is_found_and_removed(world: World, fresh: str) -> None:
    """A filter on a device that we know is a finding at the next look, and gone after it."""
    _cable(world, fresh)
    enforcer = world.enforcer(register(row(uid=12345)))
    enforcer.apply(first=True)
    assert enforcer.tick().findings == ()
    sh(
        world.pair.inside,
        "tc qdisc add dev up0 clsact; tc filter add dev up0 egress u32 match u32 0 0 "
        "action mirred egress mirror dev v0",
    )
    found = " ".join(enforcer.tick().findings)
    assert "traffic control of up0" in found
    assert "mirred" in found
    assert enforcer.tick().findings == ()
    assert "mirred" not in run_in(
        world.pair.inside, ["tc", "filter", "show", "dev", "up0", "egress"]
    )


@pytest.mark.parametrize(
    "typed",
    [
        "tc qdisc replace dev up0 root pfifo",
        "tc class change dev up0 parent 1:1 classid 1:100 htb rate 900mbit ceil 900mbit",
        "tc qdisc delete dev up0 root",
    ],
)
def test_shaping_by_hand_is_found_and_mended(world: World, typed: str) -> None:
    """A class that was sped up, or a tree that was taken away, is a finding and is put back."""
    link = Link(interfaces=("up0",), rate_bit_s=8_000_000)
    enforcer = world.enforcer(register(row(uid=12345)), plan(link=link))
    enforcer.apply(first=True)
    devices = read_devices(world.pair.inside)
    before = read_controls(world.pair.inside, devices)
    assert enforcer.tick().findings == ()
    sh(world.pair.inside, typed)
    assert any("traffic control of up0" in found for found in enforcer.tick().findings)
    assert not changed_controls(before, read_controls(world.pair.inside, devices))
    assert enforcer.tick().findings == ()


def test_throttle_and_release_are_no_finding(world: World) -> None:
    """Classes that we change ourselves are what is compared with at the next look."""
    link = Link(interfaces=("up0",), rate_bit_s=8_000_000)
    enforcer = world.enforcer(register(row(uid=12345)), plan(link=link))
    enforcer.apply(first=True)
    for act in (enforcer.tick, lambda: enforcer.throttle("replies", "x"), enforcer.tick):
        assert act().findings == ()


def test_holder_of_a_packet_socket_is_named(world: World) -> None:
    """A tap is told of once, with its process; a program that the plan lists is not."""
    enforcer = world.enforcer(register(row(uid=12345)))
    enforcer.apply(first=True)
    looker = watch(world, enforcer, looking=True)
    assert looker.tick()[1] == ()
    code = "import socket, sys; s = socket.socket(17, 3, 768); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        enter(world.pair.inside, [sys.executable, "-c", code]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as tap:
        try:
            assert tap.stdout is not None
            tap.stdout.readline()
            told = [step for step in looker.tick()[1] if step.flow == f"holder:{tap.pid}"]
            assert "holds a packet socket" in told[0].reason
            assert looker.tick()[1] == ()
            mine = [one for one in holders(world.pair.inside) if one.pid == tap.pid]
            assert mine[0].sockets == ("packet",)
            assert "CAP_NET_RAW" in mine[0].rights
            judge = type(plan().judge)(senders=(mine[0].program,))
            listed = watch(world, world.enforcer(register(row(uid=12345)), plan(judge=judge)))
            assert listed.state.scores == {}
        finally:
            tap.kill()


def test_af_xdp_shows_as_a_mapped_socket(tmp_path: Path) -> None:
    """A socket that a process has mapped, of this namespace and of no other list, is XDP."""
    folder = tmp_path / "77"
    (folder / "fd").mkdir(parents=True)
    (folder / "ns").mkdir()
    (folder / "ns" / "net").symlink_to("/proc/thread-self/ns/net")
    (folder / "exe").symlink_to("/usr/bin/thief")
    (folder / "fd" / "3").symlink_to("socket:[4242]")
    (folder / "comm").write_text("thief\n")
    (folder / "status").write_text("CapEff:\t0000000000002000\n")
    (folder / "maps").write_text("7f0-7f1 rw-s 80000000 00:08 4242   socket:[4242]\n")
    (holder,) = holders(None, tmp_path)
    assert (holder.sockets, holder.rights) == (("xdp",), ("CAP_NET_RAW",))
    assert holder.words() == "thief (/usr/bin/thief, process 77)"


def test_spanning_tree_of_a_bridge_is_link_control(world: World) -> None:
    """A host whose way out is a bridge sends frames that no rule sees; the plan says how many.

    The twin: without the plan's word they add up.
    """
    sh(
        world.pair.inside,
        "ip link add br0 type bridge stp_state 1 hello_time 100 forward_delay 200; "
        "ip addr flush dev up0; ip link set up0 master br0; ip addr add 10.231.7.1/24 dev br0; "
        "ip link set br0 up",
    )
    link = Link(interfaces=("br0",), rate_bit_s=10**9, shape=False)
    rows = register(row(uid=12345))
    excess = {}
    for control in (10_000_000, 0):
        judge = type(plan().judge)(control_bytes_a_day=control)
        enforcer = world.enforcer(rows, plan(link=link, judge=judge))
        enforcer.apply(first=True)
        enforcer.tick()
        before = _sent(world)
        while _sent(world) < before + 150:  # three frames, one each second
            time.sleep(0.1)
        enforcer.tick()
        state = enforcer.state()
        assert state is not None
        excess[control] = state.bench.excess
    assert excess[10_000_000] == 0
    assert excess[0] > 0


def _sent(world: World) -> int:
    return next(d.sent for d in read_devices(world.pair.inside) if d.name == "up0")
