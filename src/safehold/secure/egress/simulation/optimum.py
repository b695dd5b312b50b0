"""How fast a constant theft could be found at best, by one who is told everything.

Told are the cycle, the noise, its correlation and the size of the theft. At a rate of false alarms
the CUSUM on the exact log-likelihood ratio has the shortest mean delay (Lorden 1971, Moustakides
1986). The sum of the same ratios over the time allowed finds more thefts within that time (Guepie,
Fillatre and Nikiforov 2012): one rule can't do best at both, so both are measured.
"""

import math

import msgspec
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from safehold.secure.egress.detectors.baseline import Floats
from safehold.secure.egress.detectors.detectors import run_cusum, run_window, window_bins
from safehold.secure.egress.detectors.traffic_model import HOUR_S, Traffic
from safehold.stats import Rate

WARM_HOURS = 7 * 24
YEAR_HOURS = 365 * 24
_HORIZON_HOURS = 120 * 24
_RUNS = 1000
_LEAST = 1e-9
_STEP = 20.0


class Optimum(msgspec.Struct, frozen=True):
    """The shortest mean delay in hours, and how many each rule finds within the window's time."""

    mean_hours: float
    cusum_in_time: Rate
    window_in_time: Rate


def optimum(
    traffic: Traffic,
    share: float,
    *,
    rng: Generator,
    alarms_per_year: float = 1.0,
    runs: int = _RUNS,
    years: int = 400,
) -> Optimum:
    """Measure both rules on thefts that begin at any hour of a week."""
    size, width = share * traffic.level, window_bins(HOUR_S)
    quiet = exact_steps(traffic, traffic.draw(rng, YEAR_HOURS, HOUR_S, years), size, 0)
    share_quiet = math.exp(-alarms_per_year)
    onsets = rng.integers(0, WARM_HOURS, runs)
    series = traffic.draw(rng, WARM_HOURS + _HORIZON_HOURS, HOUR_S, runs)
    after = np.arange(series.shape[1]) >= onsets[:, None]
    stolen = exact_steps(traffic, series + size * after, size, 0)
    hours = []
    for rule in (run_cusum, lambda steps: run_window(steps, width)):
        level = float(np.quantile(rule(quiet).max(axis=-1), share_quiet))
        # What is over before the onset is chance; the statistic goes on from where it stands.
        found = first((rule(stolen) > level) & after)
        hours.append(np.minimum(found + 1 - onsets, _HORIZON_HOURS))
    fast, sure = (Rate(int((found <= width).sum()), runs) for found in hours)
    return Optimum(float(hours[0].mean()), fast, sure)


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


def first(over: NDArray[np.bool_]) -> Floats:
    """The first bin of each row that is over; infinite without one."""
    found: Floats = np.where(over.any(axis=-1), over.argmax(axis=-1), np.inf)
    return found
