"""The watch: tick, reconcile, detect, respond. One object, one state file, restartable."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from safehold.secure.egress.bounds.budget import residual_line
from safehold.secure.egress.detectors.detectors import Detector, DetectorState, start, step
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.enforcement.snapshot import Snapshot
from safehold.secure.egress.enforcement.state import Clock, write_durably
from safehold.secure.egress.explain.accounting import Overhead, Residual, expected_by_flow
from safehold.secure.egress.explain.ledger import ChainPosition, ExplainedRow
from safehold.secure.egress.explain.senders import ExplainedSources
from safehold.secure.egress.explain.tokens import Quotas, Rescorer, TokenLedger, hidden_bits
from safehold.secure.egress.interface import (
    AuditLog,
    Authorizer,
    ExplainedRowError,
    StateError,
    WeightGrants,
)
from safehold.secure.egress.kernel.attribution import SocketUse
from safehold.secure.egress.kernel.holders import SocketHolder
from safehold.secure.egress.watch.alerts import AlertSink, tell
from safehold.secure.egress.watch.counts import CountsPeer, exchange
from safehold.secure.egress.watch.metrics import TickReading
from safehold.secure.egress.watch.remembered import (
    KIND,
    Noted,
    believed,
    last_noted,
    worth_noting,
)
from safehold.secure.egress.watch.response import (
    Ladder,
    Signals,
    Step,
    carry_out,
    decide,
    released,
)
from safehold.secure.egress.watch.shape_watch import (
    ShapeState,
    follow_names,
    log_trouble,
    observe,
    scores,
    shape_alarms,
)
from safehold.secure.egress.watch.timeline_files import TimelineFile
from safehold.secure.egress.watch.timeline_rows import TimelineRow

BANK_SHARE = 0.01
_BANK_FLOOR = 65_536


class StreamState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One detector's memory: its progress, and the bin that is filling."""

    progress: DetectorState
    began: float
    filled: float = 0.0


