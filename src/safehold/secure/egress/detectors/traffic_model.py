"""The shipped traffic model and the shipped thieves, in bytes per bin.

The model: a daily and weekly cycle with independent gamma noise of 35 % (coefficient of variation)
per hour. Real traffic is correlated from hour to hour, which costs a volume detector time;
`phi` adds that, and the simulator reports both.
"""

from enum import StrEnum

import msgspec
import numpy as np
from numpy.random import Generator

from safehold.secure.egress.detectors.baseline import DAY_S, Floats

HOUR_S = 3_600


class Traffic(msgspec.Struct, frozen=True):
    """A seasonal traffic model.

    `level` bytes an hour on average, cycle `1 + swing * sin`, weekends at `weekend` of weekdays,
    noise with coefficient of variation `cv` an hour and lag-1 correlation `phi` an hour.
    """

    level: float
    swing: float = 0.5
    weekend: float = 0.75
    cv: float = 0.35
    phi: float = 0.0

    def mean(self, bins: int, bin_s: int) -> Floats:
        """The expected bytes of consecutive bins from a Monday midnight."""
        at = (np.arange(bins) + 0.5) * bin_s
        shape = 1 + self.swing * np.sin(2 * np.pi * (at / DAY_S - 0.3))
        weekend = (at // DAY_S) % 7 >= 5
        shape = np.where(weekend, shape * self.weekend, shape)
        norm = (5 + 2 * self.weekend) / 7
        mean: Floats = shape / norm * self.level * bin_s / HOUR_S
        return mean

    def draw(self, rng: Generator, bins: int, bin_s: int, runs: int = 1) -> Floats:
        """Draw `runs` series of consecutive bins.

        Noise is drawn an hour at a time, so bins shorter than that are correlated inside it.
        """
        per_hour = max(1, HOUR_S // bin_s)
        hours = -(-bins // per_hour) if bin_s <= HOUR_S else bins
        normal = rng.standard_normal((runs, hours))
        if self.phi:
            # Hours first: each step then reads and writes what lies together.
            flow = np.ascontiguousarray(normal.T)
            flow[1:] *= np.sqrt(1 - self.phi**2)
            for hour in range(1, hours):
                flow[hour] += self.phi * flow[hour - 1]
            noise = _gamma_of(np.ascontiguousarray(flow.T), self.cv)
        else:
            shape = 1 / self.cv**2
            noise = rng.gamma(shape, 1 / shape, (runs, hours))
        series: Floats = np.repeat(noise, per_hour, axis=1)[:, :bins] * self.mean(bins, bin_s)
        return series


def _gamma_of(normal: Floats, cv: float) -> Floats:
    """Turn standard normals into gamma noise of mean 1 (Wilson and Hilferty's cube)."""
    shape = 1 / cv**2
    cube = (1 - 1 / (9 * shape) + normal / np.sqrt(9 * shape)) ** 3
    noise: Floats = np.maximum(cube, 1e-6)
    return noise


class Thief(StrEnum):
    """How the simulated thief moves bytes."""

    BULK = "bulk"
    DRIP = "drip"
    DESTINATIONS = "many destinations"
    ACCOUNTS = "many accounts"
    BURSTS = "bursts under the limit"
    NIGHT = "night only"
    ADAPTIVE = "inside the noise"
    MIMICRY = "mimicry"

    @property
    def signed(self) -> bool:
        """Whether the thief owns a sender, so that its bytes come with valid rows."""
        return self in {Thief.MIMICRY, Thief.ACCOUNTS}


def wish(
    thief: Thief, rate: float, traffic: Traffic, *, bins: int, bin_s: int, rng: Generator
) -> Floats:
    """What a thief would send in each bin if nothing stopped it, at `rate` bytes an hour."""
    each = np.full(bins, rate * bin_s / HOUR_S)
    match thief:
        case Thief.BULK:
            return each
        case Thief.BURSTS:
            on = rng.random(bins) < 0.1
            return np.where(on, each * 10, 0.0)
        case Thief.NIGHT:
            hour = (np.arange(bins) * bin_s % DAY_S) / HOUR_S
            return np.where(hour < 6, each * 4, 0.0)
        case Thief.DRIP | Thief.DESTINATIONS | Thief.ACCOUNTS | Thief.ADAPTIVE:
            return each
        case Thief.MIMICRY:
            shape = traffic.mean(bins, bin_s)
            alike: Floats = each * shape / shape.mean()
            return alike
