"""What stays unexplained when a real gateway signs for all it sends: the residual's noise and bias.

A gateway in a network namespace answers clients outside; the kernel counts the flow's bytes, the
gateway's rows explain them. The overhead is learned on the first half of the intervals and judged
on the second, for whole replies, streams and both; and across mixes, which is where an overhead
goes wrong. Needs root.
"""

import contextlib
import os
import random
import tempfile
from pathlib import Path

import msgspec
import numpy as np
from bench.tables import Table

from safehold.secure.egress.declare.plan import OVERHEAD_SLACK
from safehold.secure.egress.explain.accounting import Overhead, learn_overhead
from safehold.secure.egress.kernel.netns import pair
from safehold.testing.egress import World
from safehold.testing.egress_gateway import ASK, KEY, PORT, GovernedGateway, serving

MIXES = ("whole replies", "streams", "both")
DEFAULT_NOISE = 0.003
"""What `safehold egress simulate` assumes for ten minutes."""


class Interval(msgspec.Struct, frozen=True):
    """Kernel bytes, explained bytes and items of one interval; `headers` are in the first."""

    kernel: float
    headers: float
    explained: float
    items: float


def watch(gateway: GovernedGateway, mix: str, count: int, chooser: random.Random) -> list[Interval]:
    """Let clients ask, interval by interval."""
    found = []
    before = gateway.counted()
    for number in range(count):
        asked = 0
        for _ in range(2):
            each = chooser.randint(2, 12)
            stream = {"whole replies": 0, "streams": 1}.get(mix, chooser.randint(0, 1))
            gateway.outside(ASK, str(PORT), KEY, str(stream), str(each))
            asked += each + 1
        rows = gateway.rows(asked)
        after = gateway.counted()
        if number:  # The first interval has connections and compilers warm up.
            found.append(
                Interval(
                    after[0] - before[0],
                    after[1] - before[1],
                    sum(row.size for row in rows),
                    sum(row.items for row in rows),
                )
            )
        before = after
    return found


def bare(seen: list[Interval]) -> list[Interval]:
    """The same intervals without the headers that the kernel counted."""
    return [msgspec.structs.replace(i, kernel=i.kernel - i.headers) for i in seen]


def learn(seen: list[Interval]) -> Overhead:
    """Learn the overhead of intervals."""
    return learn_overhead(
        [i.kernel for i in seen], [i.explained for i in seen], [i.items for i in seen]
    )


def errors(seen: list[Interval], overhead: Overhead) -> np.ndarray:
    """What each interval leaves unexplained, as a share of its kernel bytes."""
    return np.array([(i.kernel - overhead.expected(i.explained, i.items)) / i.kernel for i in seen])


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - the runner's call
    """Measure every mix, then every overhead on every mix."""
    count = 25 if quick else 61
    chooser = random.Random(7)  # noqa: S311 - traffic, not a secret
    seen: dict[str, list[Interval]] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        pair(f"shr{os.getpid()}") as both,
        contextlib.closing(World(both, Path(name))) as world,
        serving(world, Path(name)) as gateway,
    ):
        for mix in MIXES:
            seen[mix] = watch(gateway, mix, count, chooser)
    without = {mix: bare(intervals) for mix, intervals in seen.items()}
    learned, counted = "headers learned", "headers counted by the kernel"
    return [
        _within(without, counted),
        _across(without, counted),
        _within(seen, learned),
        _across(seen, learned),
    ]


def _within(seen: dict[str, list[Interval]], how: str) -> Table:
    rows = []
    for mix, intervals in seen.items():
        half = len(intervals) // 2
        overhead = learn(intervals[:half])
        left = errors(intervals[half:], overhead)
        size = float(np.mean([i.kernel for i in intervals]))
        # Independent intervals average out: ten minutes of 220 GB a day hold this many of them.
        many = 220e9 / 144 / size
        rows.append(
            (
                mix,
                str(len(left)),
                f"{size / 1e3:.0f} kB",
                f"{overhead.per_byte:.2%}",
                f"{overhead.per_item:.0f} B",
                f"{left.std(ddof=1):.2%}",
                f"{left.mean():+.3%}",
                f"{np.abs(left).max():.2%}",
                f"{left.std(ddof=1) / np.sqrt(many):.4%}",
            )
        )
    return Table(
        title=f"Unexplained share of an interval, learned on one half, judged on the other: {how}",
        columns=(
            "mix",
            "intervals judged",
            "kernel bytes each",
            "overhead per byte",
            "per reply",
            "noise (SD)",
            "bias (mean)",
            "worst",
            "noise of 10 min at 220 GB a day",
        ),
        rows=tuple(rows),
        note=(
            f"The last column takes intervals as independent; the simulator assumes "
            f"{DEFAULT_NOISE:.1%} noise and {OVERHEAD_SLACK:.1%} error of the overhead."
        ),
    )


def _across(seen: dict[str, list[Interval]], how: str) -> Table:
    rows = []
    for learned, intervals in seen.items():
        overhead = learn(intervals)
        cells = [f"{errors(other, overhead).mean():+.3%}" for other in seen.values()]
        rows.append((f"learned on {learned}", *cells))
    return Table(
        title=f"Bias when the mix is another than the one that was learned on: {how}",
        columns=("overhead", *(f"judged on {mix}" for mix in seen)),
        rows=tuple(rows),
        note="Above 0: honest bytes look stolen. Below 0: a thief can hide this share.",
    )
