"""Shape detectors: producer/consumer ratio, beaconing and DNS tunnelling.

Each gives a score between -1 or 0 and 1; `limit_for` turns scores of honest traffic into the
threshold that alarms a wanted number of times a year.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from safehold.errors import EgressError

_LEAST_TIMES = 5
"""Four intervals carry no shape."""
_LEAST_SCORES = 30
"""A tail needs a few values."""

_QUARTER, _THREE_QUARTERS = 25, 75


def producer_consumer_ratio(sent: int, received: int) -> float:
    """(sent - received) / (sent + received) of payload bytes: 1 only pushes, -1 only pulls.

    Bullard and Gerth, FloCon 2014: browsing is near -0.5, mail near 0.4.
    """
    if sent < 0 or received < 0:
        raise EgressError("bytes do not run backwards")
    return (sent - received) / (sent + received) if sent + received else 0.0


def beacon_score(times: Sequence[float], sizes: Sequence[int]) -> float:
    """How much contacts look like a clock: 0 not at all, 1 exactly.

    The mean of three scores, each for intervals and for sizes: symmetry (Bowley's skewness),
    concentration (the median absolute deviation against the median), and for intervals how evenly
    contacts fill the observed span. After the published description of RITA's beacon score.
    """
    if len(times) != len(sizes):
        raise EgressError("expected a size for every time")
    if len(times) < _LEAST_TIMES:
        return 0.0
    gaps = np.diff(np.sort(np.asarray(times, dtype=float)))
    parts = [*_regular(gaps), *_regular(np.asarray(sizes, dtype=float)), _even(times)]
    return float(np.mean(parts))


def _regular(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, float]:
    low, middle, high = np.percentile(values, [_QUARTER, 50, _THREE_QUARTERS])
    spread = high - low
    skew = 0.0 if spread <= 0 else abs((high + low - 2 * middle) / spread)
    deviation = float(np.median(np.abs(values - middle)))
    tight = 1.0 if middle <= 0 and deviation == 0 else max(0.0, 1 - deviation / max(middle, 1e-9))
    return 1 - float(skew), tight


def _even(times: Sequence[float]) -> float:
    counts, _ = np.histogram(np.asarray(times, dtype=float), bins=min(24, len(times) // 2))
    mean = float(counts.mean())
    return max(0.0, 1 - float(counts.std()) / mean) if mean else 0.0


class NameStats(msgspec.Struct, frozen=True):
    """What the questions below one registered domain carried in one window."""

    domain: str
    questions: int
    unique: int
    hidden_bytes: int
    longest: int
    bits: float

    @property
    def score(self) -> float:
        """The bytes that names below the domain could carry: unique labels times their entropy.

        A tunnel needs many different names; a popular site asks for few of them again and again.
        """
        return self.hidden_bytes * self.bits / 8


def name_stats(
    names: Iterable[str], suffixes: frozenset[str] = frozenset()
) -> dict[str, NameStats]:
    """Group questions by registered domain and measure what their names could carry.

    `suffixes` are public suffixes of two labels (`co.uk`); one label is the rule otherwise.
    Names that are malformed are measured too, under their last two labels.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        labels = name.rstrip(".").lower().split(".")
        keep = 3 if ".".join(labels[-2:]) in suffixes else 2
        groups[".".join(labels[-keep:])].append(".".join(labels[:-keep]))
    return {domain: _measure(domain, below) for domain, below in groups.items()}


def _measure(domain: str, below: Sequence[str]) -> NameStats:
    unique = sorted({part for part in below if part})
    text = "".join(unique).replace(".", "")
    return NameStats(
        domain=domain,
        questions=len(below),
        unique=len(unique),
        hidden_bytes=len(text),
        longest=max((len(label) for part in unique for label in part.split(".")), default=0),
        bits=_entropy(text),
    )


def _entropy(text: str) -> float:
    """Shannon entropy in bits per character."""
    counts = Counter(text)
    total = len(text)
    return -sum(n / total * math.log2(n / total) for n in counts.values()) if total else 0.0


def limit_for(honest: Sequence[float], *, windows_per_year: float, alarms_per_year: float) -> float:
    """The score that honest traffic passes `alarms_per_year` times in `windows_per_year` windows.

    Beyond the data the tail is taken as exponential, with the mean excess over the 90 % point.

    Raises:
        EgressError: Fewer than 30 honest windows.
    """
    scores = np.sort(np.asarray(honest, dtype=float))
    if len(scores) < _LEAST_SCORES:
        raise EgressError("expected at least 30 honest windows to set a limit")
    wanted = alarms_per_year / windows_per_year
    high = float(np.quantile(scores, 0.9))
    above = scores[scores > high] - high
    slope = max(float(above.mean()) if len(above) else 0.0, 1e-9)
    return max(float(scores[-1]), high + slope * math.log(0.1 / min(wanted, 0.1)))


def suspicious_names(stats: Mapping[str, NameStats], limit: float) -> tuple[NameStats, ...]:
    """The domains over the limit, worst first."""
    found = (item for item in stats.values() if item.score > limit)
    return tuple(sorted(found, key=lambda item: -item.score))
