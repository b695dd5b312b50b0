"""Prometheus metrics and the coverage audit. Numbers only; nothing here sees content."""

import os
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from safehold.guard.gateway.bundles.trial_steps import TrialStep
from safehold.guard.gateway.interface import NotExempt, Surface
from safehold.guard.gateway.relaying.run_state import RunState
from safehold.guard.interface import Block
from safehold.guard.ledger.interface import LedgerVerdict, Outcome

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)


class _Surface:
    """The children of one surface, looked up once: an exchange counts in all of them."""

    def __init__(self, of: "Metrics", surface: str) -> None:
        self.scored = of.scored.labels(surface)
        self.delivered = of.delivered.labels(surface)
        self.dropped = of.dropped.labels(surface)
        self.escalations = of.escalations.labels(surface)
        self.bypasses = of.bypasses.labels(surface)
        self.total = of.total.labels(surface)
        self.guard = of.guard.labels(surface)
        self.first = of.first.labels(surface)
        self._exchanges = of.exchanges
        self._surface = surface
        self._ended: dict[tuple[Outcome, LedgerVerdict], Counter] = {}

    def ended(self, outcome: Outcome, judged: LedgerVerdict) -> Counter:
        """Return the counter of one way to end."""
        counter = self._ended.get((outcome, judged))
        if counter is None:
            counter = self._exchanges.labels(self._surface, str(outcome), str(judged))
            self._ended[outcome, judged] = counter
        return counter

    def count(self, dropped: int, escalations: int, bypasses: int) -> None:
        """Add what is nothing in nearly every exchange."""
        if dropped:
            self.dropped.inc(dropped)
        if escalations:
            self.escalations.inc(escalations)
        if bypasses:
            self.bypasses.inc(bypasses)


