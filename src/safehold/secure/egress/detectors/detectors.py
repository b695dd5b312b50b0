"""Change detectors on byte counts, with thresholds set by false alarms per year.

Two statistics see the same standardised bins. The CUSUM (Page 1954) on the log-likelihood ratio
of a constant theft of `design` times the mean level is the best detector of a slow thief. The
scan (a window-limited GLR) looks at the excess over 10 minutes, an hour, a day, a week and
30 days, each in its own standard deviations, and finds bulk at once.

Their thresholds come from `calibration`.
"""

import math

import msgspec
import numpy as np

from safehold.secure.egress.detectors.baseline import Floats, TrafficBaseline

SCALES_S = (600, 3_600, 86_400, 604_800, 2_592_000)
_SMALLEST_STEP, _LARGEST_STEP = -8.0, 4.0
STEPS = 2
"""The kind of CUSUM steps: 1 were gamma steps, 2 are on normal scores."""
_LEAST_PART = 1e-3
"""A bin of less than this part of its mean says no more than one of just so much."""


class AlarmLevels(msgspec.Struct, frozen=True):
    """Alarm levels of both statistics, and what they were set for.

    `steps` says for which kind of CUSUM steps: a level of one kind means nothing for another.
    """

    cusum: float
    scan: float
    design: float
    alarms_per_year: float
    steps: int = 1


class Detector(msgspec.Struct, frozen=True):
    """A baseline with its thresholds: all that judging one stream needs."""

    baseline: TrafficBaseline
    thresholds: AlarmLevels


class DetectorState(msgspec.Struct, frozen=True):
    """The running statistics of one stream; a value that is kept over restarts.

    `bin` counts bins since the training began; `recent` holds the last 30 days of excess and
    variance for the scan, as running sums.
    """

    bin: int
    cusum: float = 0.0
    last_z: float = 0.0
    excess: tuple[float, ...] = (0.0,)
    variance: tuple[float, ...] = (0.0,)


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
    stolen = _surprise(seen - design * baseline.level, mean, wide, baseline.phi)
    steps: Floats = np.clip(stolen - quiet, _SMALLEST_STEP, _LARGEST_STEP)
    return steps


def _surprise(seen: Floats, mean: Floats, wide: Floats, phi: float) -> Floats:
    """The log-density of each bin but the first, given the one before it, up to a constant."""
    root = np.cbrt(np.maximum(seen / np.maximum(mean, 1e-9), _LEAST_PART))
    scores = (root - 1 + 1 / wide**2) * wide
    new = scores[..., 1:] - phi * scores[..., :-1]
    density: Floats = -(new**2) / (2 * (1 - phi**2)) - 2 * np.log(root[..., 1:])
    return density


def run_cusum(steps: Floats, start: float = 0.0) -> Floats:
    """Accumulate steps with a floor of 0, without resetting at alarms."""
    paths = np.empty_like(steps)
    level = np.full(steps.shape[:-1], start)
    for index in range(steps.shape[-1]):
        level = np.maximum(0.0, level + steps[..., index])
        paths[..., index] = level
    return paths


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
        wide = np.sqrt((spread[width:] - spread[:-width]) * _widen(baseline.phi, width))
        best[..., width - 1 :] = np.maximum(best[..., width - 1 :], total / wide)
    return best


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
    alarms: list[ShapeAlarm] = []
    if cusum > thresholds.cusum:
        alarms.append(ShapeAlarm("cusum", cusum, thresholds.cusum))
        cusum = 0.0
    for width in scan_widths(baseline.bin_s):
        if len(excess) <= width:
            break
        wide = math.sqrt((variance[-1] - variance[-width - 1]) * _widen(baseline.phi, width))
        score = (excess[-1] - excess[-width - 1]) / max(wide, 1e-12)
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
    )
    return after, tuple(alarms)


def first_alarm(detector: Detector, values: Floats, index: int | None = None) -> int | None:
    """The first of consecutive bins at which either statistic alarms, or None."""
    begin = detector.baseline.trained if index is None else index
    z = detector.baseline.standardise(values, begin)
    thresholds = detector.thresholds
    paths = run_cusum(cusum_steps(detector.baseline, thresholds.design, z, begin))
    over = (paths > thresholds.cusum) | (run_scan(detector.baseline, z, begin) > thresholds.scan)
    found = np.flatnonzero(over)
    return int(found[0]) if len(found) else None
