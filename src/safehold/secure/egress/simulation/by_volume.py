"""A constant theft found by volume alone: how fast, beside how fast it could be at best.

A detector learned from some weeks is compared with an optimum that is told everything. And where
correlation makes a theft too slow to find, the simulation says how small a budget must be, so that
the same bytes are found in time again.
"""

import functools
import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from safehold.secure.egress.detectors.baseline import Floats, fit
from safehold.secure.egress.detectors.calibration import calibrate
from safehold.secure.egress.detectors.detectors import (
    WINDOW_S,
    Detector,
    alarmed,
    first_alarm,
)
from safehold.secure.egress.detectors.traffic_model import HOUR_S, Traffic
from safehold.secure.egress.simulation.delay import Delay
from safehold.secure.egress.simulation.optimum import (
    WARM_HOURS,
    YEAR_HOURS,
    Optimum,
    first,
    optimum,
)
from safehold.secure.egress.simulation.pieces import Pieces
from safehold.stats import Rate

TRAIN_WEEKS = 26
"""Half a year: with nine weeks the baseline's own error costs two thefts of a hundred."""
VOLUME_HOURS = WINDOW_S // HOUR_S
IN_TIME = 0.9
"""What share of thefts must be found within `VOLUME_HOURS`."""

SHARES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.5, 2.0)
_HORIZON_DAYS = 240
_PIECE = 5
"""How many hosts are kept as one piece."""


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
    """What volume alone does: the delay, beside the optimum's, and the smaller budget.

    `upper` bounds the share of years with a false alarm from above, and `lower` that of thefts
    found in time from below (95 %), with hosts as the units that are drawn: years of one fitted
    host are alike. `weeks` is how long each detector learned.
    """

    delay: Delay
    weeks: int
    optimum: Optimum
    restored: Restored
    upper: float
    lower: float

    @property
    def ratio(self) -> float:
        """Mean delay as a multiple of the optimum's."""
        return self.delay.mean / self.optimum.mean_hours

    @property
    def alarms_per_year(self) -> float:
        """The rate of false alarms, from the share of years that had none (Poisson)."""
        return _rate(self.delay.no_thief_alarm.value)

    @property
    def alarms_per_year_upper(self) -> float:
        """The rate's upper bound, from that of the share."""
        return _rate(self.upper)


class HostResult(msgspec.Struct, frozen=True):
    """What one fitted host showed: delays, thefts found in time by share, years with an alarm."""

    hours: tuple[float, ...]
    found: tuple[int, ...]
    alarmed: float


def first_alarms(detector: Detector, series: Floats) -> Floats:
    """The bin of each row's first alarm, from the end of the training; infinite without one."""
    base = detector.baseline
    mean = base.expected(np.arange(base.trained, base.trained + series.shape[-1]))
    return first(alarmed(detector, (series - mean) / base.sigma(mean), base.trained))


class Study(msgspec.Struct, frozen=True):
    """How much to simulate: thefts of one share of the level, hosts to fit, years without a thief.

    Thefts and years are shared out among the hosts; 63 % of years have a false alarm at one a year.
    `calibrated` is how many simulated years set a host's levels, `told` how many set the optimum's.
    """

    traffic: Traffic
    share: float
    runs: int
    hosts: int = 25
    years: int = 200
    weeks: int = TRAIN_WEEKS
    alarms_per_year: float = 1.0
    seed: int = 7
    calibrated: int = 300
    told: int = 400


def study(asked: Study, pieces: Pieces | None = None) -> VolumeStudy:
    """Fit detectors, each from weeks of its own, and measure them.

    Every host has a seed of its own, so that pieces kept from a run that was killed are the same.
    """
    kept = pieces or Pieces(None, asked)
    seen: list[HostResult] = []
    for begin in range(0, asked.hosts, _PIECE):
        numbers = range(begin, min(begin + _PIECE, asked.hosts))
        seen += kept.once(
            f"hosts-{begin}", list[HostResult], functools.partial(_hosts, asked, numbers)
        )
    hours = [h for one in seen for h in one.hours]
    finite = [h for h in hours if math.isfinite(h)]
    lost = asked.share * asked.traffic.level * float(np.mean(finite or [0.0]))
    quiet, n = max(1, asked.years // asked.hosts), len(hours)
    wrong = Rate(round(sum(one.alarmed for one in seen) * quiet), quiet * asked.hosts)
    found_by = tuple(
        (size, Rate(sum(one.found[at] for one in seen), n)) for at, size in enumerate(SHARES)
    )
    in_time = [float(np.mean(np.asarray(one.hours) <= VOLUME_HOURS)) for one in seen]
    rng = np.random.default_rng([asked.seed, asked.hosts])
    best = kept.once(
        "optimum",
        Optimum,
        lambda: optimum(
            asked.traffic,
            asked.share,
            rng=np.random.default_rng([asked.seed, 0, 1]),
            alarms_per_year=asked.alarms_per_year,
            years=asked.told,
        ),
    )
    return VolumeStudy(
        delay=Delay("volume", asked.share, tuple(hours), VOLUME_HOURS, lost, wrong, asked.hosts),
        weeks=asked.weeks,
        optimum=best,
        restored=Restored(asked.share, found_by, _smallest(found_by)),
        upper=_bound([one.alarmed for one in seen], 0.95, rng),
        lower=_bound(in_time, 0.05, rng),
    )


def _hosts(asked: Study, numbers: range) -> list[HostResult]:
    return [_host(asked, number) for number in numbers]


def _host(asked: Study, number: int) -> HostResult:
    traffic, rng = asked.traffic, np.random.default_rng([asked.seed, number])
    each, quiet = max(1, asked.runs // asked.hosts), max(1, asked.years // asked.hosts)
    trained = traffic.draw(rng, asked.weeks * 7 * 24, HOUR_S)[0]
    detector = calibrate(
        fit(trained, HOUR_S),
        alarms_per_year=asked.alarms_per_year,
        rng=rng,
        years=asked.calibrated,
    )
    onsets = rng.integers(0, WARM_HOURS, each)
    drawn = traffic.draw(rng, WARM_HOURS + _HORIZON_DAYS * 24, HOUR_S, each)
    short = drawn[:, : WARM_HOURS + VOLUME_HOURS + 1]
    found = [_delays(detector, short, onsets, size * traffic.level) for size in SHARES]
    still = traffic.draw(rng, YEAR_HOURS, HOUR_S, quiet)
    return HostResult(
        hours=tuple(_delays(detector, drawn, onsets, asked.share * traffic.level).tolist()),
        found=tuple(int((one <= VOLUME_HOURS).sum()) for one in found),
        alarmed=float(np.isfinite(first_alarms(detector, still)).mean()),
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


def _bound(values: Sequence[float], point: float, rng: Generator) -> float:
    """The `point` of the mean over hosts, by drawing hosts again."""
    each = np.asarray(values)
    drawn = rng.choice(each, size=(2000, len(each))).mean(axis=1)
    return float(np.quantile(drawn, point))


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
