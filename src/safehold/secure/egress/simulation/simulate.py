"""Simulate a host with its budgets, accounting and detectors, and a thief on it.

Each run draws its traffic, its error of the learned overhead and its thief from one seed. The
thief is stopped by the first of: the kernel's budgets, the residual line, an alarm on the residual
and an alarm on volume; and what left within the accounting lag counts as stolen.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.random import Generator

from safehold.secure.egress.bounds.budget import lag_bytes, residual_line, slack_bytes
from safehold.secure.egress.declare.plan import EgressPlan
from safehold.secure.egress.declare.register import Flow
from safehold.secure.egress.detectors.baseline import Floats, TrafficBaseline, fit
from safehold.secure.egress.detectors.calibration import calibrate
from safehold.secure.egress.detectors.detectors import (
    Detector,
    alarmed,
    first_alarm,
)
from safehold.secure.egress.detectors.traffic_model import HOUR_S, Thief, Traffic, wish
from safehold.secure.egress.interface import REPEAT_SHARE, BudgetError, Window
from safehold.secure.egress.simulation.by_volume import TRAIN_WEEKS
from safehold.secure.egress.simulation.delay import Delay
from safehold.stats import Rate

BIN_S = 600
RECONCILED_HOURS = 24


class Setup(msgspec.Struct, frozen=True):
    """A simulated host: its traffic, its plan and its flows.

    `noise` is the relative standard deviation of the overhead in one 10-minute bin, `bias` the
    largest error of the learned overhead (the plan's `overhead_slack`).
    """

    traffic: Traffic
    plan: EgressPlan
    flows: tuple[Flow, ...]
    noise: float = 0.003
    alarms_per_year: float = 1.0

    @property
    def line(self) -> int:
        """The residual line; raises BudgetError when the register breaks the bound."""
        line = residual_line(self.flows, self.plan)
        if line <= 0:
            raise BudgetError("the simulated register breaks the bound: nothing to simulate")
        return line

    def budget(self, window: Window) -> int:
        """The budget of all reconciled flows together."""
        return sum(flow.budget[window] for flow in self.flows if flow.reconciled)


def residual_series(
    setup: Setup,
    rng: Generator,
    *,
    bins: int,
    runs: int,
    theft: Floats | float = 0.0,
    least_bias: float = 0.0,
) -> tuple[Floats, Floats]:
    """Draw kernel-minus-explained per bin and the explained bytes, for honest senders.

    The accounting uses the low end of the learned overhead's error, so an honest host's residual
    leans to the safe side: above zero.
    """
    explained = setup.traffic.draw(rng, bins, BIN_S, runs)
    slack = setup.plan.overhead_slack
    bias = rng.uniform(least_bias * slack, slack, (runs, 1))
    jitter = rng.standard_normal((runs, bins)) * setup.noise
    return explained * (bias + jitter) + theft, explained


def odometer(residual: Floats, bank: float) -> Floats:
    """The residual odometer of many runs at once: `accounting.Residual` without its lag."""
    balance = np.zeros(residual.shape[0])
    total = np.zeros(residual.shape[0])
    path = np.empty_like(residual)
    for index in range(residual.shape[1]):
        net = balance - residual[:, index]
        total += np.maximum(0.0, -net)
        balance = np.clip(net, 0.0, bank)
        path[:, index] = total
    return path


def residual_detector(setup: Setup, rng: Generator) -> Detector:
    """Learn what an honest residual looks like, an hour at a time, and set its thresholds.

    It is learned at the high end of the overhead's error: a host whose overhead is known better
    alarms less, not more.
    """
    bins = TRAIN_WEEKS * 7 * 24 * 6
    residual, _ = residual_series(setup, rng, bins=bins, runs=1, least_bias=1.0)
    hourly = np.maximum(0.0, residual[0].reshape(-1, 6).sum(axis=1))
    return calibrate(
        fit(hourly, HOUR_S), alarms_per_year=setup.alarms_per_year / 2, rng=rng, design=1.0
    )


def residual_delay(setup: Setup, share: float, *, runs: int, rng: Generator) -> Delay:
    """Find a constant theft of `share` of the mean level on the reconciled residual."""
    detector = residual_detector(setup, rng)
    theft = share * setup.traffic.level * BIN_S / HOUR_S
    bins = 7 * 144
    residual, _ = residual_series(setup, rng, bins=bins, runs=runs, theft=theft)
    alarm = _residual_alarm_bins(detector, residual)
    crossed = _first_over(odometer(residual, bank_bytes(setup)), setup.line)
    hours = (np.minimum(alarm, crossed) + 1) * BIN_S / HOUR_S
    quiet, _ = residual_series(setup, rng, bins=365 * 144, runs=min(runs, 60))
    false = sum(int(a < 365 * 144) for a in _residual_alarm_bins(detector, quiet))
    lost = float(np.mean(hours)) * share * setup.traffic.level
    return Delay(
        "reconciled",
        share,
        tuple(float(h) for h in hours),
        RECONCILED_HOURS,
        lost,
        Rate(false, len(quiet)),
    )


def bank_bytes(setup: Setup) -> float:
    """How much over-explanation a sender may carry over: 1 % of the line."""
    return setup.line * 0.01


def _residual_alarm_bins(detector: Detector, residual: Floats) -> Floats:
    """The bin of each run's first alarm on hourly sums (the number of bins when none)."""
    runs, bins = residual.shape
    hourly = np.maximum(0.0, residual[:, : bins // 6 * 6].reshape(runs, -1, 6).sum(axis=2))
    base: TrafficBaseline = detector.baseline
    mean = base.expected(np.arange(base.trained, base.trained + hourly.shape[1]))
    over = alarmed(detector, (hourly - mean) / base.sigma(mean), base.trained)
    first = np.where(over.any(axis=1), over.argmax(axis=1) * 6 + 5, bins)
    result: Floats = first.astype(np.float64)
    return result


def _first_over(paths: Floats, line: float) -> Floats:
    over = paths >= line
    result: Floats = np.where(over.any(axis=1), over.argmax(axis=1), paths.shape[1]).astype(
        np.float64
    )
    return result


class Theft(msgspec.Struct, frozen=True):
    """One simulated thief: what stopped it, when, and what it got first."""

    thief: str
    rate: float
    stopped_by: str
    hours: float
    stolen: float


class Containment(msgspec.Struct, frozen=True):
    """Many simulated thieves inside the residual, against the incident bound."""

    thefts: tuple[Theft, ...]
    allowed: int
    line: int
    lag: int
    slack: int
    honest_blocked: Rate

    @property
    def exceeded(self) -> Rate:
        """How many thieves got more than alpha of the compressed weights before the block."""
        return Rate(sum(t.stolen > self.allowed for t in self.thefts), len(self.thefts))

    @property
    def worst(self) -> float:
        """The most that any of them got."""
        return max(theft.stolen for theft in self.thefts)


def containment(setup: Setup, *, runs: int, rng: Generator) -> Containment:
    """Let many unsigned thieves take what they can between two reviews, and count.

    Rates run from a thousandth of the traffic to the whole link. The thief's bytes pass the
    kernel's budgets, then count as residual, but for what TCP sends again; the residual
    line blocks, after the accounting lag.
    """
    bins = int(setup.plan.bound.review_days * 144)
    detector = residual_detector(setup, rng)
    kinds = [kind for kind in Thief if not kind.signed]
    picks = [kinds[int(i)] for i in rng.integers(0, len(kinds), runs)]
    link = setup.plan.link.rate_bit_s / 8 * HOUR_S
    rates = np.exp(rng.uniform(np.log(setup.traffic.level * 1e-3), np.log(link), runs))
    rates = np.where([kind is Thief.BULK for kind in picks], link, rates)
    noise, explained = residual_series(setup, rng, bins=bins, runs=runs)
    theft = np.stack(
        [
            wish(kind, rate, setup.traffic, bins=bins, bin_s=BIN_S, rng=rng)
            for kind, rate in zip(picks, rates, strict=True)
        ]
    )
    adaptive = np.array([kind is Thief.ADAPTIVE for kind in picks])
    hidden = np.maximum(0.0, -noise) + setup.noise * explained
    theft = np.where(adaptive[:, None], hidden, theft)
    theft = _within_budget(theft, explained, setup)
    # The worst thief sends as much again, in place of old bytes, as nobody counts.
    seen = noise + theft / (1 + REPEAT_SHARE)
    path = odometer(seen, bank_bytes(setup))
    crossed = _first_over(path, setup.line)
    alarmed = _residual_alarm_bins(detector, seen)
    honest = _first_over(odometer(noise, bank_bytes(setup)), setup.line) < bins
    thefts = tuple(
        _outcome(
            picks[run],
            float(rates[run]),
            theft=theft[run],
            path=path[run],
            ends=(crossed[run], alarmed[run]),
            setup=setup,
        )
        for run in range(runs)
    )
    flows, plan = setup.flows, setup.plan
    return Containment(
        thefts=thefts,
        allowed=plan.bound.incident_bytes,
        line=setup.line,
        lag=lag_bytes(flows, plan),
        slack=slack_bytes(flows, plan),
        honest_blocked=Rate(int(honest.sum()), runs),
    )


def _outcome(
    kind: Thief, rate: float, *, theft: Floats, path: Floats, ends: Sequence[float], setup: Setup
) -> Theft:
    crossed, alarmed = ends
    stop = min(crossed, alarmed)
    if stop >= len(theft):
        return Theft(kind.value, rate, "nothing before the review", math.inf, float(theft.sum()))
    index = int(stop)
    lag = lag_bytes(setup.flows, setup.plan)
    before = float(theft[:index].sum())
    if crossed <= alarmed:
        # Inside the bin, the block comes when the line is reached, plus what the lag lets pass.
        start = float(path[index - 1]) if index else 0.0
        gained = max(float(path[index]) - start, 1.0)
        part = min(1.0, (setup.line - start) / gained)
        stolen = before + min(float(theft[index]), float(theft[index]) * part + lag)
        return Theft(kind.value, rate, "residual line", (index + part) * BIN_S / HOUR_S, stolen)
    stolen = before + float(theft[index])
    return Theft(kind.value, rate, "residual alarm", (index + 1) * BIN_S / HOUR_S, stolen)


def _within_budget(theft: Floats, explained: Floats, setup: Setup) -> Floats:
    """Cut a theft to what the hour and day budgets and the link leave beside honest traffic."""
    link = setup.plan.link.rate_bit_s / 8 * BIN_S
    result = np.minimum(theft, np.maximum(0.0, link - explained))
    for window, bins in ((Window.HOUR, 6), (Window.DAY, 144)):
        budget = setup.budget(window)
        used = np.cumsum(np.concatenate([np.zeros((len(theft), bins)), explained], axis=1), axis=1)
        honest = used[:, bins:] - used[:, :-bins]
        room = np.maximum(0.0, budget - honest)
        kept = np.zeros_like(result)
        running = np.zeros(len(theft))
        for index in range(result.shape[1]):
            take = np.minimum(result[:, index], np.maximum(0.0, room[:, index] - running))
            kept[:, index] = take
            running += take
            if index >= bins - 1:
                running -= kept[:, index - bins + 1]
        result = kept
    return result


class Mimicry(msgspec.Struct, frozen=True):
    """A thief who owns the signing sender: only volume is left to see it."""

    share: float
    found: Rate
    median_hours: float
    bytes_by_alarm: float
    bytes_in_30_days: float
    budget_days_to_all: float


def mimicry(
    setup: Setup, shares: Sequence[float], *, runs: int, rng: Generator
) -> tuple[Mimicry, ...]:
    """Where the thief wins: bytes with valid rows, shaped like the flow they hide in.

    Nothing is unexplained, so only the volume detector and the kernel's budgets remain.
    """
    traffic = setup.traffic
    trained = traffic.draw(rng, TRAIN_WEEKS * 7 * 24, HOUR_S)[0]
    detector = calibrate(fit(trained, HOUR_S), alarms_per_year=setup.alarms_per_year, rng=rng)
    shape = traffic.mean(30 * 24, HOUR_S)
    result = []
    headroom = max(0.0, setup.budget(Window.MONTH) - traffic.level * 720)
    stolen = setup.plan.bound.stolen_bytes
    for share in shares:
        hours = []
        for _ in range(runs):
            series = traffic.draw(rng, 30 * 24, HOUR_S)[0] + share * shape
            found = first_alarm(detector, series)
            hours.append(math.inf if found is None else found + 1.0)
        inside = [hour for hour in hours if math.isfinite(hour)]
        rate = min(share * traffic.level, headroom / 720)
        result.append(
            Mimicry(
                share=share,
                found=Rate(len(inside), runs),
                median_hours=float(np.median(hours)),
                bytes_by_alarm=rate * float(np.median(np.minimum(hours, 720))),
                bytes_in_30_days=rate * 720,
                budget_days_to_all=stolen / rate / 24 if rate else math.inf,
            )
        )
    return tuple(result)
