"""What the account statistics do to honest accounts with heavy tails, and to a search."""

import math

import msgspec
import numpy as np

from safehold.detect.monitoring.accounts import Caps
from safehold.stats import upper_bound

_BLOCK_RATES = (0.1, 0.2, 0.4, 0.7)
_WALK_RATES = (0.03, 0.1, 0.3, 0.6, 0.9)
_RUNS = 200
_LONGEST = 5_000
_OWN = 660
"""Queries of one account where 660,000 are spread over 1,000 (docs/detection.md)."""

TAILS: dict[str, tuple[float, float, float]] = {
    "light": (0.99, 1.2, 60.0),
    "medium": (0.97, 1.2, 25.0),
    "heavy": (0.95, 1.5, 18.0),
}
"""Share of ordinary accounts, and the Beta law of the others' block rates."""


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """Honest accounts alarmed, with the exact bound, and a search's queries until its label."""

    tail: str
    accounts: int
    queries: int
    alarmed: int
    alarmed_upper: float
    walk_share: float
    found_of: int
    found: int
    median: float
    q95: float
    within_660: int


def simulate(*, tail: str, accounts: int, walk_share: float, caps: Caps, seed: int) -> Simulated:
    """Play honest accounts of one tail and 200 searches with this share of walking queries."""
    chance = np.random.default_rng(seed)
    ordinary, a, b = TAILS[tail]
    lengths = chance.lognormal(5.0, 1.5, accounts).astype(int).clip(1, 20_000)
    rates = np.where(
        chance.random(accounts) < ordinary,
        chance.beta(0.3, 300, accounts),
        chance.beta(a, b, accounts),
    )
    walks = rates * chance.beta(1, 3, accounts)
    alarmed = 0
    for length, rate, walk in zip(lengths, rates, walks, strict=True):
        draws = chance.random(length)
        block = _crossing(draws < rate, caps.block, _BLOCK_RATES, caps.alpha)
        walked = draws < walk
        stops = int((draws < rate).sum())
        chain = int(chance.geometric(0.35, stops).max()) if stops else 0
        alarmed += bool(
            block or _crossing(walked, caps.walk, _WALK_RATES, caps.alpha) or chain >= caps.lineage
        )
    needed = []
    for _ in range(_RUNS):
        walked = chance.random(_LONGEST) < walk_share
        rate_at = _crossing(walked, caps.walk, _WALK_RATES, caps.alpha) or math.inf
        places = np.flatnonzero(walked)
        chain_at = places[caps.lineage - 1] + 1 if len(places) >= caps.lineage else math.inf
        needed.append(min(rate_at, float(chain_at)))
    return Simulated(
        tail=tail,
        accounts=accounts,
        queries=int(lengths.sum()),
        alarmed=alarmed,
        alarmed_upper=upper_bound(alarmed, accounts),
        walk_share=walk_share,
        found_of=_RUNS,
        found=sum(math.isfinite(one) for one in needed),
        median=float(np.median(needed)),
        within_660=sum(one <= _OWN for one in needed),
        q95=float(np.quantile(needed, 0.95, method="higher")),
    )


def _crossing(
    events: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    cap: float,
    rates: tuple[float, ...],
    alpha: float,
) -> int:
    """Return after how many queries the evidence first reaches 1/alpha; 0 when never."""
    k, n = np.cumsum(events), np.arange(1, len(events) + 1)
    logs = np.array(
        [
            k * math.log(rate / cap) + (n - k) * math.log((1 - rate) / (1 - cap))
            for rate in rates
            if rate > cap
        ]
    )
    top = logs.max(0)
    crossed = np.flatnonzero(top + np.log(np.exp(logs - top).mean(0)) >= -math.log(alpha))
    return int(crossed[0]) + 1 if len(crossed) else 0
