"""How fast a simulated theft was found."""

import msgspec
import numpy as np

from safehold.stats import Rate


class Delay(msgspec.Struct, frozen=True):
    """How fast a constant theft was found: hours from its start to the alarm, over many runs.

    `hosts` is how many baselines were fitted; runs and quiet years are shared out among them.
    """

    detector: str
    share: float
    hours: tuple[float, ...]
    limit_hours: float
    lost_bytes: float
    no_thief_alarm: Rate
    hosts: int = 1

    @property
    def median(self) -> float:
        """The median delay in hours; infinite when most runs ended without an alarm."""
        return float(np.median(self.hours))

    @property
    def mean(self) -> float:
        """The mean delay in hours."""
        return float(np.mean(self.hours))

    @property
    def in_time(self) -> Rate:
        """How many runs alarmed within the limit."""
        return Rate(sum(h <= self.limit_hours for h in self.hours), len(self.hours))
