"""The next smaller budget: from observed use, with the risk of a false stop.

A proposal is never below the most that any interval of a window's length carried. Above that it is
the point that a month exceeds with the wanted risk, where the tail of the windows' sums is taken as
exponential. Beside it stands a bound without any assumption: of n windows none exceeded the most
that was seen, so at most 1 - 0.05 ** (1 / n) of windows do (95 %).
"""

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from safehold.errors import EgressError
from safehold.secure.egress.declare.register import Flow
from safehold.secure.egress.detectors.baseline import Floats
from safehold.secure.egress.interface import Window

_LEAST_WINDOWS = 8
_TAIL = 0.9
_ROUND = 2


class Proposal(msgspec.Struct, frozen=True):
    """One window's next budget.

    `most` is the most that any interval carried, `windows` how many apart ones were seen, `risk`
    that of a false stop in a month, `bound` what share of windows exceeds `most` at most (95 %).
    """

    flow: str
    window: Window
    now: int
    proposed: int
    most: int
    windows: int
    risk: float
    bound: float


def tighten(
    flow: Flow, times: Sequence[float], passed: Sequence[int], *, risk: float = 0.01
) -> tuple[Proposal, ...]:
    """Propose budgets for one flow from its odometer at increasing times, in seconds.

    A window that was seen fewer than eight times follows the next shorter one, which bounds it: so
    many short windows as it holds. No proposal is above the budget of now.

    Raises:
        EgressError: The risk is not between 0 and 1, or there are fewer than two readings.
    """
    if not 0 < risk < 1:
        raise EgressError("expected a risk between 0 and 1")
    if len(times) <= 1:
        raise EgressError("expected at least two readings of the odometer")
    at, sent = np.asarray(times, dtype=float), np.asarray(passed, dtype=float)
    at = at - at[0]
    found: list[Proposal] = []
    for window in Window:
        now = flow.budget[window]
        sums = _apart(at, sent, window.seconds)
        if len(sums) >= _LEAST_WINDOWS:
            most = float(max(_most(at, sent, window.seconds), sums.max()))
            wanted, chance = _level(sums, most, risk, Window.MONTH.seconds / window.seconds)
            bound = 1 - 0.05 ** (1 / len(sums))
        elif found:
            shorter = found[-1]
            many = math.ceil(window.seconds / shorter.window.seconds)
            most, chance, bound = 0.0, 0.0, 1.0
            wanted = float(shorter.proposed * many)
        else:
            most, chance, bound, wanted = 0.0, 0.0, 1.0, float(now)
        size = min(now, max(_rounded(wanted), found[-1].proposed if found else 1))
        found.append(Proposal(flow.id, window, now, size, int(most), len(sums), chance, bound))
    return tuple(found)


def tightened(flow: Flow, proposals: Sequence[Proposal]) -> Flow:
    """The row with the proposed budgets."""
    budget: Mapping[Window, int] = {one.window: one.proposed for one in proposals}
    return msgspec.structs.replace(flow, budget=budget)


def _apart(at: Floats, sent: Floats, seconds: float) -> Floats:
    """Sums of windows that do not overlap."""
    edges = np.arange(0.0, at[-1] + 1e-6, seconds)
    sums: Floats = np.diff(np.interp(edges, at, sent))
    return sums


def _most(at: Floats, sent: Floats, seconds: float) -> float:
    """The most that an interval of this length, ending at a reading, carried."""
    inside = at >= seconds
    if not inside.any():
        return 0.0
    return float((sent[inside] - np.interp(at[inside] - seconds, at, sent)).max())


def _level(sums: Floats, most: float, risk: float, many: float) -> tuple[float, float]:
    """The level that a month of `many` windows exceeds with `risk`, and the risk at the level."""
    high = float(np.quantile(sums, _TAIL))
    above = sums[sums > high] - high
    slope = float(above.mean()) if len(above) else 0.0
    if slope <= 0:
        return most, risk
    wanted = high + slope * math.log(many * (1 - _TAIL) / -math.log1p(-risk))
    level = max(most, wanted)
    rate = many * (1 - _TAIL) * math.exp(-(level - high) / slope)
    return level, 1 - math.exp(-rate)


def _rounded(size: float) -> int:
    """Up to two digits, as a person would write it."""
    if size <= 1:
        return 1
    step: int = 10 ** max(0, math.floor(math.log10(size)) - _ROUND + 1)
    return math.ceil(size / step) * step
