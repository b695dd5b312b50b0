"""What is normal: a seasonal baseline with overdispersed noise, fitted once and then frozen.

Real traffic is overdispersed (variance = a * mean**b with a far above 1; Polunchenko,
Tartakovsky and Mukhopadhyay 2012), so Poisson limits would alarm all day. The baseline does not
keep learning by itself: a thief who starts slowly would teach it. Fitting it anew is a decision.
"""

import functools
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from safehold.errors import EgressError

Floats = NDArray[np.float64]

DAY_S = 86_400
WEEK_S = 7 * DAY_S
_MIN_BINS = 48
_MIN_CYCLES = 3
_CUT_SIGMAS = 6.0


class TrafficBaseline(msgspec.Struct, frozen=True):
    """Mean by slot of the cycle; variance `scale * mean ** power`; lag-1 correlation `phi`.

    `bin_s` is the length of one bin in seconds, `trained` how many bins it was fitted on.
    `residuals` are the standardised residuals of the training time, kept to calibrate thresholds.
    """

    bin_s: int
    mean: tuple[float, ...]
    scale: float
    power: float
    phi: float
    trained: int
    residuals: tuple[float, ...]

    @property
    def level(self) -> float:
        """The mean over the whole cycle, in bytes per bin."""
        return float(np.mean(self.mean))

    def expected(self, index: NDArray[np.int64]) -> Floats:
        """The mean of bins by number since the training's first bin."""
        return np.asarray(self.mean)[index % len(self.mean)]

    def sigma(self, mean: Floats) -> Floats:
        """The standard deviation that goes with a mean: at least 0.5 % of the level, and a byte.

        A slot that was always silent would else have none, and any byte there be infinite.
        """
        floor = 0.005 * self.level + 1.0
        return np.maximum(floor, np.sqrt(self.scale * np.maximum(mean, 1e-9) ** self.power))

    def standardise(self, values: Floats, start: int = 0) -> Floats:
        """Return (value - mean) / sigma for consecutive bins from number `start`.

        Raises:
            EgressError: A value is not finite: it would silence every later alarm.
        """
        if not np.isfinite(values).all():
            raise EgressError("expected byte counts that are finite")
        mean = self.expected(np.arange(start, start + len(values)))
        return (values - mean) / self.sigma(mean)


def fit(values: Sequence[float] | Floats, bin_s: int) -> TrafficBaseline:
    """Fit a baseline to consecutive bins.

    A daily profile times a factor for each weekday when three weeks are there, a daily profile
    when three days are, else one level. Few parameters: each one's error becomes false alarms.
    Values above six standard deviations are cut, so that one accident does not widen the limits.

    Raises:
        EgressError: Fewer than 48 bins, or values that are not finite and at least 0.
    """
    raw = np.asarray(values, dtype=float)
    if len(raw) < _MIN_BINS:
        raise EgressError(f"expected at least {_MIN_BINS} bins to fit a baseline, got {len(raw)}")
    if not np.isfinite(raw).all() or (raw < 0).any():
        raise EgressError("expected byte counts that are finite and at least 0")
    mean, parameters = _cycle(raw, bin_s)
    slots = np.arange(len(raw)) % len(mean)
    scale, power = _variance(raw, mean[slots])
    limit = mean + _CUT_SIGMAS * np.sqrt(scale * np.maximum(mean, 1e-9) ** power)
    seen = np.minimum(raw, limit[slots])
    mean, parameters = _cycle(seen, bin_s)
    fitted = mean[slots]
    scale, power = _variance(seen, fitted)
    scale *= len(seen) / max(1, len(seen) - parameters)
    z = (seen - fitted) / np.maximum(np.sqrt(scale * np.maximum(fitted, 1e-9) ** power), 1e-9)
    around = float((z[1:] * z[:-1]).mean() / max(float((z**2).mean()), 1e-9))
    noise = 2 / np.sqrt(len(z))
    return TrafficBaseline(
        bin_s=bin_s,
        mean=tuple(mean.tolist()),
        scale=scale,
        power=power,
        phi=float(np.clip(around, 0.0, 0.98)) if around > noise else 0.0,
        trained=len(seen),
        residuals=tuple(z.tolist()),
    )


