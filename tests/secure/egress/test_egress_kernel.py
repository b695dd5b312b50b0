"""Real kernel rules in network namespaces (root required, never skipped)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safehold.errors import TrustError
from safehold.secure.egress.declare.plan import Link
from safehold.secure.egress.interface import KernelError, StateError
from safehold.secure.egress.kernel.netns import run_in
from safehold.secure.egress.kernel.nft import NftKernel
from safehold.secure.egress.kernel.ruleset import removal
from safehold.testing.egress import (
    FakeClock,
    GrantExactly,
    World,
    control_group,
    plan,
    register,
    row,
)
from safehold.testing.waiting import until

PACKET = 65_536


def budget_row(hour: int = 1_000_000) -> str:
    """A UDP row whose budget is easy to spend."""
    return row("bulk", protocol="udp", port=9000, hour=hour)


@pytest.mark.parametrize("channel", ["tcp", "udp", "icmp", "dns", "raw"])
def test_undeclared_flow_is_dropped(world: World, channel: str) -> None:
    """No byte of any undeclared channel arrives, raw frames past the IP stack included."""
    world.enforcer(register(row())).apply(first=True)
    world.send(channel, 50_000, port=53 if channel == "dns" else 9000, seconds=0.3)
    assert world.received() == {}


@pytest.mark.parametrize("channel", ["tcp", "udp", "icmp"])
def test_undeclared_flow_over_ipv6_is_dropped(world: World, channel: str) -> None:
    """IPv6 is no way around the register."""
    world.enforcer(register(row(destination='["10.231.7.0/24"]'))).apply(first=True)
    world.send(channel, 50_000, address=world.pair.outside_v6, seconds=0.3)
    assert world.received() == {}


def test_declared_flow_passes_on_both_families(world: World) -> None:
    """A declared flow passes, and the counter agrees with what arrived."""
    enforcer = world.enforcer(register(row()))
    enforcer.apply(first=True)
    world.send("tcp", 300_000)
    world.send("tcp", 300_000, address=world.pair.outside_v6)
    assert world.received() == {"tcp4:8443": 300_000, "tcp6:8443": 300_000}
    assert 600_000 < enforcer.tick().passed["replies"] < 640_000


def test_another_user_is_undeclared(world: World) -> None:
    """A row for one user lets no other user send."""
    world.enforcer(register(row(uid=12345))).apply(first=True)
    world.send("tcp", 50_000, seconds=0.3)
    assert world.received() == {}
    world.send("tcp", 50_000, uid=12345)
    assert world.received() == {"tcp4:8443": 50_000}


def test_raw_frames_pass_without_the_guard(world: World) -> None:
    """Without the guard at the device a raw frame does get out: the attack is real."""
    open_plan = plan(local=type(plan().local)(raw_frame_guard=False))
    world.enforcer(register(row()), open_plan).apply(first=True)
    world.send("raw", 12_000, port=9000)
    assert world.received() == {"udp4:9000": 12_000}


@pytest.mark.parametrize("channel", ["tcp", "udp"])
def test_budget_is_exact_to_one_packet(world: World, channel: str) -> None:
    """What passes never exceeds the budget, and stops within one packet of it."""
    world.enforcer(register(row("bulk", protocol=channel, port=9000, hour=3_000_000))).apply(
        first=True
    )
    kernel = NftKernel(world.pair.inside)

    def passed() -> int:
        found = kernel.read()
        assert found is not None
        return found.counters["c_bulk"]

    with world.sending(channel, 10**9, port=9000):
        until(lambda: passed() > 3_000_000 - PACKET)
        time.sleep(0.3)  # it goes on trying
    assert 3_000_000 - PACKET < passed() <= 3_000_000
    assert sum(world.received().values()) <= 3_000_000


def test_reload_does_not_return_budget(world: World) -> None:
    """Applying again, and again with another row, leaves the spent budget spent."""
    enforcer = world.enforcer(register(budget_row()))
    enforcer.apply(first=True)
    world.send("udp", 2_000_000, port=9000)
    before = world.received()
    for _ in range(3):
        enforcer.apply()
    world.send("udp", 2_000_000, port=9000)
    assert world.received() == before
    assert 1_000_000 - PACKET < enforcer.tick().passed["bulk"] <= 1_000_000


def test_reload_under_fire_passes_no_byte_more(world: World) -> None:
    """While packets fly, ten reloads do not open a gap between two rule sets."""
    enforcer = world.enforcer(register(budget_row(5_000_000)))
    enforcer.apply(first=True)
    with world.sending("udp", 10**12, port=9000) as sender:
        until(lambda: world.received() != {})
        for _ in range(10):
            enforcer.apply()
        assert sender.poll() is None
    assert 0 < sum(world.received().values()) <= 5_000_000


def test_naive_reload_would_return_budget(world: World) -> None:
    """The trap is real: replacing the table as nft does it resets `used`."""
    enforcer = world.enforcer(register(budget_row()))
    enforcer.apply(first=True)
    world.send("udp", 2_000_000, port=9000)
    kernel = NftKernel(world.pair.inside)
    kernel.apply(removal())
    (world.folder / "state" / "enforcement.json").unlink()
    world.enforcer(register(budget_row())).apply(first=True)
    world.send("udp", 2_000_000, port=9000)
    assert sum(world.received().values()) > 1_100_000


def test_killed_daemon_leaves_the_budget_spent(world: World, tmp_path: Path) -> None:
    """A kill -9 of the process that keeps the rules returns nothing; the kernel goes on alone."""
    script = (
        "import sys,time\n"
        "from pathlib import Path\n"
        "from safehold.testing.egress import *\n"
        "from safehold.secure.egress.enforcement.state import StateFile\n"
        "from safehold.secure.egress.kernel.nft import NftKernel\n"
        "from safehold.secure.egress.enforcement.audit import ChainedLog\n"
        "f=Path(sys.argv[2])\n"
        "e=Enforcer(register=register(row('bulk',protocol='udp',port=9000,hour=1000000)),"
        "plan=plan(),store=StateFile(f/'state'),audit=ChainedLog(f/'audit.jsonl'),"
        "authorizer=RefuseAll(),kernel=NftKernel(sys.argv[1]),today=TODAY)\n"
        "e.apply(first=True)\n"
        "print('up',flush=True)\n"
        "while True:\n"
        "    e.tick(); time.sleep(0.02)\n"
    )
    daemon = subprocess.Popen(
        [sys.executable, "-c", script, world.pair.inside, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert daemon.stdout is not None
    assert daemon.stdout.readline() == "up\n"
    world.send("udp", 600_000, port=9000)
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.wait()
    daemon.stdout.close()
    world.send("udp", 2_000_000, port=9000)
    assert sum(world.received().values()) <= 1_000_000
    restarted = world.enforcer(register(budget_row()))
    restarted.apply()
    world.send("udp", 2_000_000, port=9000)
    assert 900_000 < sum(world.received().values()) <= 1_000_000


def test_reboot_does_not_return_budget(world: World, clock: FakeClock) -> None:
    """When the kernel forgot everything, the unseen time is charged at its worst."""
    enforcer = world.enforcer(register(budget_row()), clock=clock)
    enforcer.apply(first=True)
    world.send("udp", 400_000, port=9000)
    enforcer.tick()
    NftKernel(world.pair.inside).apply(removal())
    clock.boot, clock.uptime = "boot-2", 5.0
    after = world.enforcer(register(budget_row()), clock=clock)
    assert "rebooted" in after.apply().findings
    world.send("udp", 2_000_000, port=9000)
    assert sum(world.received().values()) <= 1_000_000


def test_window_slides_without_refunding_early(world: World, clock: FakeClock) -> None:
    """Budget returns only when the bytes that spent it are a whole window old."""
    enforcer = world.enforcer(register(budget_row()), clock=clock)
    enforcer.apply(first=True)
    world.send("udp", 2_000_000, port=9000)
    enforcer.tick()
    first = sum(world.received().values())
    clock.uptime += 61
    enforcer.tick()
    clock.uptime += 3_440
    enforcer.tick()
    world.send("udp", 2_000_000, port=9000)
    assert sum(world.received().values()) == first
    clock.uptime += 200
    enforcer.tick()
    world.send("udp", 3_000_000, port=9000)
    assert 1_900_000 < sum(world.received().values()) <= 2_000_000


def test_clock_set_back_or_forward_changes_nothing(world: World, clock: FakeClock) -> None:
    """The wall clock moves no window."""
    enforcer = world.enforcer(register(budget_row()), clock=clock)
    enforcer.apply(first=True)
    world.send("udp", 2_000_000, port=9000)
    enforcer.tick()
    before = sum(world.received().values())
    for jump in (40 * 86_400, -90 * 86_400):
        clock.wall += jump
        enforcer.tick()
        world.send("udp", 500_000, port=9000)
    assert sum(world.received().values()) == before


def test_block_holds_within_a_second(world: World) -> None:
    """A block costs well under a second of work, drops at once, and survives a reload.

    Processor time, the kernel's tools included: a busy machine is no failure.
    """
    names = ("one", "two", "bulk")
    rows = [row(n, protocol="udp", port=9000 + i, hour=10**9) for i, n in enumerate(names[::-1])]
    enforcer = world.enforcer(register(*rows))
    enforcer.apply(first=True)
    before = sum(os.times()[:4])
    for name in names:
        enforcer.block(name, "test")
    took = sum(os.times()[:4]) - before
    world.send("udp", 200_000, port=9000)
    enforcer.apply()
    world.send("udp", 200_000, port=9000)
    assert world.received() == {}
    assert took / len(names) < 1.0


def test_seal_drops_everything_but_loopback(world: World) -> None:
    """After a seal nothing leaves, and the namespace can still talk to itself."""
    enforcer = world.enforcer(register(row()))
    enforcer.apply(first=True)
    enforcer.close_all("test")
    world.send("tcp", 50_000, seconds=0.3)
    assert world.received() == {}
    talk = (
        "import socket; one = socket.create_server(('127.0.0.1', 0));"
        "two = socket.create_connection(one.getsockname(), timeout=60); two.sendall(b'x')"
    )
    run_in(world.pair.inside, [sys.executable, "-c", talk])


def test_unblocking_needs_a_grant(world: World) -> None:
    """One person alone can't undo a block, and a grant for another flow does not do."""
    enforcer = world.enforcer(
        register(row()), authorizer=GrantExactly("egress.release", "telemetry")
    )
    enforcer.apply(first=True)
    enforcer.block("replies", "test")
    with pytest.raises(TrustError):
        enforcer.unblock("replies", "please")
    granted = world.enforcer(register(row()), authorizer=GrantExactly("egress.release", "replies"))
    granted.unblock("replies", "reviewed")
    world.send("tcp", 50_000)
    assert world.received() == {"tcp4:8443": 50_000}


