"""A constant theft found by volume alone: how fast, and how fast it could be at best.

A detector learned from nine weeks is compared with an optimum that is told everything: the cycle,
the noise, its correlation and the size of the theft. Its CUSUM on the exact log-likelihood ratio is
the fastest there is at a rate of false alarms (Lorden 1971, Moustakides 1986). And where
correlation makes a theft too slow to find, the simulation says how small a budget must be, so that
the same bytes are found in time again.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from safehold.secure.egress.detectors.baseline import Floats, fit
from safehold.secure.egress.detectors.calibration import calibrate
from safehold.secure.egress.detectors.detectors import (
    Detector,
    cusum_steps,
    first_alarm,
    run_cusum,
    run_scan,
)
from safehold.secure.egress.detectors.traffic_model import HOUR_S, Traffic
from safehold.secure.egress.simulation.delay import Delay
from safehold.stats import Rate

TRAIN_DAYS = 63
VOLUME_HOURS = 110
IN_TIME = 0.9
"""What share of thefts must be found within `VOLUME_HOURS`."""

SHARES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.5, 2.0)
_WARM_HOURS = 7 * 24
_YEAR = 365 * 24
_HORIZON_DAYS = 240
_OPTIMUM_YEARS = 400
_OPTIMUM_RUNS = 1000
_LEAST = 1e-9
_STEP = 20.0


class Restored(msgspec.Struct, frozen=True):
    """By what part a budget must shrink so that the same stolen bytes are found in time.

    `found` says, for each share of the level, how many thefts were found within 110 hours; `share`
    is the smallest that is found in 90 %, or infinite.
    """

    theft: float
    found: tuple[tuple[float, Rate], ...]
    share: float

    @property
    def factor(self) -> float:
        """The part of today's budget that is left; 0 when none of the shares was enough."""
        return min(1.0, self.theft / self.share)


class VolumeStudy(msgspec.Struct, frozen=True):
    """What volume alone does: the delay, the mean delay of the optimum, and the smaller budget.

    `upper` bounds the share of years with a false alarm from above (95 %), with hosts as the units
    that are drawn: years of one fitted host are alike.
    """

    delay: Delay
    optimum_hours: float
    restored: Restored
    upper: float

    @property
    def ratio(self) -> float:
        """Mean delay as a multiple of the optimum's."""
        return self.delay.mean / self.optimum_hours

    @property
    def alarms_per_year(self) -> float:
        """The rate of false alarms, from the share of years that had none (Poisson)."""
        return _rate(self.delay.no_thief_alarm.value)

    @property
    def alarms_per_year_upper(self) -> float:
        """The rate's upper bound, from that of the share."""
        return _rate(self.upper)


def first_alarms(detector: Detector, series: Floats) -> Floats:
    """The bin of each row's first alarm, from the end of the training; infinite without one."""
    base = detector.baseline
    mean = base.expected(np.arange(base.trained, base.trained + series.shape[-1]))
    z = (series - mean) / base.sigma(mean)
    levels = detector.thresholds
    paths = run_cusum(cusum_steps(base, levels.design, z, base.trained))
    over = (paths > levels.cusum) | (run_scan(base, z, base.trained) > levels.scan)
    return _first(over)


