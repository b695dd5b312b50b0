"""A forwarding box holds the host to the register, whatever root does on the host."""

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxed_world import BOX_IN, HOST, WORLD, BoxedWorld, box_plan, in_a_row
from click.testing import CliRunner

from safehold.cli.egress import egress
from safehold.secure.egress.declare.box import boxed
from safehold.secure.egress.declare.plan import Box, Link, load_plan
from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.explain.senders import load_signer, load_verifier, new_key
from safehold.secure.egress.interface import NoWeightGrants, RefuseAll, RegisterError, StateError
from safehold.secure.egress.kernel.devices import read_devices
from safehold.secure.egress.kernel.netns import enter, open_links, run_in
from safehold.secure.egress.watch.counts import CountRow, CountsPeer, compare, publish, read_counts
from safehold.secure.egress.watch.response import Rung
from safehold.secure.egress.watch.watch import Inputs, Watch
from safehold.testing.egress import TODAY, FakeClock, register, row

THIEF = Path(__file__).with_name("thief.py")
HOUR = 200_000
LONGER_S = 6.0
"""Longer than host's and box's clocks may be apart."""
_numbers = itertools.count()


@pytest.fixture
def three(tmp_path: Path) -> Iterator[BoxedWorld]:
    """Host, box and world of this test's own."""
    with (
        in_a_row(f"shb{os.getpid()}x{next(_numbers)}") as spaces,
        contextlib.closing(BoxedWorld(spaces, tmp_path)) as made,
    ):
        yield made


def sent_out(three: BoxedWorld) -> int:
    """Bytes that truly left the box, with frame headers, by the world's own device."""
    with open_links(three.row.world) as links:
        found = links.get_links(links.link_lookup(ifname="down0")[0])[0]
        return int(found.get_attr("IFLA_STATS64")["rx_bytes"])


def peers(three: BoxedWorld) -> tuple[CountsPeer, CountsPeer]:
    """Host's and box's view of each other, each with a key of its own."""
    folder = three.folder
    for name in ("host", "box"):
        new_key(folder / f"{name}.pem")

    def seen(us: str, them: str) -> CountsPeer:
        return CountsPeer(
            path=folder / f"{them}.json",
            party=them,
            verifier=load_verifier(folder / f"{them}.pub.pem"),
            own_path=folder / f"{us}.json",
            own_party=us,
            signer=load_signer(folder / f"{us}.pem"),
        )

    return seen("host", "box"), seen("box", "host")


def watch(
    three: BoxedWorld, enforcer: Enforcer, name: str, clock: FakeClock, peer: CountsPeer
) -> Watch:
    """A watch with a state of its own."""
    folder = three.folder / name
    folder.mkdir(exist_ok=True)
    return Watch(
        enforcer=enforcer,
        folder=folder,
        clock=clock,
        audit=ChainedLog(folder / "watch-audit.jsonl"),
        grants=NoWeightGrants(),
        authorizer=RefuseAll(),
        inputs=Inputs(peer=peer),
    )


def mac(space: str, device: str) -> str:
    """A device's hardware address."""
    with open_links(space) as links:
        found = links.get_links(links.link_lookup(ifname=device)[0])[0]
        return str(found.get_attr("IFLA_ADDRESS"))


def raw_frames(three: BoxedWorld, mode: str, count: int) -> None:
    """Root on the host hands whole frames to the device that leads to the box."""
    macs = [mac(three.row.host, "up0"), mac(three.row.box, "in0")]
    command = [sys.executable, str(THIEF), mode, "up0", HOST, WORLD, str(count), *macs]
    subprocess.run(enter(three.row.host, command), check=True, timeout=60)


BULK = row("bulk", protocol="udp", port=9000, hour=HOUR, uid=12345)
REPLIES = row(uid=12345, hour=5_000_000)


