"""Change detectors on byte counts, with thresholds set by false alarms per year.

Three statistics see the same standardised bins. The CUSUM (Page 1954) on the log-likelihood ratio
of a constant theft of `design` times the mean level has the shortest mean delay for a slow thief.
The sum of the same ratios over the last `WINDOW_S` (the finite moving average of Guepie, Fillatre
and Nikiforov 2012) finds the most thefts within that time. The scan (a window-limited GLR) looks
at the excess over 10 minutes, an hour, a day, a week and 30 days, each in its own standard
deviations, and finds bulk at once.

Their thresholds come from `calibration`.
"""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from safehold.secure.egress.detectors.baseline import Floats, TrafficBaseline

SCALES_S = (600, 3_600, 86_400, 604_800, 2_592_000)
_SMALLEST_STEP, _LARGEST_STEP = -8.0, 4.0
STEPS = 3
"""The kind of statistic: 1 had gamma steps, 2 steps on normal scores, 3 has the window beside."""
WINDOW_S = 110 * 3_600
"""The time within which most thefts must be found."""
_LEAST_PART = 1e-3
"""A bin of less than this part of its mean says no more than one of just so much."""


class AlarmLevels(msgspec.Struct, frozen=True):
    """Alarm levels of the statistics, and what they were set for.

    `steps` says for which kind of steps: a level of one kind means nothing for another.
    """

    cusum: float
    scan: float
    design: float
    alarms_per_year: float
    steps: int = 1
    window: float = 0.0


class Detector(msgspec.Struct, frozen=True):
    """A baseline with its thresholds: all that judging one stream needs."""

    baseline: TrafficBaseline
    thresholds: AlarmLevels


class DetectorState(msgspec.Struct, frozen=True):
    """The running statistics of one stream; a value that is kept over restarts.

    `bin` counts bins since the training began; `recent` holds the last 30 days of excess and
    variance for the scan, as running sums; `ratios` those of the steps for the window.
    """

    bin: int
    cusum: float = 0.0
    last_z: float = 0.0
    excess: tuple[float, ...] = (0.0,)
    variance: tuple[float, ...] = (0.0,)
    ratios: tuple[float, ...] = (0.0,)


class ShapeAlarm(msgspec.Struct, frozen=True):
    """A statistic passed its threshold."""

    statistic: str
    value: float
    threshold: float
    scale_s: int = 0


def cusum_steps(
    baseline: TrafficBaseline, design: float, z: Floats, start: int, last: Floats | float = 0.0
) -> Floats:
    """The log-likelihood ratio of each bin, with and without a constant theft.

    Traffic is taken as gamma noise around its mean, so that quiet bins, which a constant theft
    makes impossible, count most. Wilson and Hilferty's cube root turns bins into normal scores,
    and there the noise is an autoregression (AR(1)): each bin is judged by what the one before
    leaves open, with and without the theft in both. The thresholds are calibrated, so a wrong
    shape costs delay, never false alarms. `z` has bins on its last axis; `last` is the one before.
    """
    mean = baseline.expected(np.arange(start - 1, start + z.shape[-1]))
    sigma = baseline.sigma(mean)
    before = np.broadcast_to(last, z[..., :1].shape)
    seen = mean + sigma * np.concatenate([before, z], axis=-1)
    wide = 3 * np.sqrt(np.clip((mean / np.maximum(sigma, 1e-12)) ** 2, 1.5, 1e4))
    quiet = _surprise(seen, mean, wide, baseline.phi)
    left = seen - design * baseline.level
    stolen = _surprise(left, mean, wide, baseline.phi)
    # A bin that carried less than the theft alone says that there was none.
    never = left[..., 1:] < 0
    steps: Floats = np.where(never, _SMALLEST_STEP, stolen - quiet)
    return np.clip(steps, _SMALLEST_STEP, _LARGEST_STEP)


def _surprise(seen: Floats, mean: Floats, wide: Floats, phi: float) -> Floats:
    """The log-density of each bin but the first, given the one before it, up to a constant."""
    root = np.cbrt(np.maximum(seen / np.maximum(mean, 1e-9), _LEAST_PART))
    scores = (root - 1 + 1 / wide**2) * wide
    new = scores[..., 1:] - phi * scores[..., :-1]
    density: Floats = -(new**2) / (2 * (1 - phi**2)) - 2 * np.log(root[..., 1:])
    return density


def run_cusum(steps: Floats, start: float = 0.0) -> Floats:
    """Accumulate steps with a floor of 0, without resetting at alarms.

    A sum with a floor is the sum without one, less the lowest that it ever was below 0.
    """
    sums = np.cumsum(steps, axis=-1) + start
    paths: Floats = sums - np.minimum(np.minimum.accumulate(sums, axis=-1), 0.0)
    return paths