def test_raised_budget_needs_a_grant(world: World) -> None:
    """A bigger number in the file changes nothing until two persons granted exactly it."""
    world.enforcer(register(budget_row())).apply(first=True)
    raised = world.enforcer(register(budget_row(2_000_000)))
    with pytest.raises(TrustError, match=r"egress\.raise"):
        raised.apply()
    digest = raised.plan_digest()
    world.enforcer(
        register(budget_row(2_000_000)), authorizer=GrantExactly("egress.raise", digest)
    ).apply()
    world.send("udp", 3_000_000, port=9000)
    assert 1_900_000 < sum(world.received().values()) <= 2_000_000


@pytest.mark.parametrize("way", ["tick", "release", "block"])
def test_looser_file_is_not_picked_up_by_anything_else(world: World, way: str) -> None:
    """An edited register raises nothing through a status, a release or a block."""
    world.enforcer(register(budget_row())).apply(first=True)
    granting = GrantExactly("egress.release", "bulk")
    edited = world.enforcer(register(budget_row(9_000_000)), authorizer=granting)
    if way == "block":
        edited.block("bulk", "test")
    else:
        with pytest.raises(StateError, match="loosened"):
            edited.tick() if way == "tick" else edited.unblock("bulk", "test")
    world.send("udp", 3_000_000, port=9000)
    assert sum(world.received().values()) <= 1_000_000
    with pytest.raises(TrustError):
        edited.apply()