def _cycle(seen: Floats, bin_s: int) -> tuple[Floats, int]:
    """Fit the cycle; return its mean by slot and how many parameters it took."""
    day, week = max(1, DAY_S // bin_s), max(1, WEEK_S // bin_s)
    if day == 1 or len(seen) < _MIN_CYCLES * day:
        return np.array([float(seen.mean())]), 1
    number = np.arange(len(seen))
    hour = number % day
    if len(seen) < _MIN_CYCLES * week:
        return _smooth(_average(seen, hour, day), seen, hour), min(day, 24)
    weekday = number // day % 7
    factor, profile = np.ones(7), np.ones(day)
    for _ in range(4):
        profile = _average(seen / factor[weekday], hour, day)
        factor = _average(seen / np.maximum(profile[hour], 1e-9), weekday, 7)
        factor = np.maximum(factor / max(float(factor.mean()), 1e-9), 1e-3)
    profile = _smooth(profile, seen / factor[weekday], hour)
    return np.outer(factor, profile).ravel(), min(day, 24) + 6


def _average(seen: Floats, slots: NDArray[np.int64], period: int) -> Floats:
    counts = np.bincount(slots, minlength=period)
    means: Floats = np.bincount(slots, weights=seen, minlength=period) / counts
    return means


def _smooth(mean: Floats, seen: Floats, slots: NDArray[np.int64]) -> Floats:
    """Pick the smooth cycle that predicts best by leave-one-out.

    Moving averages flatten peaks and lift valleys, where a constant theft counts most; windows
    that keep a parabola (Savitzky and Golay 1964) do so less, and a few harmonics not at all where
    the cycle has no more. All are circular, and all are tried.
    """
    counts = np.bincount(slots, minlength=len(mean))
    best, least = mean, np.inf
    spectrum = np.fft.rfft(mean)
    for response, own in _filters(len(mean)):
        smooth = np.maximum(np.fft.irfft(spectrum * response, len(mean)), 0.0)
        miss = (seen - smooth[slots]) / np.maximum(1 - own / counts[slots], 1e-3)
        error = float(np.mean(miss**2))
        if error < least:
            best, least = smooth, error
    return best


@functools.cache
def _filters(period: int) -> tuple[tuple[Floats, float], ...]:
    """Every way to smooth a cycle: its response by frequency, and a slot's weight in its own."""
    found: list[tuple[Floats, float]] = []
    for window in _windows(period):
        half = len(window) // 2
        around = np.zeros(period)
        np.add.at(around, np.arange(-half, half + 1) % period, window)
        found.append((np.fft.rfft(around).real, float(window[half])))
    for most in (1, 2, 3, 4, 6, 8):
        if 2 * most < period // 2:
            response = (np.arange(period // 2 + 1) <= most).astype(float)
            found.append((response, (2 * most + 1) / period))
    return tuple(found)


def _windows(period: int) -> Iterator[Floats]:
    for width in (1, 3, 5, 9, 13):
        if width <= period:
            shape = np.hanning(width + 2)[1:-1]
            yield shape / shape.sum()
    for half in range(3, 9):
        if 2 * half + 1 <= period:
            at = np.arange(-half, half + 1)
            scale = (2 * half + 3) * (2 * half + 1) * (2 * half - 1)
            yield 3 * (3 * half**2 + 3 * half - 1 - 5 * at**2) / scale


def _variance(seen: Floats, fitted: Floats) -> tuple[float, float]:
    """Fit variance = scale * mean ** power with the power between 0 and 2."""
    square = (seen - fitted) ** 2
    floor = max(float(fitted.mean()) * 1e-4, 1e-6) ** 2
    order = np.argsort(fitted)
    groups = np.array_split(order, 6)
    means = np.array([max(float(fitted[g].mean()), 1e-9) for g in groups])
    spread = np.array([max(float(square[g].mean()), floor) for g in groups])
    power = 0.0
    if means.max() > 1.2 * means.min():
        power = float(np.clip(np.polyfit(np.log(means), np.log(spread), 1)[0], 0.0, 2.0))
    ratio = np.maximum(square, 0) / np.maximum(fitted, 1e-9) ** power
    return max(float(ratio.mean()), floor / max(float(fitted.mean()), 1e-9) ** power), power