def window_bins(bin_s: int) -> int:
    """How many bins the window has: at least one."""
    return max(1, WINDOW_S // bin_s)


def run_window(steps: Floats, width: int) -> Floats:
    """For each bin the sum of the last `width` steps; of all before it where there are fewer."""
    zero = np.zeros((*steps.shape[:-1], 1))
    sums = np.concatenate([zero, np.cumsum(steps, axis=-1)], axis=-1)
    ends = np.arange(1, sums.shape[-1])
    within: Floats = sums[..., ends] - sums[..., np.maximum(ends - width, 0)]
    return within


def scan_widths(bin_s: int) -> tuple[int, ...]:
    """The scan's windows in bins, without those shorter than one bin."""
    return tuple(sorted({max(1, scale // bin_s) for scale in SCALES_S if scale >= bin_s}))


def _inflation(phi: float) -> float:
    """How much correlation widens the variance of a sum."""
    return (1 + phi) / (1 - phi)


def run_scan(baseline: TrafficBaseline, z: Floats, start: int) -> Floats:
    """For each bin the largest standardised excess over the scan's windows."""
    count = z.shape[-1]
    sigma = baseline.sigma(baseline.expected(np.arange(start, start + count)))
    zero = np.zeros((*z.shape[:-1], 1))
    excess = np.concatenate([zero, np.cumsum(z * sigma, axis=-1)], axis=-1)
    spread = np.concatenate([[0.0], np.cumsum(sigma**2)])
    best = np.full(z.shape, -np.inf)
    for width in scan_widths(baseline.bin_s):
        if width > count:
            break
        total = excess[..., width:] - excess[..., :-width]
        within = np.maximum(spread[width:] - spread[:-width], width * _least(baseline))
        wide = np.sqrt(within * _widen(baseline.phi, width))
        best[..., width - 1 :] = np.maximum(best[..., width - 1 :], total / wide)
    return best


def _least(baseline: TrafficBaseline) -> float:
    """The least variance of a bin: differences of long sums lose what is small beside them."""
    return float(baseline.sigma(np.asarray(baseline.mean)).min()) ** 2


def _widen(phi: float, width: int) -> float:
    return 1.0 + (_inflation(phi) - 1.0) * (1 - 1 / width)


def start(detector: Detector, index: int | None = None) -> DetectorState:
    """Begin to watch, at bin number `index` (default: right after the training)."""
    return DetectorState(bin=detector.baseline.trained if index is None else index)


def step(
    detector: Detector, progress: DetectorState, value: float
) -> tuple[DetectorState, tuple[ShapeAlarm, ...]]:
    """Judge one more bin; the statistics start again at 0 after their alarm."""
    baseline, thresholds = detector.baseline, detector.thresholds
    z = baseline.standardise(np.array([value]), progress.bin)
    steps = cusum_steps(baseline, thresholds.design, z, progress.bin, progress.last_z)
    cusum = max(0.0, progress.cusum + float(steps[0]))
    sigma = float(baseline.sigma(baseline.expected(np.array([progress.bin])))[0])
    longest = scan_widths(baseline.bin_s)[-1]
    excess = (*progress.excess, progress.excess[-1] + float(z[0]) * sigma)[-longest - 1 :]
    variance = (*progress.variance, progress.variance[-1] + sigma**2)[-longest - 1 :]
    most = window_bins(baseline.bin_s) + 1
    ratios = (*progress.ratios, progress.ratios[-1] + float(steps[0]))[-most:]
    lately = ratios[-1] - ratios[0]
    alarms: list[ShapeAlarm] = []
    if cusum > thresholds.cusum:
        alarms.append(ShapeAlarm("cusum", cusum, thresholds.cusum))
    if lately > thresholds.window:
        alarms.append(ShapeAlarm("window", lately, thresholds.window, WINDOW_S))
    if alarms:
        cusum, ratios = 0.0, (0.0,)
    for width in scan_widths(baseline.bin_s):
        if len(excess) <= width:
            break
        within = max(variance[-1] - variance[-width - 1], width * _least(baseline))
        wide = math.sqrt(within * _widen(baseline.phi, width))
        score = (excess[-1] - excess[-width - 1]) / wide
        if score > thresholds.scan:
            alarms.append(ShapeAlarm("scan", score, thresholds.scan, width * baseline.bin_s))
    if any(alarm.statistic == "scan" for alarm in alarms):
        excess, variance = excess[-1:], variance[-1:]
    after = DetectorState(
        bin=progress.bin + 1,
        cusum=cusum,
        last_z=float(z[0]),
        excess=excess,
        variance=variance,
        ratios=ratios,
    )
    return after, tuple(alarms)


def alarmed(detector: Detector, z: Floats, begin: int) -> NDArray[np.bool_]:
    """At which standardised bins (the last axis) a statistic is over; none starts again."""
    base, levels = detector.baseline, detector.thresholds
    steps = cusum_steps(base, levels.design, z, begin)
    over: NDArray[np.bool_] = run_cusum(steps) > levels.cusum
    over |= run_window(steps, window_bins(base.bin_s)) > levels.window
    over |= run_scan(base, z, begin) > levels.scan
    return over


def first_alarm(detector: Detector, values: Floats, index: int | None = None) -> int | None:
    """The first of consecutive bins at which a statistic alarms, or None."""
    begin = detector.baseline.trained if index is None else index
    z = detector.baseline.standardise(values, begin)
    found = np.flatnonzero(alarmed(detector, z, begin))
    return int(found[0]) if len(found) else None
