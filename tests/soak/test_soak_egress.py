"""Fifteen minutes of real traffic with losses and offload: no false closure, replayed to a day."""

import json
import os
import random
import time
from pathlib import Path

import pytest

from safehold.secure.egress.bounds.judge import Bench, Look, judge, verdict
from safehold.secure.egress.declare.plan import Link
from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.state import BootClock
from safehold.secure.egress.interface import NoWeightGrants, RefuseAll
from safehold.secure.egress.kernel.devices import read_devices
from safehold.secure.egress.kernel.netns import pair, run_in
from safehold.secure.egress.kernel.nft import NftKernel
from safehold.secure.egress.watch.response import Rung
from safehold.secure.egress.watch.watch import Watch
from safehold.stats import Rate
from safehold.testing.egress import World, plan, register, row

pytestmark = pytest.mark.soak
SECONDS = float(os.environ.get("SAFEHOLD_SOAK_S", "900"))
DAY_S = 86_400
LOSSES = """
table inet losses {
    chain out {
        type filter hook postrouting priority 300;
        meta l4proto udp numgen random mod 100 < 2 drop;
    }
    chain in {
        type filter hook input priority -300;
        meta l4proto tcp numgen random mod 100 < 1 drop;
    }
}
"""


def test_quarter_of_an_hour_of_real_traffic_closes_nothing(tmp_path: Path) -> None:
    """TCP, UDP and ICMP over a shaped link with random drops and offload: never above a warning."""
    chooser = random.Random(11)
    flows = register(
        row(uid=12345, hour=10**10),
        row("bulk", protocol="udp", port=9000, hour=10**10, uid=12345),
        row("names", protocol="dns", hour=10**9, uid=12345),
        row("echo", protocol="icmp", hour=10**9),
    )
    link = Link(interfaces=("up0",), rate_bit_s=200_000_000)
    looks: list[Look] = []
    with pair(f"shk{os.getpid()}") as both:
        world = World(both, tmp_path)
        try:
            run_in(both.outside, ["nft", LOSSES])
            run_in(both.inside, ["nft", LOSSES])
            enforcer = world.enforcer(flows, plan(link=link))
            enforcer.apply(first=True)
            watch = Watch(
                enforcer=enforcer,
                folder=tmp_path,
                clock=BootClock(),
                audit=ChainedLog(tmp_path / "watch-audit.jsonl"),
                grants=NoWeightGrants(),
                authorizer=RefuseAll(),
            )
            watch.tick()
            kernel = NftKernel(both.inside)
            ways = (("tcp", 8443), ("udp", 9000), ("dns", 53), ("icmp", 0))
            closed: list[object] = []
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                channel, port = chooser.choice(ways)
                uid = None if channel == "icmp" else 12345
                world.send(channel, chooser.randint(1, 3_000_000), port=port, uid=uid, seconds=4)
                before = read_devices(both.inside)
                reading = kernel.read()
                assert reading is not None
                after = read_devices(both.inside, late=True)
                names = [n for n in reading.counters if n[:2] == "c_" and n != "c_total"]
                looks.append(
                    Look(
                        before,
                        after,
                        {name: reading.counters[name] for name in names},
                        {name: reading.packets[name] for name in names},
                    )
                )
                closed += [step for step in watch.tick()[1] if step.level > Rung.WARN]
            arrived = sum(world.received().values())
        finally:
            world.close()
    assert closed == []
    assert arrived > 1_000_000
    worst, count = replay(looks, chooser, SECONDS)
    print(json.dumps({"looks": len(looks), "arrived": arrived, "replayed": count}))  # noqa: T201
    assert worst == 0
    assert Rate(0, count).upper < 0.01 or count < 300


def replay(looks: list[Look], chooser: random.Random, seconds: float) -> tuple[int, int]:
    """Replay drawn pairs of neighbouring looks until they make up a day; return excess and count.

    What matters to the judge is the step from one look to the next, so steps are drawn again.
    """
    worst, count = 0, 0
    wanted = max(1, int(DAY_S / seconds * (len(looks) - 1)))
    for _ in range(min(wanted, 50_000)):
        at = chooser.randrange(len(looks) - 1)
        bench = judge(judge(Bench(), looks[at]), looks[at + 1])
        worst = max(worst, bench.excess)
        assert verdict(bench, plan().judge.bound_bytes) == ""
        count += 1
    return worst, count