def test_root_on_the_host_gets_the_boxes_budget_and_no_more(three: BoxedWorld) -> None:
    """Rules flushed, watch dead, raw frames, AF_XDP and spoofed sources: only the budget leaves."""
    flows = register(BULK)
    three.enforcer(flows).apply(first=True)
    three.box(flows).apply(first=True)
    before = sent_out(three)
    run_in(three.row.host, ["nft", "flush", "ruleset"])  # and nobody looks any more
    three.send("udp", 2_000_000, port=9000, seconds=1.5)
    raw_frames(three, "packet", 1500)
    raw_frames(three, "xdp", 500)
    three.send("tcp", 100_000, port=8443, seconds=0.3)
    three.send("icmp", 50_000, seconds=0.3)
    three.send("udp", 50_000, port=53, seconds=0.3)
    run_in(three.row.host, ["ip", "addr", "add", "10.231.6.77/24", "dev", "up0"])
    run_in(
        three.row.host, ["ip", "route", "replace", "default", "via", BOX_IN, "src", "10.231.6.77"]
    )
    three.send("udp", 500_000, port=9000, seconds=0.3)
    arrived = sum(three.received().values())
    frames = sent_out(three) - before
    assert 0 < arrived <= HOUR
    # Frame headers and ARP: 14 bytes for each packet of at least 1,000, and a few questions.
    assert frames <= HOUR + HOUR // 1000 * 14 + 2_000
    assert three.box(flows).tick().remaining["bulk"]["hour"] < 1_500


def test_honest_host_behind_a_box_flows(three: BoxedWorld, clock: FakeClock) -> None:
    """Declared traffic, and the answers to it, pass host and box; neither closes at any look."""
    flows = register(REPLIES, row("bulk", protocol="udp", port=9000, hour=2_000_000, uid=12345))
    to_box, to_host = peers(three)
    host, box = three.enforcer(flows, clock=clock), three.box(flows, clock=clock)
    host.apply(first=True)
    box.apply(first=True)
    looks = [watch(three, host, "h", clock, to_box), watch(three, box, "b", clock, to_host)]
    steps = []
    for _ in range(4):
        for look in looks:
            steps += [step for step in look.tick()[1] if step.flow != "peer:silent"]
        three.send("tcp", 500_000, uid=12345)
        three.send("udp", 200_000, port=9000, uid=12345)
        three.received()  # all of it has passed the box
        clock.forward(LONGER_S)
    for look in looks:
        steps += look.tick()[1]
    assert steps == []
    assert three.received() == {"tcp4:8443": 2_000_000, "udp4:9000": 800_000}


def test_box_tells_what_the_hosts_rules_did_not_count(three: BoxedWorld, clock: FakeClock) -> None:
    """Frames past the host's rules, in the shape of a declared row, close the box."""
    flows = register(row("bulk", protocol="udp", port=9000, hour=5_000_000, uid=12345))
    to_box, to_host = peers(three)
    ruled = three.enforcer(flows, clock=clock)
    ruled.apply(first=True)
    three.box(flows, clock=clock).apply(first=True)
    host = watch(three, ruled, "h", clock, to_box)
    box = watch(three, three.box(flows, clock=clock), "b", clock, to_host)
    for look in (host, box, host, box):
        look.tick()
        clock.forward(LONGER_S)
    raw_frames(three, "xdp", 400)  # the one way that the host's own rules never see
    taken = sent_out(three)
    assert taken > 400_000
    steps = []
    ruled.tick()
    for _ in range(2):  # the host's watch is honest, or a thief that goes on publishing
        publish(to_box.own_path, "host", to_box.signer, ruled.tick())
        clock.forward(LONGER_S)
        steps += box.tick()[1]
        clock.forward(LONGER_S)
    assert Rung.CUT in [step.level for step in steps]
    raw_frames(three, "xdp", 50)
    assert sent_out(three) - taken < 2_000


def test_silent_host_is_told(three: BoxedWorld, clock: FakeClock) -> None:
    """A host whose watch was killed tells no counts: the box says so."""
    _, to_host = peers(three)
    flows = register(REPLIES)
    box = three.box(flows, clock=clock)
    box.apply(first=True)
    steps = watch(three, box, "b", clock, to_host).tick()[1]
    assert [(step.level, step.flow) for step in steps] == [(Rung.WARN, "peer:silent")]


