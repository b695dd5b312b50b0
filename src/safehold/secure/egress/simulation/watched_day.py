"""Play a day before the real watch: its accounting, its rungs and its timeline over a made host.

The host is simulated (its traffic, its kernel's counters, its sender); what looks at it is not.
Signed rows are written and verified, the residual odometer runs, and the watch takes its steps.
"""

import hashlib
from pathlib import Path

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.secure.egress.bounds.odometer import FlowOdometer
from safehold.secure.egress.declare.plan import EgressPlan
from safehold.secure.egress.declare.register import Register
from safehold.secure.egress.detectors.baseline import DAY_S
from safehold.secure.egress.detectors.traffic_model import HOUR_S, Traffic
from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.enforcement.snapshot import Snapshot
from safehold.secure.egress.enforcement.state import StateFile
from safehold.secure.egress.explain.accounting import Overhead
from safehold.secure.egress.explain.ledger import (
    Ed25519Signer,
    Ed25519Verifier,
    ExplainedReader,
    ExplainedWriter,
    Sender,
)
from safehold.secure.egress.explain.senders import ExplainedSources
from safehold.secure.egress.interface import NoWeightGrants, RefuseAll, StateError
from safehold.secure.egress.kernel.ruleset import TOTAL, budgets_of
from safehold.secure.egress.simulation.example_host import shipped_plan, shipped_register
from safehold.secure.egress.watch.watch import Watch

STEP_S = 1_200.0
_SETTLE_S = 60.0
_ITEM_BYTES = 40_000
_METRICS_A_DAY, _NAMES_A_DAY = 30e6, 3e6
_SENDER = "gateway"
_REPLIES = "replies"


class Leak(msgspec.Struct, frozen=True):
    """Bytes that no row explains: from when (seconds into the day), how long, how many in all."""

    begins_s: float = 15 * 3600.0
    lasts_s: float = 3_600.0
    size: int = 1_200_000_000


class WatchedDay(msgspec.Struct, frozen=True):
    """What to play: from when (POSIX seconds) to when, the seed, and what goes wrong."""

    begins: float
    ends: float
    seed: int = 7
    noise: float = 0.001
    """Relative standard deviation of what a reply's headers really took."""
    leak: Leak | None = Leak()
    stray: int = 3_400
    """Bytes of undeclared traffic that meet the rules in the middle of the day."""


class _MadeClock:
    def __init__(self, wall: float) -> None:
        self.begins, self.wall = wall, wall

    def uptime_s(self) -> float:
        return self.wall - self.begins

    def boot_id(self) -> str:
        return "simulated"

    def wall_s(self) -> float:
        return self.wall


class _MadeHost(Enforcer):
    """An enforcer whose kernel is a few counters; blocked and slowed flows are remembered."""

    def __init__(
        self, folder: Path, register: Register, plan: EgressPlan, clock: _MadeClock
    ) -> None:
        self.log = ChainedLog(folder / "audit.jsonl")
        self._made = clock
        self.counters: dict[str, int] = {}
        self.stray = 0
        self._accounts: dict[str, FlowOdometer] = {}
        self.held: dict[str, str] = {}
        super().__init__(
            register=register,
            plan=plan,
            store=StateFile(folder),
            audit=self.log,
            authorizer=RefuseAll(),
            clock=clock,
        )

    def tick(self, *, renew: bool = True) -> Snapshot:
        """Read the counters."""
        del renew
        now, flows = self._made.uptime_s(), self.flows
        budgets = budgets_of(flows, self.plan)
        names = tuple(budgets)
        remaining = {}
        for name in names:
            held = self._accounts.get(name, FlowOdometer())
            raw = sum(self.counters.values()) if name == TOTAL else self.counters.get(name, 0)
            self._accounts[name] = held.advance(raw, 0, now)
            left = self._accounts[name].remaining(budgets[name], now)
            remaining[name] = {window.value: size for window, size in left.items()}
        return Snapshot(
            at=now,
            wall_s=self._made.wall,
            passed={name: self._accounts[name].passed for name in names},
            dropped={},
            remaining=remaining,
            undeclared=self.stray,
            findings=(),
        )

    def block(self, flow: str, reason: str) -> Snapshot:
        """Remember it and log it."""
        return self._hold("block", flow, reason)

    def throttle(self, flow: str, reason: str) -> Snapshot:
        """Remember it and log it."""
        return self._hold("throttle", flow, reason)

    def close_all(self, reason: str) -> Snapshot:
        """Remember it and log it."""
        return self._hold("seal", "*", reason)

    def cut(self, reason: str) -> Snapshot:
        """Remember it and log it."""
        return self._hold("cut", "*", reason)

    def _hold(self, what: str, flow: str, reason: str) -> Snapshot:
        self.held[flow] = what
        self.log.append(f"egress.{what}", {"flow": flow, "reason": reason})
        return self.tick()


