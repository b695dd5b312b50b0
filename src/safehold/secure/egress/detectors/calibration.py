"""Set a detector's thresholds by false alarms per year, on simulated years without a thief.

Traffic is correlated, and the baseline it is judged by was itself estimated from a few weeks of
it; both make false alarms. So the whole way is repeated on traffic drawn from the fit (a double
bootstrap; Gandy and Kvaloy 2013 do this for control charts): draw a training time, fit a baseline
to it, judge years of the same traffic by it, and take the level that a share exp(-rate) of all
the years stays below.

Noise is drawn by an autoregression fitted to the training residuals' normal scores (order by AIC,
at most 48 bins) from blocks of a day of its innovations ("post-blackening", Davison and Hinkley
1997, 8.2): the autoregression carries correlation over any border, the blocks keep bursts
together.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from safehold.errors import EgressError
from safehold.secure.egress.detectors.baseline import DAY_S, Floats, TrafficBaseline, fit
from safehold.secure.egress.detectors.detectors import (
    STEPS,
    AlarmLevels,
    Detector,
    cusum_steps,
    run_cusum,
    run_scan,
    run_window,
    window_bins,
)

YEAR_S = 365 * DAY_S
CUSUM_SHARE = 0.9
"""What the CUSUM and the window take of the false-alarm allowance; the scan has the rest."""

AIM, CORRELATED_AIM = 0.85, 0.65
"""What is aimed at of the allowance, and where bins are correlated by `_CORRELATED` or more. Levels
from simulated years hold the rate on average over hosts, give or take; the rest is for the bound of
what is measured to stay within the allowance. Correlated weeks say less about their own level, so
hosts differ more."""
_CORRELATED = 0.25

HANDICAPS = (1.5, 3.0)
"""How much higher than the window's sum the CUSUM must rise: where a theft is expected to be too
slow for the window, and where it is expected to be found within it."""

_YEARS = 300
_YEARS_PER_FIT = 3
_FITS_AT_ONCE = 10
_MOST_LAGS = 48
_NORMAL = NormalDist()
_TAIL = 0.95
_TAIL_SCORE = _NORMAL.inv_cdf(_TAIL)
_FAR = np.linspace(_TAIL_SCORE, 12.0, 500)
_FAR_LOG_SHARE = np.array(
    [math.log(math.erfc(score / math.sqrt(2)) / 2 / (1 - _TAIL)) for score in _FAR]
)
"""The logarithm of how much of the tail lies above a score."""
_NORMAL_BEYOND = _NORMAL.pdf(_TAIL_SCORE) / (1 - _TAIL) - _TAIL_SCORE
"""The mean excess of a normal score over the 95 % point."""


def calibrate(
    baseline: TrafficBaseline,
    *,
    alarms_per_year: float,
    rng: Generator,
    design: float = 0.1,
    years: int = _YEARS,
) -> Detector:
    """Set all thresholds so that together they alarm `alarms_per_year` times without a thief.

    Raises:
        EgressError: The rate or the design is not above 0, or no level can be set: nothing would
            be over one that is no number.
    """
    if alarms_per_year <= 0 or design <= 0:
        raise EgressError("expected alarms_per_year and design above 0")
    noise = Noise(baseline)
    width = window_bins(baseline.bin_s)
    years_seen: list[_Highest] = []
    fits = max(1, years // _YEARS_PER_FIT)
    for begin in range(0, fits, _FITS_AT_ONCE):
        count = min(_FITS_AT_ONCE, fits - begin)
        trained = noise.traffic(rng, count, baseline.trained, 0)
        judged = noise.traffic(
            rng, count * _YEARS_PER_FIT, YEAR_S // baseline.bin_s, baseline.trained
        )
        for number in range(count):
            again = fit(trained[number], baseline.bin_s)
            mine = judged[number * _YEARS_PER_FIT : (number + 1) * _YEARS_PER_FIT]
            z = np.stack([again.standardise(year, again.trained) for year in mine])
            steps = cusum_steps(again, design, z, again.trained)
            years_seen.append(
                _Highest(
                    cusum=run_cusum(steps).max(axis=-1),
                    window=run_window(steps, width).max(axis=-1),
                    scan=run_scan(again, z, again.trained).max(axis=-1),
                    drift=float(steps.mean()),
                )
            )
    cusum = np.concatenate([one.cusum for one in years_seen])
    window = np.concatenate([one.window for one in years_seen])
    scan = np.concatenate([one.scan for one in years_seen])
    allowed = alarms_per_year * (CORRELATED_AIM if baseline.phi >= _CORRELATED else AIM)
    rate = allowed * CUSUM_SHARE
    slow, fast = HANDICAPS
    # A theft lifts the window's sum by as much as quiet traffic lowers it, give or take.
    lift = -width * float(np.mean([one.drift for one in years_seen]))
    handicap = fast if lift >= _level(np.maximum(cusum - fast, window), rate) else slow
    level = _level(np.maximum(cusum - handicap, window), rate)
    thresholds = AlarmLevels(
        cusum=level + handicap,
        window=level,
        scan=_level(scan, allowed * (1 - CUSUM_SHARE)),
        design=design,
        alarms_per_year=alarms_per_year,
        steps=STEPS,
    )
    if not all(map(math.isfinite, (thresholds.cusum, thresholds.window, thresholds.scan))):
        raise EgressError("no level could be set on this traffic: it has no spread to judge by")
    return Detector(baseline=baseline, thresholds=thresholds)


class _Highest(NamedTuple):
    """The highest that each statistic came in each of some years; the mean step of all."""

    cusum: Floats
    window: Floats
    scan: Floats
    drift: float


def _level(maxima: Floats, rate: float) -> float:
    """The level that a share exp(-rate) of years stays below.

    The tail beyond the data is exponential, with the slope of the upper half.
    """
    share = math.exp(-rate)
    if 1 - share >= 5 / len(maxima):
        return float(np.quantile(maxima, share))
    middle = float(np.median(maxima))
    above = maxima[maxima > middle] - middle
    slope = max(float(above.mean()), 1e-9) if len(above) else 1e-9
    return middle + slope * math.log(0.5 / (1 - share))


class Noise:
    """Traffic like that of the training: its cycle, and noise as skewed and correlated as there.

    Residuals become normal scores by rank, the scores an autoregression and its innovations. What
    is drawn goes the same way back. A year has larger values than the training had: beyond the
    95 % point innovations have a normal tail and values an exponential one, of the training's
    mean excess.
    """

    def __init__(self, baseline: TrafficBaseline) -> None:
        self._baseline = baseline
        source = np.asarray(baseline.residuals)
        self._block = min(len(source), max(1, DAY_S // baseline.bin_s))
        values, places, counts = np.unique(source, return_inverse=True, return_counts=True)
        middles = (np.cumsum(counts) - counts / 2) / len(source)
        self._values: Floats = values
        self._scores = np.array([_NORMAL.inv_cdf(float(share)) for share in middles])
        scores: Floats = self._scores[places]
        self.weights = autoregression(scores, max(1, min(_MOST_LAGS, len(source) // 10)))
        self._innovations: Floats = scores.copy()
        for lag, weight in enumerate(self.weights, 1):
            self._innovations[lag:] -= weight * scores[:-lag]
        self._tail = _tail(source)
        self._surprise = _tail(self._innovations)

    def traffic(self, rng: Generator, runs: int, bins: int, start: int) -> Floats:
        """Draw `runs` series of `bins` byte counts from bin number `start` of the cycle."""
        mean = self._baseline.expected(np.arange(start, start + bins))
        scores = self._draw(rng, runs, bins)
        z = np.interp(scores, self._scores, self._values)
        far = scores > _TAIL_SCORE
        high, beyond = self._tail
        if beyond:
            z[far] = high - beyond * np.interp(scores[far], _FAR, _FAR_LOG_SHARE)
        series: Floats = np.maximum(mean + self._baseline.sigma(mean) * z, 0.0)
        return series

    def _draw(self, rng: Generator, runs: int, bins: int) -> Floats:
        """Draw series of normal scores."""
        order = len(self.weights)
        warm = 10 * order
        count = -(-(bins + warm) // self._block)
        starts = rng.integers(0, len(self._innovations), size=(runs, count))
        index = (starts[..., None] + np.arange(self._block)) % len(self._innovations)
        scores: Floats = self._innovations[index].reshape(runs, -1)[:, : bins + warm]
        high, beyond = self._surprise
        far = scores > high
        drawn = np.interp(-rng.exponential(size=int(far.sum())), _FAR_LOG_SHARE[::-1], _FAR[::-1])
        scores[far] = high + beyond / _NORMAL_BEYOND * (drawn - _TAIL_SCORE)
        if order:
            # Bins first: each step then reads and writes what lies together.
            flow, backwards = np.ascontiguousarray(scores.T), self.weights[::-1]
            for at in range(order, bins + warm):
                flow[at] += backwards @ flow[at - order : at]
            scores = np.ascontiguousarray(flow.T)
        return scores[:, warm:]


def _tail(values: Floats) -> tuple[float, float]:
    """Return the 95 % point and the mean excess of the values above it."""
    high = float(np.quantile(values, _TAIL))
    above = values[values > high] - high
    return high, float(above.mean()) if len(above) else 0.0


def autoregression(z: Floats, most: int) -> Floats:
    """Fit an autoregression by Levinson and Durbin's recursion, its order by AIC.

    Returns the weights of the last 1, 2, ... values: at most `most`, none when z has no
    correlation or no spread. Yule and Walker's equations always give a stationary process.
    """
    count = len(z)
    spread = float(z @ z) / count
    if spread <= 0:
        return np.zeros(0)
    around = np.array([float(z[k:] @ z[: count - k]) / count for k in range(most + 1)])
    weights = best = np.zeros(0)
    error = around[0]
    least = count * math.log(error)
    for order in range(1, most + 1):
        part = (around[order] - weights @ around[order - 1 : 0 : -1]) / error
        weights = np.append(weights - part * weights[::-1], part)
        error *= 1 - part**2
        if error <= 0:
            break
        score = count * math.log(error) + 2 * order
        if score < least:
            best, least = weights, score
    return best