def test_cut_of_a_box_leaves_its_inside_up(three: BoxedWorld) -> None:
    """A closed box can still be reached, and reaches the host; nothing goes out."""
    three.box(register(REPLIES)).apply(first=True)
    three.box(register(REPLIES)).cut("a drill")
    assert {d.name: d.up for d in read_devices(three.row.box) if d.kind == "veth"} == {
        "in0": True,
        "out0": False,
    }
    three.send("tcp", 5_000, uid=12345, seconds=0.3)
    assert three.received() == {}


def test_box_shapes_what_it_forwards(three: BoxedWorld) -> None:
    """The box's own tc holds the plan's rate, whatever the host's link can do."""
    link = Link(interfaces=("out0",), rate_bit_s=8_000_000)
    flows = register(row("bulk", protocol="udp", port=9000))
    three.box(flows, box_plan(link=link)).apply(first=True)
    began = time.monotonic()
    three.send("udp", 3_000_000, port=9000, seconds=0.3)
    arrived = sum(three.received().values())
    assert 0 < arrived <= (time.monotonic() - began) * 8_000_000 / 8 + 65_536 + 1_500


def test_host_and_box_run_from_the_command_line(three: BoxedWorld) -> None:
    """`apply` and `run` of a box and its host, with files and keys of their own."""
    folder = three.folder
    (folder / "egress.toml").write_text("version = 1\n" + REPLIES)
    run = CliRunner().invoke
    sides = (("host", three.row.host, "up0", ""), ("box", three.row.box, "out0", "in0"))
    where = {}
    for name, space, device, inside in sides:
        rate = 'rate = "100 Mbit/s"\nshape = false\n'
        text = f'version = 1\nweights = {{ size = "1 TB" }}\n[link]\ninterfaces = ["{device}"]\n'
        box = f'[box]\ninside = "{inside}"\n' if inside else ""
        (folder / f"{name}.toml").write_text(text + rate + box)
        where[name] = ["--register", str(folder / "egress.toml"), "--netns", space, "--json"]
        where[name] += ["--plan", str(folder / f"{name}.toml"), "--state", str(folder / name)]
        assert run(egress, ["sender-key", str(folder / f"{name}.pem")]).exit_code == 0
        done = run(egress, ["apply", "--first", *where[name]])
        assert done.exit_code == 0, done.output
    told = []
    for us, them in (("host", "box"), ("box", "host")):
        ends = ["--counts", str(folder / f"{us}.json"), "--counts-key", str(folder / f"{us}.pem")]
        ends += ["--peer-counts", str(folder / f"{them}.json")]
        ends += ["--peer-key", str(folder / f"{them}.pub.pem"), "--ticks", "1"]
        done = run(egress, ["run", *ends, *where[us]])
        assert done.exit_code == 0, done.output
        told.append(done.output)
    assert "peer:silent" in told[0]
    assert "peer" not in told[1]
    alone = run(egress, ["run", "--counts", str(folder / "x.json"), *where["host"]])
    assert "--peer-key together" in str(alone.exception)


def test_block_of_a_row_blocks_its_account_on_the_box(three: BoxedWorld) -> None:
    """Rows that the box can't tell apart are blocked together, by either name."""
    flows = register(REPLIES, row("other", uid=0))
    box = three.box(flows)
    box.apply(first=True)
    assert set(box.tick().passed) == {"replies", "neighbours", "arp"}
    box.block("other", "x")
    three.send("tcp", 5_000, uid=12345, seconds=0.3)
    assert three.received() == {}