def play_watched_day(folder: Path, day: WatchedDay) -> Path:
    """Play the day on the shipped example host and return the timeline that the watch wrote.

    Raises:
        StateError: the folder holds a day already, or the disk refused.
    """
    timeline = folder / "timeline.jsonl"
    if timeline.exists():
        raise StateError(f"{timeline}: a day was played there already; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    clock = _MadeClock(day.begins)
    register, plan = shipped_register(), shipped_plan()
    host = _MadeHost(folder, register, plan, clock)
    key = Ed25519PrivateKey.generate()
    rows = folder / "explained.jsonl"
    writer = ExplainedWriter(rows, _SENDER, Ed25519Signer(key))
    known = {_SENDER: Sender(Ed25519Verifier(key.public_key()), frozenset({_REPLIES}))}
    overhead = Overhead(per_byte=0.04)
    watch = Watch(
        enforcer=host,
        folder=folder,
        clock=clock,
        audit=host.log,
        grants=NoWeightGrants(),
        authorizer=RefuseAll(),
        sources=ExplainedSources(
            reader=ExplainedReader(known),
            files={_SENDER: rows},
            sender_flows={_SENDER: frozenset({_REPLIES})},
            overheads={_REPLIES: overhead},
        ),
    )
    rng = np.random.default_rng(day.seed)
    bins = max(1, int((day.ends - day.begins) // STEP_S))
    replies = Traffic(level=220e9 / 86_400 * HOUR_S).draw(rng, bins, int(STEP_S))[0]
    for at in range(bins):
        clock.wall = day.begins + (at + 1) * STEP_S
        size = int(replies[at])
        items = max(1, size // _ITEM_BYTES)
        digest = hashlib.sha256(f"{day.seed} {at}".encode()).hexdigest()
        span = (clock.wall - STEP_S, clock.wall)
        writer.write(
            flow=_REPLIES, start=span[0], end=span[1], count=size, digest=digest, items=items
        )
        real = overhead.expected(size, items) * (1 + day.noise * rng.standard_normal())
        _count(host, _REPLIES, int(real) + _leaked(day.leak, at * STEP_S))
        _count(host, "metrics", int(rng.gamma(8, _METRICS_A_DAY * STEP_S / DAY_S / 8)))
        _count(host, "names", int(rng.gamma(8, _NAMES_A_DAY * STEP_S / DAY_S / 8)))
        if at == bins // 2:
            host.stray += day.stray
        watch.tick()
        # What rows may still explain counts as unexplained after the accounting's lag only.
        clock.wall += max(_SETTLE_S, plan.accounting_lag_s)
        watch.tick()
    return timeline


def _count(host: _MadeHost, flow: str, size: int) -> None:
    host.counters[flow] = host.counters.get(flow, 0) + size


def _leaked(leak: Leak | None, since_s: float) -> int:
    if leak is None or not leak.begins_s <= since_s < leak.begins_s + leak.lasts_s:
        return 0
    return int(leak.size * STEP_S / leak.lasts_s)