def test_row_taken_out_and_put_back_stays_spent(world: World) -> None:
    """Removing a row and adding it again (with a grant) does not refund its odometer."""
    other = row("other", port=8443)
    both = register(budget_row(), other)
    world.enforcer(both).apply(first=True)
    world.send("udp", 2_000_000, port=9000)
    before = world.received()
    world.enforcer(register(other)).apply()
    back = world.enforcer(both)
    granted = world.enforcer(both, authorizer=GrantExactly("egress.raise", back.plan_digest()))
    granted.apply()
    world.send("udp", 2_000_000, port=9000)
    assert world.received() == before


def test_deleted_state_refuses_instead_of_refunding(world: World) -> None:
    """With the rules alive and the state file gone, nobody alone can begin anew."""
    enforcer = world.enforcer(register(budget_row()))
    enforcer.apply(first=True)
    (world.folder / "state" / "enforcement.json").unlink()
    with pytest.raises(StateError, match="vanished"):
        enforcer.tick()
    with pytest.raises(TrustError, match=r"egress\.reset"):
        enforcer.apply(first=True)


def test_reset_counter_is_a_finding_and_costs(world: World, clock: FakeClock) -> None:
    """`nft reset counters` is noticed, and the unseen time is charged."""
    enforcer = world.enforcer(register(budget_row()), clock=clock)
    enforcer.apply(first=True)
    world.send("udp", 500_000, port=9000)
    enforcer.tick()
    run_in(world.pair.inside, ["nft", "reset", "counters"])
    clock.uptime += 10
    snapshot = enforcer.tick()
    assert any("backwards" in finding for finding in snapshot.findings)
    assert snapshot.remaining["bulk"]["hour"] < 100_000