def test_rows_that_differ_by_owner_pay_together() -> None:
    """Budgets of rows that look alike add up; others stay apart; nothing is lost or doubled."""
    rows = (
        row("a", uid=1, hour=100),
        row("b", uid=2, hour=50),
        row("c", uid=2, port=9000, hour=10),
        row("d", uid=3, hour=5, destination='["10.9.0.0/16"]'),
    )
    live = register(*rows).live(TODAY)
    found = boxed(live, Box(inside="in0"))
    assert found.account == {"a": "a", "b": "a", "c": "c", "d": "d"}
    assert {flow.id: flow.budget["hour"] for flow in found.flows} == {"a": 150, "c": 10, "d": 5}
    assert sum(f.budget["week"] for f in found.flows) == sum(f.budget["week"] for f in live)
    assert {flow.source.interface for _, flow in found.rows} == {"in0"}


def counted(at: float, size: int, packets: int = 0, boot: str = "b") -> CountRow:
    """One row of counts."""
    return CountRow(int(at), at, boot, {"a": size}, {"a": packets})


def line(sizes: list[int], shift: float = 0.0) -> list[CountRow]:
    """Rows ten seconds apart."""
    return [counted(10.0 * n + shift, size, size // 1000) for n, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("host", "box", "past", "lost"),
    [
        ([0, 0, 10**6, 10**6, 10**6, 10**6], [0, 0, 10**6, 10**6, 10**6, 10**6], 0, 0),
        ([0] * 6, [0, 0, 10**6, 10**6, 10**6, 10**6], 1, 0),
        ([0, 0, 10**6, 10**6, 10**6, 10**6], [0] * 6, 0, 1),
        # A million that was lost is no credit for a million that was stolen later.
        ([0, 0, 10**6, 10**6, 10**6, 10**6], [0, 0, 0, 0, 10**6, 10**6], 1, 0),
        ([0, 0, 1000, 2000, 3000, 4000], [0, 0, 30_000, 60_000, 90_000, 99_000], 1, 0),
    ],
)
def test_counts_are_compared_over_every_pair_of_looks(
    host: list[int], box: list[int], past: int, lost: int
) -> None:
    """More at the box is theft, less is loss, and neither pays for the other."""
    found = compare(line(host), line(box, 1.0), {"a": "a"}, lag_s=2, bound=65_536)
    assert (bool(found.past), bool(found.lost)) == (bool(past), bool(lost))


def test_counts_under_another_key_are_refused(tmp_path: Path) -> None:
    """A document of the other side that its key did not sign is nothing to compare with."""
    for name in ("host", "thief"):
        new_key(tmp_path / f"{name}.pem")
    verifier = load_verifier(tmp_path / "host.pub.pem")
    from safehold.secure.egress.enforcement.snapshot import Snapshot  # noqa: PLC0415 - one use

    look = Snapshot(1.0, 1.0, {"a": 5}, {}, {}, 0, ())
    path = tmp_path / "host.json"
    publish(path, "host", load_signer(tmp_path / "host.pem"), look)
    assert read_counts(path, "host", verifier).rows[0].passed == {"a": 5}
    with pytest.raises(StateError, match="box signed"):
        read_counts(path, "box", verifier)
    publish(path, "host", load_signer(tmp_path / "thief.pem"), look)
    with pytest.raises(StateError, match="host signed"):
        read_counts(path, "host", verifier)


@pytest.mark.parametrize(
    "text",
    ['inside = "up0"', 'addresses = ["10.0.0.1"]', 'inside = "in0"\naddresses = ["x"]'],
)
def test_impossible_box_is_refused(tmp_path: Path, text: str) -> None:
    """The inside is another device than the way out, and addresses are addresses."""
    path = tmp_path / "plan.toml"
    path.write_text(
        'version = 1\n[weights]\nsize = "1 TB"\n[link]\ninterfaces = ["up0"]\nrate = "1 Mbit/s"\n'
        f"[box]\n{text}\n"
    )
    with pytest.raises(RegisterError, match="box"):
        load_plan(path)


def test_plan_of_a_box_names_its_inside() -> None:
    """The test plan is a box's."""
    assert box_plan().box.inside == "in0"