class WatchState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that the watch remembers between ticks and over restarts."""

    residuals: dict[str, Residual] = {}
    positions: dict[str, ChainPosition] = {}
    streams: dict[str, StreamState] = {}
    ladder: Ladder = Ladder()
    passed: dict[str, int] = {}
    headers: dict[str, int] = {}
    undeclared: int = 0
    forged: dict[str, str] = {}
    reviewed_at: float = 0.0
    tokens: TokenLedger = TokenLedger()
    shape: ShapeState = ShapeState()
    scores: dict[str, float] = {}
    over: tuple[str, ...] = ()
    hidden_bits: float | None = None


class Inputs(msgspec.Struct, frozen=True):
    """What may be watched beside the counters; each part is optional.

    `sockets` lists the host's TCP sockets, `names` is a resolver's query log, `limits` those of the
    shape scores, `quotas` what accounts may receive, and `rescorer` the hook that estimates hidden
    bits from every `sample`-th row.
    """

    sockets: Callable[[], Sequence[SocketUse]] | None = None
    names: Path | None = None
    limits: Mapping[str, float] = {}
    quotas: Quotas | None = None
    rescorer: Rescorer | None = None
    sample: int = 100
    peer: CountsPeer | None = None
    holders: Callable[[], Sequence[SocketHolder]] | None = None


class Watch:
    """Runs beside the enforcer."""

    def __init__(
        self,
        *,
        enforcer: Enforcer,
        folder: Path,
        clock: Clock,
        audit: AuditLog,
        grants: WeightGrants,
        authorizer: Authorizer,
        sources: ExplainedSources | None = None,
        detectors: Mapping[str, Detector] | None = None,
        sinks: Sequence[AlertSink] = (),
        inputs: Inputs | None = None,
    ) -> None:
        self._enforcer = enforcer
        self._path = folder / "watch.json"
        self._timeline = TimelineFile(folder / "timeline.jsonl")
        self._clock = clock
        self._audit = audit
        self._grants = grants
        self._authorizer = authorizer
        self._sources = sources or ExplainedSources()
        self._detectors = detectors or {}
        self._sinks = sinks
        self._inputs = inputs or Inputs()
        self._noted = last_noted(audit.events())
        self._edited: tuple[str, ...] = ()
        self._state = self._load()

    @property
    def state(self) -> WatchState:
        """What the watch remembers now."""
        return self._state

    def tick(self) -> tuple[TickReading, tuple[Step, ...]]:
        """Look once: enforce, reconcile, detect, respond, remember."""
        snapshot = self._enforcer.tick()
        line = max(1, residual_line(self._enforcer.flows, self._enforcer.plan))
        rows, state = self._new_rows(self._state)
        state, residuals = self._reconcile(state, snapshot, rows, line)
        state, alarms = self._detect(state, snapshot, residuals)
        state, odd = self._look(state, rows)
        past, told = self._compare(snapshot)
        signals = Signals(
            now=snapshot.at,
            line=line,
            residual=residuals,
            alarms=alarms,
            forged=state.forged,
            tampered=(*(f for f in snapshot.findings if f != "rebooted"), *self._edited),
            undeclared=max(0, snapshot.undeclared - state.undeclared),
            odd=odd | told | {f"device:{name}": "a new device" for name in snapshot.strangers},
            bypass=snapshot.bypass or past,
            on_bypass=self._enforcer.plan.judge.on_bypass,
        )
        ladder, steps = decide(state.ladder, signals)
        carry_out(steps, self._enforcer, self._grants, self._audit)
        self._state = msgspec.structs.replace(
            state,
            ladder=ladder,
            passed=dict(snapshot.passed),
            headers=dict(snapshot.headers),
            undeclared=snapshot.undeclared,
        )
        write_durably(self._path, msgspec.json.encode(self._state, order="deterministic"))
        self._edited = ()
        self._note(line)
        self._append(snapshot, residuals, line, steps)
        tell(steps, snapshot.wall_s, self._sinks)
        return _reading(snapshot, residuals, ladder, line), steps

    def review(self, reason: str) -> None:
        """Clear the residual odometers after two persons looked; at most every `review_days`.

        Raises:
            TrustError: No grant covers exactly this.
            StateError: The last review was too recent: the bound on the time to steal counts on
                the pause.
        """
        state = self._enforcer.state()
        now = state.at if state else 0.0
        pause = self._enforcer.plan.bound.review_days * 86_400
        if self._state.reviewed_at and now - self._state.reviewed_at < pause:
            raise StateError("the last review is more recent than the plan's review_days")
        grant = self._authorizer.require("egress.review", "residual")
        sizes = {flow: int(r.odometer) for flow, r in self._state.residuals.items()}
        self._audit.append(
            "egress.review", {"grant": grant.grant_id, "reason": reason, "cleared": sizes}
        )
        self._state = msgspec.structs.replace(
            self._state,
            residuals={flow: r.reviewed() for flow, r in self._state.residuals.items()},
            reviewed_at=max(now, 1e-9),
        )
        self._noted = msgspec.structs.replace(self._noted, residual={})
        write_durably(self._path, msgspec.json.encode(self._state, order="deterministic"))

    def forget(self, flow: str) -> None:
        """Take a released flow off the ladder (the enforcer checked the grant)."""
        kept = {} if flow == "*" else {k: v for k, v in self._state.forged.items() if k != flow}
        self._state = msgspec.structs.replace(
            self._state, ladder=released(self._state.ladder, flow), forged=kept
        )
        write_durably(self._path, msgspec.json.encode(self._state, order="deterministic"))

    def _load(self) -> WatchState:
        """Read the memory, and hold it against the audit log."""
        try:
            state = msgspec.json.decode(self._path.read_bytes(), type=WatchState)
        except FileNotFoundError:
            state = WatchState()
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise StateError("watch.json: malformed; restore it from a backup") from error
        residuals, places, self._edited = believed(self._noted, state.residuals, state.positions)
        held = self._enforcer.state()
        accounts = held.accounts if held else {}
        passed = dict(state.passed)
        for flow, size in state.passed.items():
            if flow in accounts and size > accounts[flow].passed:
                self._edited += (f"watch.json says more of {flow} passed than the kernel counted",)
                passed[flow] = self._noted.passed.get(flow, 0)
        return msgspec.structs.replace(state, residuals=residuals, positions=places, passed=passed)

    def _note(self, line: int) -> None:
        """Tell the audit log when unexplained bytes rose far enough."""
        state = self._state
        if worth_noting(self._noted, state.residuals, line):
            self._noted = Noted(
                residual={flow: int(r.odometer) for flow, r in state.residuals.items()},
                passed=dict(state.passed),
                positions=dict(state.positions),
            )
            self._audit.append(KIND, self._noted.body())

    def _new_rows(self, state: WatchState) -> tuple[list[ExplainedRow], WatchState]:
        """Read every sender's new rows; a false row blocks its sender's flows from then on."""
        rows: list[ExplainedRow] = []
        positions, forged = dict(state.positions), dict(state.forged)
        reader = self._sources.reader
        if reader is None:
            return rows, state
        for sender, path in self._sources.files.items():
            try:
                for row, position in reader.follow(
                    path, positions.get(sender, ChainPosition()), self._clock.wall_s()
                ):
                    rows.append(row)
                    positions[sender] = position
            except ExplainedRowError as error:
                for flow in self._sources.sender_flows.get(sender, frozenset()):
                    forged[flow] = str(error)
        return rows, msgspec.structs.replace(state, positions=positions, forged=forged)

    def _reconcile(
        self, state: WatchState, snapshot: Snapshot, rows: list[ExplainedRow], line: int
    ) -> tuple[WatchState, dict[str, float]]:
        plan = self._enforcer.plan
        explained = expected_by_flow(rows, self._sources.overheads)
        residuals = dict(state.residuals)
        for flow in self._enforcer.flows:
            if not flow.reconciled:
                continue
            new = snapshot.passed.get(flow.id, 0) - state.passed.get(flow.id, 0)
            if self._sources.overheads.get(flow.id, Overhead()).counted:
                new = max(0, new - headers_since(state, snapshot, flow.id))
            residuals[flow.id] = residuals.get(flow.id, Residual()).advance(
                kernel=max(0, new),
                expected=explained.get(flow.id, 0.0),
                now=snapshot.at,
                lag_s=plan.accounting_lag_s,
                bank=max(_BANK_FLOOR, BANK_SHARE * line),
            )
        sizes = {flow: residual.odometer for flow, residual in residuals.items()}
        return msgspec.structs.replace(state, residuals=residuals), sizes

    def _detect(
        self, state: WatchState, snapshot: Snapshot, residuals: Mapping[str, float]
    ) -> tuple[WatchState, dict[str, str]]:
        """Fill every detector's bin; judge the bins that are over.

        Detectors are named by flow, or `residual:<flow>` for what is unexplained.
        """
        streams, alarms = dict(state.streams), {}
        for name, detector in self._detectors.items():
            flow = name.removeprefix("residual:")
            stream = streams.get(name) or StreamState(progress=start(detector), began=snapshot.at)
            before = self._state.residuals.get(flow, Residual()).odometer
            new = (
                residuals.get(flow, 0.0) - before
                if name.startswith("residual:")
                else snapshot.passed.get(flow, 0) - state.passed.get(flow, 0)
            )
            stream = msgspec.structs.replace(stream, filled=stream.filled + max(0.0, new))
            while snapshot.at - stream.began >= detector.baseline.bin_s:
                progress, found = step(detector, stream.progress, stream.filled)
                began = stream.began + detector.baseline.bin_s
                stream = StreamState(progress=progress, began=began)
                if found:
                    worst = found[0]
                    alarms[flow] = f"{worst.statistic} {worst.value:.1f} > {worst.threshold:.1f}"
            streams[name] = stream
        return msgspec.structs.replace(state, streams=streams), alarms

    def _look(
        self, state: WatchState, rows: Sequence[ExplainedRow]
    ) -> tuple[WatchState, dict[str, str]]:
        """Feed the shape detectors and the output-token channel; return what is odd, by name."""
        given, now = self._inputs, self._clock.wall_s()
        shape, tokens, bits = state.shape, state.tokens, state.hidden_bits
        if given.sockets is not None:
            shape = observe(shape, self._enforcer.flows, given.sockets(), now)
        if given.names is not None:
            shape = follow_names(shape, given.names, now)
        for row in rows:
            tokens = tokens.add(row)
        over: tuple[str, ...] = ()
        if given.quotas is not None:
            over = tuple(tokens.over(given.quotas.named, given.quotas.default, now))
        sampled = [row for row in rows if row.tokens and row.seq % given.sample == 0]
        if given.rescorer is not None and sampled:
            bits = hidden_bits(sampled, given.rescorer).upper_bits_per_token
        found = scores(shape)
        odd = shape_alarms(found, given.limits) | log_trouble(shape, now)
        odd |= {f"account:{name}": "over its quota of bytes or tokens" for name in over}
        if given.holders is not None:
            odd |= {
                f"holder:{one.pid}": f"{one.words()} holds a {' and '.join(one.sockets)} socket"
                for one in given.holders()
                if one.sockets and one.program not in self._enforcer.plan.judge.senders
            }
        state = msgspec.structs.replace(
            state, shape=shape, tokens=tokens, scores=found, over=over, hidden_bits=bits
        )
        return state, odd

    def _compare(self, snapshot: Snapshot) -> tuple[str, dict[str, str]]:
        """Exchange counts with the other side; return what passed beside the host's rules."""
        peer = self._inputs.peer
        if peer is None:
            return "", {}
        plan = self._enforcer.plan
        found, trouble = exchange(
            peer,
            snapshot,
            self._enforcer.groups(),
            bound=plan.judge.bound_bytes,
            is_box=bool(plan.box.inside),
        )
        said = {"peer:counts": found.lost, "peer:silent": trouble}
        return found.past, {name: what for name, what in said.items() if what}

    def _append(
        self,
        snapshot: Snapshot,
        residuals: Mapping[str, float],
        line: int,
        steps: Sequence[Step],
    ) -> None:
        row = TimelineRow(
            time=snapshot.wall_s,
            passed=dict(snapshot.passed),
            remaining=dict(snapshot.remaining),
            residual=dict(residuals),
            undeclared=snapshot.undeclared,
            line=line,
            budgets=self._enforcer.budgets(),
            shape=self._state.scores,
            accounts_over=self._state.over,
            headers=dict(snapshot.headers),
            actions=tuple((s.level.name.lower(), s.flow, s.reason) for s in steps),
        )
        self._timeline.append(row)


def headers_since(state: WatchState, snapshot: Snapshot, flow: str) -> int:
    """Header bytes that passed since the last look; a counter that was made anew began at 0."""
    now = snapshot.headers.get(flow, 0)
    before = state.headers.get(flow, now if flow in state.passed else 0)
    return now - before if now >= before else now


def _reading(
    snapshot: Snapshot, residuals: Mapping[str, float], ladder: Ladder, line: int
) -> TickReading:
    return TickReading(
        passed=snapshot.passed,
        dropped=snapshot.dropped,
        remaining=snapshot.remaining,
        residual=dict(residuals),
        rung=dict(ladder.rung),
        undeclared=snapshot.undeclared,
        line=line,
    )