@pytest.mark.parametrize("alone", [True, False])
def test_deleted_table_is_repaired_and_charged(
    world: World, clock: FakeClock, *, alone: bool
) -> None:
    """Rules that somebody deleted come back at the next tick, with the gap charged.

    Of the two tables the one with the budgets may be gone alone.
    """
    enforcer = world.enforcer(register(budget_row()), clock=clock)
    enforcer.apply(first=True)
    if alone:
        run_in(world.pair.inside, ["nft", "delete table inet safehold_egress"])
    else:
        NftKernel(world.pair.inside).apply(removal())
    clock.uptime += 30
    snapshot = enforcer.tick()
    assert "the kernel's table had disappeared" in snapshot.findings
    world.send("tcp", 50_000, seconds=0.3)
    world.send("udp", 2_000_000, port=9000)
    assert world.received() == {}


def test_link_local_is_not_the_internet(world: World) -> None:
    """A row for 0.0.0.0/0 does not reach link-local addresses such as metadata services."""
    run_in(world.pair.outside, ["ip", "addr", "add", "169.254.169.254/32", "dev", "lo"])
    route = ["ip", "route", "add", "169.254.169.254/32", "via", world.pair.outside_v4]
    run_in(world.pair.inside, route)
    wide = row(destination='["0.0.0.0/0", "::/0"]')
    world.enforcer(register(wide)).apply(first=True)
    world.send("tcp", 50_000, address="169.254.169.254", seconds=0.3)
    assert world.received() == {}
    world.send("tcp", 50_000)
    assert world.received() == {"tcp4:8443": 50_000}


