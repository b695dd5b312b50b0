"""What the account statistics do to honest accounts with heavy tails, and to a search."""

import math
from collections.abc import Callable, Iterable

import msgspec
import numpy as np

from safehold.detect.monitoring.accounts import AccountState, Caps
from safehold.errors import DataError
from safehold.stats import upper_bound

_BLOCK_RATES = (0.1, 0.2, 0.4, 0.7)
_WALK_RATES = (0.03, 0.1, 0.3, 0.6, 0.9)
_RUNS = 200
_LONGEST = 5_000
_LEAST_ACCOUNTS, _LEAST_QUERIES = 30, 50
_OWN = 660
"""Queries of one account where 660,000 are spread over 1,000 (docs/detection.md)."""

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """How honest accounts differ: draws, for each of a number of them, three rates.

    How often it is stopped; how often a stopped text resembles an earlier one; how often its last
    day is hot as one text.
    """

    name: str
    draw: Callable[[np.random.Generator, int], tuple[Floats, Floats, Floats]]


def _modelled(name: str, ordinary: float, a: float, b: float) -> Tail:
    """Return a model: a share of ordinary accounts, and the Beta law of the others' block rates.

    Days of accounts that ask look-alikes pass a line 0.3 % of the time on average, of ordinary
    ones 0.1 %.
    """

    def draw(chance: np.random.Generator, count: int) -> tuple[Floats, Floats, Floats]:
        plain = chance.beta(0.3, 300, count), chance.beta(0.3, 300, count)
        stopped = np.where(chance.random(count) < ordinary, plain[0], chance.beta(a, b, count))
        walked = stopped * chance.beta(1, 3, count)
        alike = chance.beta(1.5, 500, count)
        return stopped, walked, np.where(chance.random(count) < ordinary, plain[1], alike)

    return Tail(name=name, draw=draw)


TAILS: dict[str, Tail] = {
    one.name: one
    for one in (
        _modelled("light", 0.99, 1.2, 60.0),
        _modelled("medium", 0.97, 1.2, 25.0),
        _modelled("heavy", 0.95, 1.5, 18.0),
    )
}


def own_tail(states: Iterable[AccountState]) -> Tail:
    """Return the tail of these accounts: each drawn one is one of them, with its counts' doubt.

    Raises:
        DataError: fewer than 30 accounts have 50 exchanges or more.
    """
    known = [one for one in states if one.queries >= _LEAST_QUERIES]
    if len(known) < _LEAST_ACCOUNTS:
        raise DataError(
            f"expected {_LEAST_ACCOUNTS} accounts with {_LEAST_QUERIES} exchanges or more, came "
            f"{len(known)}: follow more traffic (safehold monitor accounts), or take another --tail"
        )
    counts = np.array([(o.blocked, o.walked, o.split, o.queries, o.windows) for o in known], float)

    def draw(chance: np.random.Generator, count: int) -> tuple[Floats, Floats, Floats]:
        stopped, walked, split, queries, windows = counts[chance.integers(0, len(known), count)].T

        def rate(events: Floats, of: Floats) -> Floats:
            # Jeffreys' law of a rate after so many events.
            return np.where(of > 0, chance.beta(events + 0.5, np.maximum(of - events, 0) + 0.5), 0)

        return rate(stopped, queries), rate(walked, queries), rate(split, windows)

    return Tail(name="own", draw=draw)


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


def simulate(*, tail: Tail, accounts: int, walk_share: float, caps: Caps, seed: int) -> Simulated:
    """Play honest accounts of one tail and 200 searches with this share of walking queries."""
    chance = np.random.default_rng(seed)
    lengths = chance.lognormal(5.0, 1.5, accounts).astype(int).clip(1, 20_000)
    rates, walks, over = tail.draw(chance, accounts)
    alarmed = 0
    for length, rate, walk, day in zip(lengths, rates, walks, over, strict=True):
        draws = chance.random(length)
        block = _crossing(draws < rate, caps.block, _BLOCK_RATES, caps.alpha)
        walked = draws < walk
        stops = int((draws < rate).sum())
        days = _crossing(chance.random(length) < day, caps.workflow, _WALK_RATES, caps.alpha)
        chain = int(chance.geometric(0.35, stops).max()) if stops else 0
        alarmed += bool(
            block
            or days
            or _crossing(walked, caps.walk, _WALK_RATES, caps.alpha)
            or chain >= caps.lineage
        )
    needed = []
    for _ in range(_RUNS):
        walked = chance.random(_LONGEST) < walk_share
        rate_at = _crossing(walked, caps.walk, _WALK_RATES, caps.alpha) or math.inf
        places = np.flatnonzero(walked)
        chain_at = places[caps.lineage - 1] + 1 if len(places) >= caps.lineage else math.inf
        needed.append(min(rate_at, float(chain_at)))
    return Simulated(
        tail=tail.name,
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
