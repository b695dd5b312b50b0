"""The watch on real kernel counters: reconcile, alarm, block, restart."""

from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.errors import DataError, TrustError
from safehold.secure.egress.declare.plan import Bound, EgressPlan, Link, Local
from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.explain.accounting import Overhead
from safehold.secure.egress.explain.ledger import (
    Ed25519Signer,
    Ed25519Verifier,
    ExplainedReader,
    ExplainedWriter,
    Sender,
)
from safehold.secure.egress.explain.senders import ExplainedSources
from safehold.secure.egress.interface import Authorizer, RefuseAll, StateError
from safehold.secure.egress.watch.response import Rung
from safehold.secure.egress.watch.timeline import read_timeline, render
from safehold.secure.egress.watch.watch import Watch
from safehold.testing.egress import FakeClock, GrantExactly, World, plan, register, row

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
FLOWS = register(
    row("replies", protocol="udp", port=9000, hour=10**8).replace(
        "purpose =", "reconciled = true\npurpose ="
    )
)


def small_plan() -> EgressPlan:
    """A plan whose residual line is about two megabytes."""
    return plan(
        bound=Bound(weight_bytes=10_000_000, compression=1.0, alpha=0.8, review_days=30.0),
        link=Link(interfaces=("up0",), rate_bit_s=8_000_000),
        local=Local(neighbour_discovery=False, raw_frame_guard=False),
        overhead_slack=0.0,
        accounting_lag_s=5.0,
    )


class Revocations:
    """Counts how often everything was revoked."""

    def __init__(self) -> None:
        self.count = 0

    def revoke_all(self, reason: str) -> int:
        """Count."""
        del reason
        self.count += 1
        return 2


class Rig:
    """A watch on a world."""

    def __init__(self, world: World, clock: FakeClock) -> None:
        self.world, self.clock, self.grants = world, clock, Revocations()
        self.enforcer: Enforcer = world.enforcer(FLOWS, small_plan(), clock=clock)
        self.enforcer.apply(first=True)
        self.rows = world.folder / "rows.jsonl"
        self.watch = self.open()

    def open(
        self,
        authorizer: Authorizer | None = None,
        overhead: Overhead = Overhead(per_byte=0.025),  # noqa: B008 - frozen
    ) -> Watch:
        """A watch as a new process would have it."""
        sender = Sender(Ed25519Verifier(KEY.public_key()), frozenset({"replies"}))
        return Watch(
            enforcer=self.enforcer,
            folder=self.world.folder,
            clock=self.clock,
            audit=ChainedLog(self.world.folder / "audit.jsonl"),
            grants=self.grants,
            authorizer=authorizer or RefuseAll(),
            sources=ExplainedSources(
                reader=ExplainedReader({"gateway": sender}),
                files={"gateway": self.rows},
                sender_flows={"gateway": frozenset({"replies"})},
                overheads={"replies": overhead},
            ),
        )

    def send(self, count: int, *, explained: bool) -> None:
        """Send bytes, signed for or not."""
        self.world.send("udp", count, port=9000)
        if explained:
            writer = ExplainedWriter(self.rows, "gateway", Ed25519Signer(KEY))
            at = self.clock.wall - 1
            writer.write(flow="replies", start=at, end=at, count=count, digest="0" * 64)

    def pass_time(self, seconds: float) -> None:
        """Let time go by."""
        self.clock.uptime += seconds
        self.clock.wall += seconds


@pytest.fixture
def rig(world: World, clock: FakeClock) -> Rig:
    """A rig on namespaces of this test's own."""
    return Rig(world, clock)


def test_explained_bytes_are_no_alarm(rig: Rig) -> None:
    """A sender that signs for what it sends is left alone."""
    for _ in range(3):
        rig.send(200_000, explained=True)
        rig.watch.tick()
        rig.pass_time(10)
    reading, steps = rig.watch.tick()
    assert steps == ()
    assert reading.passed["replies"] > 600_000
    assert reading.residual["replies"] < 5_000


def test_unexplained_bytes_seal_and_revoke(rig: Rig) -> None:
    """When the line is reached everything is blocked, and weight grants are revoked."""
    rig.watch.tick()
    line = rig.watch.tick()[0].line
    assert 10**6 < line < 3 * 10**6
    rig.send(line, explained=False)
    rig.watch.tick()
    rig.pass_time(10)
    _, steps = rig.watch.tick()
    assert steps[0].level is Rung.SEAL
    assert rig.grants.count == 1
    before = rig.world.received()
    rig.send(100_000, explained=False)
    assert rig.world.received() == before


def test_restarted_watch_remembers(rig: Rig) -> None:
    """The odometer, the ladder and the place in the rows survive the process."""
    rig.watch.tick()
    line = rig.watch.tick()[0].line
    rig.send(int(line * 0.6), explained=False)
    rig.watch.tick()
    rig.pass_time(10)
    rig.watch.tick()
    again = rig.open()
    reading, steps = again.tick()
    assert steps == ()
    assert reading.residual["replies"] > 0.5 * line
    assert again.state.ladder.rung["replies"] == Rung.WARN