def test_shaped_link_keeps_its_rate(world: World) -> None:
    """8 Mbit/s for a second let through at most burst + rate * time."""
    shaped = plan(link=Link(interfaces=("up0",), rate_bit_s=8_000_000, shape=True))
    wide = row("bulk", protocol="tcp", port=9000, hour=10**9)
    world.enforcer(register(wide), shaped).apply(first=True)
    begin = time.monotonic()
    world.send("tcp", 50_000_000, port=9000, seconds=1.0)
    arrived = sum(world.received().values())
    assert 200_000 < arrived <= 65_536 * 2 + 1_000_000 * (time.monotonic() - begin)


def test_throttled_flow_keeps_a_tenth(world: World) -> None:
    """A throttled flow's budget is a tenth, counting what it already sent."""
    enforcer = world.enforcer(register(budget_row()))
    enforcer.apply(first=True)
    enforcer.throttle("bulk", "test")
    world.send("udp", 2_000_000, port=9000)
    assert 100_000 - PACKET < sum(world.received().values()) <= 100_000


def test_untracked_packets_pass_nothing_undeclared(world: World) -> None:
    """Undeclared packets that the kernel keeps no connection for are dropped all the same.

    `tests/soak` fills the table of connections, which the whole machine has in common.
    """
    world.enforcer(register(budget_row(10**8))).apply(first=True)
    hook = "{ type filter hook output priority raw; }"
    for typed in ("table ip own", f"chain ip own output {hook}", "rule ip own output notrack"):
        run_in(world.pair.inside, ["nft", f"add {typed}"])
    for port in (53, 8443, 9000):
        world.send("udp", 40_000, port=port)
    assert set(world.received()) <= {"udp4:9000"}


def test_refused_transaction_leaves_the_old_rules(world: World) -> None:
    """A transaction that the kernel refuses changes nothing."""
    kernel = NftKernel(world.pair.inside)
    world.enforcer(register(budget_row())).apply(first=True)
    before = kernel.ruleset()
    bad = {"nftables": [*removal()["nftables"], {"add": {"chain": {"family": "inet"}}}]}
    with pytest.raises(KernelError):
        kernel.apply(bad)
    assert kernel.ruleset() == before


def test_cgroup_row_binds_to_its_group(world: World) -> None:
    """Two rows for one destination each let their own control group send, and no others."""
    with control_group("one") as one, control_group("two") as two:
        rows = [
            row(name, protocol="udp", port=9000).replace(
                "{ uid = 0 }", f'{{ cgroup = "{group.name}" }}'
            )
            for name, group in (("first", one), ("second", two))
        ]
        enforcer = world.enforcer(register(*rows))
        enforcer.apply(first=True)
        world.send("udp", 20_000, port=9000)
        assert world.received() == {}
        world.send("udp", 20_000, port=9000, group=one)
        world.send("udp", 30_000, port=9000, group=two)
        assert world.received() == {"udp4:9000": 50_000}
        passed = enforcer.apply().passed
        assert 20_000 < passed["first"] < 25_000
        assert 30_000 < passed["second"] < 36_000


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("channel", ["tcp", "udp"])
def test_headers_are_counted_to_the_byte(world: World, channel: str, version: int) -> None:
    """What passed less the headers that the kernel counted is the payload, whatever its packets."""
    both = world.pair
    text = row("bulk", protocol=channel, port=9000, hour=10**8)
    flows = register(text.replace("purpose =", "reconciled = true\npurpose ="))
    enforcer = world.enforcer(flows)
    enforcer.apply(first=True)
    address = both.outside_v4 if version == 4 else both.outside_v6
    for count in (100, 30_000, 250_000):
        world.send(channel, count, port=9000, address=address)
    assert world.received() == {f"{channel}{version}:9000": 280_100}
    look = enforcer.tick()
    # A SYN has more options than the timestamps: 8 bytes for each of three connections.
    assert 280_100 <= look.passed["bulk"] - look.headers["bulk"] <= 280_100 + 3 * 8
