"""Rates with exact one-sided bounds.

Every rate that Safehold prints carries its n and an exact (Clopper-Pearson) one-sided 95% bound:
Clopper and Pearson, Biometrika 26 (1934) 404-413.
"""

import math

import msgspec

_EXACT = 1e-12
"""Far below any printed digit."""

CONFIDENCE = 0.95


_NEGLIGIBLE = 1e-17


def _binomial_tail(k: int, n: int, p: float) -> float:
    """Return P(X <= k) for X ~ Binomial(n, p).

    Summed from k downwards, each term from the one above it, until the rest is below a double's
    last digit: the work grows with the standard deviation, not with n.
    """
    if p <= 0.0:
        return 1.0
    if p >= 1.0:
        return 1.0 if k >= n else 0.0
    lead = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    lead += k * math.log(p) + (n - k) * math.log1p(-p)
    odds, term, total = (1 - p) / p, 1.0, 1.0
    for i in range(k, 0, -1):
        step = i / (n - i + 1) * odds
        term *= step
        total += term
        if step < 1 and term < _NEGLIGIBLE * total:
            break
    log_total = lead + math.log(total)
    return 1.0 if log_total >= 0 else math.exp(log_total)


def upper_bound(events: int, n: int, confidence: float = CONFIDENCE) -> float:
    """Return the exact one-sided upper bound of a rate seen as `events` of `n`.

    With n = 0 nothing is known and the bound is 1.
    """
    _check(events, n)
    if events == n:
        return 1.0
    low, high = events / n, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if _binomial_tail(events, n, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
        if high - low < _EXACT:
            break
    return high


def lower_bound(events: int, n: int, confidence: float = CONFIDENCE) -> float:
    """Return the exact one-sided lower bound of a rate seen as `events` of `n`."""
    _check(events, n)
    return 1.0 - upper_bound(n - events, n, confidence) if n else 0.0


def _check(events: int, n: int) -> None:
    if not 0 <= events <= n:
        raise ValueError(f"a rate needs 0 <= events <= n, got {events} of {n}")


class Rate(msgspec.Struct, frozen=True):
    """A measured rate: `events` of `n`, printed with the bound on the unfavourable side."""

    events: int
    n: int

    @property
    def value(self) -> float:
        """The rate itself; NaN when nothing was seen."""
        return self.events / self.n if self.n else math.nan

    @property
    def upper(self) -> float:
        """The exact one-sided 95% upper bound."""
        return upper_bound(self.events, self.n)

    @property
    def lower(self) -> float:
        """The exact one-sided 95% lower bound."""
        return lower_bound(self.events, self.n)

    def at_most(self) -> str:
        """Say the rate where small is good."""
        if not self.n:
            return "undefined (n=0)"
        return f"{self.value:.3%} (n={self.n}, 95% upper bound {self.upper:.3%})"

    def at_least(self) -> str:
        """Say the rate where large is good."""
        if not self.n:
            return "undefined (n=0)"
        return f"{self.value:.2%} (n={self.n}, 95% lower bound {self.lower:.2%})"
