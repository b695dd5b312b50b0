"""Ways past the rules, run on a real kernel: each is dropped, or closed within two looks."""

import subprocess
import sys
from pathlib import Path

import pytest

from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.enforcement.state import BootClock
from safehold.secure.egress.interface import NoWeightGrants, RefuseAll
from safehold.secure.egress.kernel.netns import enter, open_links, run_in
from safehold.secure.egress.watch.response import Rung
from safehold.secure.egress.watch.watch import Watch
from safehold.testing.egress import GrantExactly, World, plan, register, row

THIEF = Path(__file__).with_name("thief.py")
BOUND = 65_536


def mac(space: str, device: str) -> str:
    """A device's hardware address."""
    with open_links(space) as links:
        index = links.link_lookup(ifname=device)[0]
        return str(links.get_links(index)[0].get_attr("IFLA_ADDRESS"))


def arrived(world: World) -> int:
    """Bytes that truly reached the outside device."""
    with open_links(world.pair.outside) as links:
        found = links.get_links(links.link_lookup(ifname="down0")[0])[0]
        return int(found.get_attr("IFLA_STATS64")["rx_bytes"])


def thief(world: World, mode: str, count: int = 1000, device: str = "up0") -> subprocess.Popen[str]:
    """Start the thief: user 23456 with CAP_NET_RAW and no other right."""
    both = world.pair
    caps = "-all,+net_raw"
    rights = ["--inh-caps", caps, "--ambient-caps", caps, "--bounding-set", caps]
    where = [device, both.inside_v4, both.outside_v4, str(count)]
    macs = [mac(both.inside, device), mac(both.outside, "down0")]
    command = ["setpriv", "--reuid", "23456", "--regid", "23456", "--clear-groups", *rights]
    return subprocess.Popen(
        enter(both.inside, [*command, sys.executable, str(THIEF), mode, *where, *macs]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def steal(world: World, mode: str, count: int = 1000, device: str = "up0") -> int:
    """Let the thief work; return the bytes that arrived."""
    before = arrived(world)
    thief(world, mode, count, device).communicate(timeout=60)
    return arrived(world) - before


def watch(world: World, enforcer: Enforcer) -> Watch:
    """A watch beside the enforcer."""
    return Watch(
        enforcer=enforcer,
        folder=world.folder,
        clock=BootClock(),
        audit=ChainedLog(world.folder / "watch-audit.jsonl"),
        grants=NoWeightGrants(),
        authorizer=RefuseAll(),
    )


@pytest.fixture
def ruled(world: World) -> tuple[World, Enforcer]:
    """A world with one row, enforced."""
    enforcer = world.enforcer(register(row(uid=12345)))
    enforcer.apply(first=True)
    return world, enforcer


def levels(looker: Watch) -> list[tuple[Rung, str]]:
    """The steps of one look."""
    return [(step.level, step.flow) for step in looker.tick()[1]]


def test_af_xdp_is_cut_off(ruled: tuple[World, Enforcer]) -> None:
    """AF_XDP passes every hook; the device's own counter tells, and the next look cuts it off."""
    world, enforcer = ruled
    looker = watch(world, enforcer)
    looker.tick()
    assert steal(world, "xdp", 300) > 300_000
    assert (Rung.CUT, "*") in levels(looker)
    assert steal(world, "xdp", 50) == 0


def test_honest_traffic_is_not_cut_off(ruled: tuple[World, Enforcer]) -> None:
    """The same bytes by a declared row lead to nothing, at any look."""
    world, enforcer = ruled
    looker = watch(world, enforcer)
    looker.tick()
    for _ in range(3):
        world.send("tcp", 1_000_000, uid=12345)
        assert levels(looker) == []
    assert sum(world.received().values()) == 3_000_000


def test_no_mark_can_be_read_and_used(ruled: tuple[World, Enforcer]) -> None:
    """Taps read no secret from a permitted packet, and no frame of theirs leaves."""
    world, _ = ruled
    process = thief(world, "mark")
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    world.send("tcp", 5_000, uid=12345)
    before = arrived(world)
    said, _ = process.communicate("go\n", timeout=60)
    assert (int(said), arrived(world) - before) == (0, 0)


def test_frames_on_an_unlisted_device_do_not_leave(world: World) -> None:
    """A device that the plan does not list is guarded as well."""
    with open_links(world.pair.inside) as links:
        links.link("add", ifname="up1", kind="veth", peer={"ifname": "far1"})
        for name in ("up1", "far1"):
            links.link("set", index=links.link_lookup(ifname=name)[0], state="up")
    world.enforcer(register(row(uid=12345))).apply(first=True)
    thief(world, "packet", 200, "up1").communicate(timeout=60)
    with open_links(world.pair.inside) as links:
        found = links.get_links(links.link_lookup(ifname="far1")[0])[0]
        assert found.get_attr("IFLA_STATS64")["rx_bytes"] < 1_000


def test_new_device_is_told_and_guarded(ruled: tuple[World, Enforcer]) -> None:
    """A device made while the watch runs is named, and guarded from that look on."""
    world, enforcer = ruled
    looker = watch(world, enforcer)
    looker.tick()
    with open_links(world.pair.inside) as links:
        links.link("add", ifname="up1", kind="veth", peer={"ifname": "far1"})
        links.link("set", index=links.link_lookup(ifname="up1")[0], state="up")
        links.link("set", index=links.link_lookup(ifname="far1")[0], state="up")
    assert (Rung.WARN, "device:up1") in levels(looker)
    assert "wire_up1" in run_in(world.pair.inside, ["nft", "list", "ruleset"])


def test_flushed_rules_are_cut_off(ruled: tuple[World, Enforcer]) -> None:
    """Rules that another service flushed let everything out until the next look, which cuts."""
    world, enforcer = ruled
    looker = watch(world, enforcer)
    looker.tick()
    run_in(world.pair.inside, ["nft", "flush", "ruleset"])
    world.send("udp", 300_000, port=9000, seconds=2)
    assert (Rung.CUT, "*") in levels(looker)
    before = world.received()
    world.send("udp", 50_000, port=9000, seconds=0.6)
    assert world.received() == before


def test_release_brings_the_devices_back(ruled: tuple[World, Enforcer]) -> None:
    """Two persons bring the devices up again, and the judge begins anew."""
    world, enforcer = ruled
    enforcer.cut("a drill")
    freed = world.enforcer(register(row(uid=12345)), authorizer=GrantExactly("egress.release", "*"))
    freed.unblock("*", "reviewed")
    world.send("tcp", 5_000, uid=12345)
    assert world.received() == {"tcp4:8443": 5_000}
    assert freed.tick().bypass == ""


def test_bound_of_the_judge_is_the_plans(world: World) -> None:
    """A plan that only wants to be told is only told."""
    quiet = plan(judge=type(plan().judge)(on_bypass="warn"))
    enforcer = world.enforcer(register(row(uid=12345)), quiet)
    enforcer.apply(first=True)
    looker = watch(world, enforcer)
    looker.tick()
    steal(world, "xdp", 200)
    assert (Rung.WARN, "*") in levels(looker)
    assert steal(world, "xdp", 50) > 50_000
