"""What is normal: a seasonal baseline with overdispersed noise, fitted once and then frozen.

Real traffic is overdispersed (variance = a * mean**b with a far above 1; Polunchenko,
Tartakovsky and Mukhopadhyay 2012), so Poisson limits would alarm all day. The baseline does not
keep learning by itself: a thief who starts slowly would teach it. Fitting it anew is a decision.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from safehold.errors import EgressError

Floats = NDArray[np.float64]

DAY_S = 86_400
WEEK_S = 7 * DAY_S
_MIN_BINS = 48
_MIN_CYCLES = 3
_WINSOR = 0.995


class Baseline(msgspec.Struct, frozen=True):
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
        """The standard deviation that goes with a mean."""
        return np.sqrt(self.scale * np.maximum(mean, 1e-9) ** self.power)

    def standardise(self, values: Floats, start: int = 0) -> Floats:
        """Return (value - mean) / sigma for consecutive bins from number `start`."""
        mean = self.expected(np.arange(start, start + len(values)))
        return (values - mean) / self.sigma(mean)


def fit(values: Sequence[float], bin_s: int) -> Baseline:
    """Fit a baseline to consecutive bins.

    A weekly cycle when three weeks are there, else a daily one when three days are, else none.
    Values are winsorised at the 99.5 % point so that one accident does not widen the limits.

    Raises:
        EgressError: Fewer than 48 bins, or values that are not finite and at least 0.
    """
    seen = np.asarray(values, dtype=float)
    if len(seen) < _MIN_BINS:
        raise EgressError(f"expected at least {_MIN_BINS} bins to fit a baseline, got {len(seen)}")
    if not np.isfinite(seen).all() or (seen < 0).any():
        raise EgressError("expected byte counts that are finite and at least 0")
    seen = np.minimum(seen, np.quantile(seen, _WINSOR))
    period = _period(len(seen), bin_s)
    slots = np.arange(len(seen)) % period
    counts = np.bincount(slots, minlength=period)
    mean = np.bincount(slots, weights=seen, minlength=period) / counts
    mean = _smooth(mean, seen, slots)
    fitted = mean[slots]
    scale, power = _variance(seen, fitted)
    sigma = np.sqrt(scale * np.maximum(fitted, 1e-9) ** power)
    z = (seen - fitted) / np.maximum(sigma, 1e-9)
    z = z / max(float(z.std()), 1e-9)
    around = z[1:] * z[:-1]
    return Baseline(
        bin_s=bin_s,
        mean=tuple(float(m) for m in mean),
        scale=scale,
        power=power,
        phi=float(np.clip(around.mean(), 0.0, 0.98)),
        trained=len(seen),
        residuals=tuple(float(value) for value in z),
    )


def _period(count: int, bin_s: int) -> int:
    for cycle in (WEEK_S, DAY_S):
        bins = max(1, cycle // bin_s)
        if count >= _MIN_CYCLES * bins:
            return bins
    return 1


def _smooth(mean: Floats, seen: Floats, slots: NDArray[np.int64]) -> Floats:
    """Pick the circular moving average that predicts best by leave-one-out."""
    if len(mean) == 1:
        return mean
    counts = np.bincount(slots, minlength=len(mean))
    best, least = mean, np.inf
    for width in (1, 3, 5, 9, 13):
        if width > len(mean):
            break
        shape = np.hanning(width + 2)[1:-1]
        shape = shape / shape.sum()
        padded = np.concatenate([mean[-width:], mean, mean[:width]])
        smooth = np.convolve(padded, shape, mode="same")[width:-width]
        own = shape[width // 2] / counts[slots]
        miss = (seen - smooth[slots]) / np.maximum(1 - own, 1e-3)
        error = float(np.mean(miss**2))
        if error < least:
            best, least = smooth, error
    return best


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
