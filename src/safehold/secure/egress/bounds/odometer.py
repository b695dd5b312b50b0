"""What passed, per flow, over every sliding window: pure arithmetic on kernel counters.

Time here is the egress clock: seconds that this machine was up under enforcement. It never runs
backwards, setting the wall clock does not move it, and it stands still while the machine is off;
so no clock change ever returns budget.
"""

from collections.abc import Mapping

import msgspec

from safehold.secure.egress.interface import Window

_SPACING = ((7_200.0, 60.0), (172_800.0, 600.0), (float("inf"), 3_600.0))


class OdometerSample(msgspec.Struct, frozen=True, array_like=True):
    """The odometer at one moment of the egress clock."""

    at: float
    passed: int


class FlowOdometer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One flow's odometer: bytes passed since the beginning, and its past.

    `raw` is the kernel counter at the last reading.
    """

    passed: int = 0
    raw: int = 0
    samples: tuple[OdometerSample, ...] = ()

    def within(self, seconds: float, now: float) -> int:
        """Bytes passed in the last `seconds`; never less than the truth.

        The base is the newest sample at least that old, so thinning errs to the safe side.
        """
        base = 0
        for sample in self.samples:
            if sample.at > now - seconds:
                break
            base = sample.passed
        return self.passed - base

    def remaining(self, budget: Mapping[Window, int], now: float) -> dict[Window, int]:
        """What each window still lets pass."""
        return {
            window: max(0, limit - self.within(window.seconds, now))
            for window, limit in budget.items()
        }

    def advance(self, raw: int, extra: int, now: float) -> "FlowOdometer":
        """Return the account after the kernel counter reached `raw`; `extra` bytes are charged.

        A counter that went backwards was reset: everything it shows is new.
        """
        delta = raw - self.raw if raw >= self.raw else raw
        passed = self.passed + delta + extra
        samples = _thin((*self.samples, OdometerSample(now, passed)), now)
        return FlowOdometer(passed=passed, raw=raw, samples=samples)


def _thin(samples: tuple[OdometerSample, ...], now: float) -> tuple[OdometerSample, ...]:
    """Keep few samples: one a minute for two hours, 10 minutes for two days, then one an hour."""
    oldest = now - Window.MONTH.seconds
    kept: list[OdometerSample] = []
    for index, sample in enumerate(samples):
        following = samples[index + 1].at if index + 1 < len(samples) else None
        if following is not None and following <= oldest:
            continue
        if kept and following is not None and sample.at - kept[-1].at < _spacing(now - sample.at):
            continue
        kept.append(sample)
    return tuple(kept)


def _spacing(age: float) -> float:
    return next(step for limit, step in _SPACING if age <= limit)