def study(
    traffic: Traffic,
    share: float,
    *,
    runs: int,
    rng: Generator,
    alarms_per_year: float = 1.0,
    hosts: int = 25,
    years: int = 200,
) -> VolumeStudy:
    """Fit `hosts` detectors, each from weeks of its own, and measure them.

    Each gets its part of `runs` thefts of `share` of the level (and of every larger share) and of
    `years` without a thief; 63 % of those have a false alarm at one a year.
    """
    hours: list[float] = []
    alarmed: list[float] = []
    counts = dict.fromkeys(SHARES, 0)
    each, quiet = max(1, runs // hosts), max(1, years // hosts)
    for _ in range(hosts):
        trained = traffic.draw(rng, TRAIN_DAYS * 24, HOUR_S)[0]
        detector = calibrate(fit(trained, HOUR_S), alarms_per_year=alarms_per_year, rng=rng)
        onsets = rng.integers(0, _WARM_HOURS, each)
        drawn = traffic.draw(rng, _WARM_HOURS + _HORIZON_DAYS * 24, HOUR_S, each)
        hours += _delays(detector, drawn, onsets, share * traffic.level).tolist()
        short = drawn[:, : _WARM_HOURS + VOLUME_HOURS + 1]
        for size in SHARES:
            found = _delays(detector, short, onsets, size * traffic.level)
            counts[size] += int((found <= VOLUME_HOURS).sum())
        still = traffic.draw(rng, _YEAR, HOUR_S, quiet)
        alarmed.append(float(np.isfinite(first_alarms(detector, still)).mean()))
    finite = [h for h in hours if math.isfinite(h)]
    lost = share * traffic.level * float(np.mean(finite or [0.0]))
    n = each * hosts
    wrong = Rate(round(sum(alarmed) * quiet), quiet * hosts)
    found_by = tuple((size, Rate(count, n)) for size, count in counts.items())
    return VolumeStudy(
        delay=Delay("volume", share, tuple(hours), VOLUME_HOURS, lost, wrong, hosts),
        optimum_hours=optimum(traffic, share, rng=rng, alarms_per_year=alarms_per_year),
        restored=Restored(share, found_by, _smallest(found_by)),
        upper=_upper(alarmed, rng),
    )


def _rate(share: float) -> float:
    return -math.log(1 - share) if share < 1 else math.inf


def _smallest(found: Sequence[tuple[float, Rate]]) -> float:
    """The smallest share found in 90 %, on a straight line between those that were tried."""
    before: tuple[float, float] | None = None
    for size, rate in found:
        here = rate.events / rate.n
        if here >= IN_TIME:
            if before is None or here <= before[1]:
                return size
            return before[0] + (IN_TIME - before[1]) / (here - before[1]) * (size - before[0])
        before = (size, here)
    return math.inf


def _upper(alarmed: Sequence[float], rng: Generator) -> float:
    """The 95 % point of the mean over hosts, by drawing hosts again."""
    each = np.asarray(alarmed)
    drawn = rng.choice(each, size=(2000, len(each))).mean(axis=1)
    return float(np.quantile(drawn, 0.95))


def _delays(detector: Detector, drawn: Floats, onsets: NDArray[np.int64], size: float) -> Floats:
    """Hours from each theft's start to its alarm; one before it is chance, and is cleared."""
    after = np.arange(drawn.shape[1]) >= onsets[:, None]
    series = drawn + size * after
    found = first_alarms(detector, series)
    for row in np.flatnonzero(found < onsets):
        at = found[row]
        while at < onsets[row]:
            begin = int(at) + 1
            rest = first_alarm(detector, series[row, begin:], detector.baseline.trained + begin)
            at = math.inf if rest is None else begin + rest
        found[row] = at
    hours: Floats = found + 1 - onsets
    return hours


def optimum(
    traffic: Traffic, share: float, *, rng: Generator, alarms_per_year: float = 1.0
) -> float:
    """The mean delay in hours of a detector that knows the traffic and the theft."""
    size = share * traffic.level
    quiet = traffic.draw(rng, _YEAR, HOUR_S, _OPTIMUM_YEARS)
    top = run_cusum(exact_steps(traffic, quiet, size, 0)).max(axis=-1)
    level = float(np.quantile(top, math.exp(-alarms_per_year)))
    onset = 3 * 24
    series = traffic.draw(rng, onset + 60 * 24, HOUR_S, _OPTIMUM_RUNS)
    steps = exact_steps(traffic, series + size, size, 0)[:, onset:]
    # At the onset the statistic stands where quiet traffic left it.
    begin = run_cusum(exact_steps(traffic, series[:, :onset], size, 0))[:, -1]
    paths = run_cusum(np.concatenate([begin[:, None], steps], axis=1))[:, 1:]
    hours = _first(paths > level) + 1
    return float(np.minimum(hours, paths.shape[1]).mean())


def exact_steps(traffic: Traffic, series: Floats, size: float, start: int) -> Floats:
    """The log-likelihood ratio of each hour: noise as the model draws it, correlation included."""
    mean = traffic.mean(start + series.shape[-1], HOUR_S)[start:]
    steps: Floats = _log_density(traffic, series - size, mean) - _log_density(traffic, series, mean)
    return np.clip(steps, -_STEP, _STEP)


def _log_density(traffic: Traffic, series: Floats, mean: Floats) -> Floats:
    """Wilson and Hilferty's cube back to normal scores, an autoregression on them."""
    wide = math.sqrt(9 / traffic.cv**2)
    part = np.maximum(series / mean, _LEAST)
    score = (np.cbrt(part) - 1 + 1 / wide**2) * wide
    before = np.concatenate([np.zeros_like(score[..., :1]), score[..., :-1]], axis=-1)
    spread = 1 - traffic.phi**2
    surprise = score - traffic.phi * before
    density: Floats = -(surprise**2) / (2 * spread) - 2 / 3 * np.log(part)
    return np.where(series > 0, density, -1e6)


def _first(over: NDArray[np.bool_]) -> Floats:
    found: Floats = np.where(over.any(axis=-1), over.argmax(axis=-1), np.inf)
    return found