def test_forged_row_blocks_its_flow(rig: Rig) -> None:
    """A row with a false signature explains nothing and blocks."""
    rig.send(10_000, explained=True)
    rig.rows.write_bytes(rig.rows.read_bytes().replace(b'"size":10000', b'"size":90000'))
    _, steps = rig.watch.tick()
    assert [(step.level, step.flow) for step in steps] == [(Rung.BLOCK, "replies")]


def test_review_needs_a_grant_and_a_pause(rig: Rig) -> None:
    """The odometer is cleared by two persons, and not twice within the review time."""
    rig.watch.tick()
    with pytest.raises(TrustError):
        rig.watch.review("please")
    granted = rig.open(GrantExactly("egress.review", "residual"))
    granted.review("weekly")
    rig.pass_time(3_600)
    granted.tick()
    with pytest.raises(StateError, match="more recent"):
        granted.review("again")


def test_timeline_is_one_safe_page(rig: Rig) -> None:
    """The page needs nothing from elsewhere and escapes what it shows."""
    for _ in range(3):
        rig.send(50_000, explained=True)
        rig.watch.tick()
        rig.pass_time(10)
    rows = read_timeline(rig.world.folder / "timeline.jsonl")
    evil = msgspec.structs.replace(
        rows[-1], actions=(("warn", "<script>x</script>", "<img src=x>"),)
    )
    page = render([*rows, evil], stolen_bytes=10**6)
    assert "<script" not in page
    assert "<img" not in page
    assert "http" not in page
    assert "<svg" in page


def test_timeline_without_rows_is_one_error(tmp_path: Path) -> None:
    """No rows, or rows that are none, are an error."""
    with pytest.raises(DataError):
        render([], stolen_bytes=1)
    (tmp_path / "t.jsonl").write_text("{}\n")
    with pytest.raises(DataError):
        read_timeline(tmp_path / "t.jsonl")


def test_malformed_memory_is_refused(world: World, tmp_path: Path) -> None:
    """A watch whose memory is damaged does not start from nothing."""
    (tmp_path / "watch.json").write_text("{")
    with pytest.raises(StateError):
        Watch(
            enforcer=world.enforcer(FLOWS),
            folder=tmp_path,
            clock=FakeClock(),
            audit=ChainedLog(tmp_path / "audit.jsonl"),
            grants=Revocations(),
            authorizer=RefuseAll(),
        )


def test_edited_memory_of_the_watch_is_not_believed(world: World, clock: FakeClock) -> None:
    """Odometers set to nothing by hand are put back from the audit log, and all is sealed."""
    rig = Rig(world, clock)
    rig.watch.tick()
    world.send("udp", 200_000, port=9000, seconds=3)
    for _ in range(3):
        clock.uptime += 10
        rig.watch.tick()
    before = rig.watch.state.residuals["replies"].odometer
    assert before > 100_000
    again = rig.open()
    assert (again.state.residuals["replies"].odometer, again.tick()[1]) == (before, ())
    path = world.folder / "watch.json"
    edited = msgspec.json.decode(path.read_bytes())
    edited["residuals"] = {}
    edited["passed"] = {"replies": 10**12}
    path.write_bytes(msgspec.json.encode(edited))
    stolen = rig.open()
    assert stolen.state.residuals["replies"].odometer > 0.98 * before
    steps = stolen.tick()[1]
    assert [step.level for step in steps].count(Rung.SEAL) >= 1
    assert any("watch.json" in step.reason for step in steps)


def test_deleted_memory_of_the_watch_is_put_back(world: World, clock: FakeClock) -> None:
    """A memory that was deleted starts from the audit log's odometers."""
    rig = Rig(world, clock)
    rig.watch.tick()
    world.send("udp", 200_000, port=9000, seconds=3)
    for _ in range(3):
        clock.uptime += 10
        rig.watch.tick()
    before = rig.watch.state.residuals["replies"].odometer
    (world.folder / "watch.json").unlink()
    assert rig.open().state.residuals["replies"].odometer > 0.98 * before


def test_counted_headers_leave_only_what_was_stolen(world: World, clock: FakeClock) -> None:
    """Payload of any packet size is explained to the byte; a thief's tiny packets still count."""
    rig = Rig(world, clock)
    exact = rig.open(overhead=Overhead(per_byte=0.0, counted=True))
    exact.tick()
    rig.send(300_000, explained=True)
    exact.tick()
    rig.pass_time(10)
    assert exact.tick()[0].residual["replies"] == 0
    rig.send(7_000, explained=False)
    exact.tick()
    rig.pass_time(10)
    assert exact.tick()[0].residual["replies"] == 7_000