class Metrics:
    """The counters of one worker, in a registry of their own.

    Several workers share a `folder` (prometheus_client's multiprocess mode, which the parent's
    `PROMETHEUS_MULTIPROC_DIR` switches on); whichever worker is asked then tells of all of them.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        self._folder = folder
        self._surfaces: dict[str, _Surface] = {}
        label = ("surface",)
        self.exchanges = Counter(
            "safehold_exchanges_total",
            "Exchanges by outcome and verdict.",
            ("surface", "outcome", "verdict"),
            registry=self.registry,
        )
        self._blocks = Counter(
            "safehold_blocks_total",
            "Blocks by where they fired.",
            ("surface", "stage", "clause"),
            registry=self.registry,
        )
        self._would_block = Counter(
            "safehold_would_block_total",
            "Exchanges that an audit or a shadow policy delivered all the same.",
            label,
            registry=self.registry,
        )
        self._refused = Counter(
            "safehold_refused_total",
            "Requests that never reached the guard, by HTTP status.",
            ("surface", "status"),
            registry=self.registry,
        )
        self.scored = Counter(
            "safehold_scored_bytes_total",
            "UTF-8 bytes of reply text handed to the scorers.",
            label,
            registry=self.registry,
        )
        self.delivered = Counter(
            "safehold_delivered_bytes_total",
            "UTF-8 bytes of reply text handed to client sockets.",
            label,
            registry=self.registry,
        )
        self._gaps = Counter(
            "safehold_coverage_gaps_total",
            "Exchanges that delivered more bytes than were scored. Any value is an alarm.",
            label,
            registry=self.registry,
        )
        self.dropped = Counter(
            "safehold_dropped_fields_total",
            "Fields, tools and events that no scorer reads, left out of requests and replies.",
            label,
            registry=self.registry,
        )
        self.escalations = Counter(
            "safehold_escalations_total", "Stage-2 requests.", label, registry=self.registry
        )
        self.bypasses = Counter(
            "safehold_bypasses_total",
            "Scorer failures that a fail mode let pass.",
            label,
            registry=self.registry,
        )
        self._ledger_failures = Counter(
            "safehold_ledger_failures_total",
            "Rows that could not be kept.",
            label,
            registry=self.registry,
        )
        self.first = Histogram(
            "safehold_first_release_seconds",
            "From the request to the first released byte.",
            label,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.guard = Histogram(
            "safehold_prompt_verdict_seconds",
            "From the request to the verdict on its prompt.",
            label,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.total = Histogram(
            "safehold_exchange_seconds",
            "From the request to its last byte.",
            label,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.streams = Gauge(
            "safehold_open_exchanges",
            "Exchanges under way.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.closed = Gauge(
            "safehold_surface_closed",
            "1 while a surface is closed, in any living worker.",
            label,
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.enforced = Gauge(
            "safehold_releases_enforced",
            "1 if only released bundles load, 0 if any bundle with a trusted signature does.",
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self.canaries = Counter(
            "safehold_canaries_total",
            "Canary requests by result.",
            ("surface", "result"),
            registry=self.registry,
        )
        self._attempts = Counter(
            "safehold_upstream_attempts_total",
            "Attempts at named upstreams: answered, failed (a status), or unreachable.",
            ("upstream", "result"),
            registry=self.registry,
        )
        self.swaps = Counter(
            "safehold_bundle_swaps_total",
            "Bundle swaps by result.",
            ("result",),
            registry=self.registry,
        )
        self.alarms = Counter(
            "safehold_alarms_total", "Alarms by kind.", ("kind",), registry=self.registry
        )

        self._ledger_seconds = Histogram(
            "safehold_ledger_append_seconds",
            "Time until rows of the ledger were durable.",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.account_states = Gauge(
            "safehold_account_states",
            "Accounts on each step of the ladder.",
            ("step",),
            registry=self.registry,
            multiprocess_mode="min",
        )
        self.hot_rules = Gauge(
            "safehold_hot_rules",
            "Hot rules in force, by state.",
            ("state",),
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self._rule_hits = Counter(
            "safehold_hot_rule_hits_total",
            "Exchanges in which a hot rule matched, by state.",
            ("state",),
            registry=self.registry,
        )
        self._trial_step = Gauge(
            "safehold_trial_step",
            "1 for the step that the trial of a challenger is in.",
            ("step",),
            registry=self.registry,
            multiprocess_mode="max",
        )
        self._trial_exchanges = Counter(
            "safehold_trial_exchanges_total",
            "Exchanges that both bundles judged, by who alone refused; or skipped under load.",
            ("result",),
            registry=self.registry,
        )
        self._class_state = Gauge(
            "safehold_class_state",
            "1 for the state that a class is in: on, shadow or off.",
            ("guard_class", "state"),
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self._class_exchanges = Counter(
            "safehold_class_exchanges_total",
            "Exchanges by further class, by whether it acted and what it said.",
            ("guard_class", "state", "verdict"),
            registry=self.registry,
        )
        self.exemption_days = Gauge(
            "safehold_exemption_days_left",
            "Days until an exemption in force ends; 0 after its end.",
            ("grant",),
            registry=self.registry,
            multiprocess_mode="livemin",
        )

    def finished(self, state: RunState, outcome: Outcome, judged: LedgerVerdict) -> None:
        """Count a finished exchange and compare its two byte counters."""
        surface = str(state.ask.surface)
        known = self._surfaces.get(surface)
        if known is None:
            known = self._surfaces[surface] = _Surface(self, surface)
        known.ended(outcome, judged).inc()
        block = state.block if state.block is not None else state.verdict
        if isinstance(block, Block):
            if outcome is Outcome.BLOCKED_BY_GUARD:
                self._blocks.labels(surface, str(block.stage), block.full_clause).inc()
            else:
                self._would_block.labels(surface).inc()
        for ruling in state.rulings.values():
            if isinstance(ruling, NotExempt) and ruling.alarm:
                self.alarms.labels(f"exemption-{ruling.overrun}").inc()
        report = state.report()
        known.scored.inc(state.bytes_fed)
        known.delivered.inc(state.out.text_bytes)
        known.count(state.ask.call.dropped, report.escalations, len(report.bypasses))
        self._count_classes(state)
        for hit in report.hot:
            self._rule_hits.labels("acting" if hit.acted else "shadow").inc()
        if (
            state.out.text_bytes > state.bytes_fed
            or report.coverage.released > report.coverage.scored
        ):
            self._gaps.labels(surface).inc()
            self.alarms.labels("coverage").inc()
        timing = state.timing
        if timing.first_release_at is not None:
            known.first.observe(timing.first_release_at - timing.started_at)
        if timing.ended_at is not None:
            known.total.observe(timing.ended_at - timing.started_at)
        known.guard.observe(timing.guard_s)

    def _count_classes(self, state: RunState) -> None:
        for one in state.several.results() if state.several is not None else ():
            acts = "on" if one.acts else "shadow"
            self._class_exchanges.labels(one.name, acts, one.verdict).inc()

    def ledger_failed(self, surface: Surface) -> None:
        """Count a row that could not be kept."""
        self._ledger_failures.labels(str(surface)).inc()

    def upstream_attempt(self, upstream: str, result: str) -> None:
        """Count an attempt at a named upstream."""
        self._attempts.labels(upstream, result).inc()

    def surface_closed(self, surface: Surface, *, closed: bool) -> None:
        """Say whether a surface is closed in this worker."""
        self.closed.labels(str(surface)).set(1 if closed else 0)

    def swapped(self, result: str) -> None:
        """Count a bundle swap by its result."""
        self.swaps.labels(result).inc()

    def exemption_days_left(self, grant: str, days: float) -> None:
        """Say how long an exemption lasts."""
        self.exemption_days.labels(grant).set(days)

    def alarm(self, kind: str) -> None:
        """Count an alarm."""
        self.alarms.labels(kind).inc()

    def hot_rules_now(self, acting: int, shadow: int) -> None:
        """Say how many hot rules are in force."""
        self.hot_rules.labels("acting").set(acting)
        self.hot_rules.labels("shadow").set(shadow)

    def ledger_took(self, seconds: float) -> None:
        """Note how long rows took to be durable."""
        self._ledger_seconds.observe(seconds)

    def account_states_now(self, counts: Mapping[str, int]) -> None:
        """Say how many accounts stand on each step."""
        for step, count in counts.items():
            self.account_states.labels(step).set(count)

    def trial_exchange(self, result: str) -> None:
        """Count an exchange that both bundles judged, by who alone refused."""
        self._trial_exchanges.labels(result).inc()

    def class_at(self, name: str, state: str) -> None:
        """Say in which state a class is."""
        for one in ("on", "shadow", "off"):
            self._class_state.labels(name, one).set(1 if one == state else 0)

    def trial_at(self, step: str) -> None:
        """Say in which step the trial is; empty where there is none."""
        for one in TrialStep:
            self._trial_step.labels(str(one)).set(1 if one == step else 0)

    def refused(self, surface: str, status: int) -> None:
        """Count a request that never reached the guard."""
        self._refused.labels(surface, str(status)).inc()

    def text(self) -> bytes:
        """Return the exposition format, of all workers where there are several."""
        if self._folder is None:
            return generate_latest(self.registry)
        for file in self._folder.glob("gauge_live*_*.db"):
            pid = int(file.stem.rpartition("_")[2])
            if not _alive(pid):  # killed: what it had open is not open any more
                mark_process_dead(pid, str(self._folder))  # type: ignore[no-untyped-call]
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone, path=str(self._folder))  # type: ignore[no-untyped-call]
        return generate_latest(everyone)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
