"""Learn the overhead of every reconciled flow from a time that somebody vouches for.

The watch's timeline says what the kernel counted, the senders' rows what they explain. Both are
cut into intervals; the overhead is learned on the first half of them and judged on the second, so
that its noise and its bias are measured, not assumed. Where the timeline has the headers that the
kernel counted, they are taken off first.
"""

import bisect
import math
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from safehold.errors import EgressError
from safehold.secure.egress.explain.accounting import Overhead, learn_overhead
from safehold.secure.egress.explain.ledger import ExplainedRow
from safehold.secure.egress.watch.timeline_rows import TimelineRow


class Learned(msgspec.Struct, frozen=True):
    """A flow's overhead, learned on all intervals, and how one of the first half did on the rest.

    `noise` is the standard deviation of an interval's unexplained share and `bias` its mean, with
    `error` the standard error of that mean; `judged` intervals of `interval_s` seconds, `size`
    kernel bytes each on average.
    """

    flow: str
    overhead: Overhead
    judged: int
    interval_s: float
    size: float
    noise: float
    bias: float
    error: float
    worst: float


def looks(timeline: Iterable[TimelineRow], interval_s: float) -> list[TimelineRow]:
    """Return the looks at which intervals begin: there the kernel's count is exact."""
    found: list[TimelineRow] = []
    for look in timeline:
        if not found or look.time - found[-1].time >= interval_s:
            found.append(look)
    return found


def learn(
    timeline: Sequence[TimelineRow],
    rows: Sequence[ExplainedRow],
    flow: str,
    interval_s: float = 600.0,
) -> Learned:
    """Learn one flow's overhead.

    A row counts in the interval that it ends in; intervals without any are left out. What a row
    tells a second late is an error of the edges: the longer the interval, the smaller.

    Raises:
        EgressError: Fewer than 24 intervals had traffic, or the overhead is outside its bounds.
    """
    if not timeline:
        raise EgressError("an empty timeline teaches nothing")
    found = looks(timeline, interval_s)
    begins = [look.time for look in found]
    passed = [look.passed.get(flow, 0) for look in found]
    counted = all(flow in look.headers for look in found)
    if counted:
        passed = [size - look.headers[flow] for size, look in zip(passed, found, strict=True)]
    kernel = np.maximum(0.0, np.diff(np.array(passed, dtype=float)))
    explained, items = np.zeros(len(kernel)), np.zeros(len(kernel))
    for row in rows:
        at = bisect.bisect_right(begins, row.end) - 1
        if row.flow == flow and 0 <= at < len(kernel):
            explained[at] += row.size
            items[at] += row.items
    whole = explained > 0
    kernel, explained, items = kernel[whole], explained[whole], items[whole]
    half = len(kernel) // 2
    first = learn_overhead(kernel[:half].tolist(), explained[:half].tolist(), items[:half].tolist())
    expected = explained * (1 + first.per_byte) + items * first.per_item
    left = ((kernel - expected) / np.maximum(kernel, 1.0))[half:]
    noise = float(left.std(ddof=1))
    return Learned(
        flow=flow,
        overhead=msgspec.structs.replace(
            learn_overhead(kernel.tolist(), explained.tolist(), items.tolist()), counted=counted
        ),
        judged=len(left),
        interval_s=interval_s,
        size=float(kernel.mean()),
        noise=noise,
        bias=float(left.mean()),
        error=noise / math.sqrt(len(left)),
        worst=float(np.abs(left).max()),
    )


def as_toml(found: Sequence[Learned]) -> str:
    """Return the overheads as tables of a senders file."""
    return "\n".join(
        f"[overhead.{item.flow}]\n"
        f"per_byte = {item.overhead.per_byte:.6f}\n"
        f"per_item = {item.overhead.per_item:.1f}\n"
        f"sigma = {item.noise:.6f}\n"
        f"counted = {str(item.overhead.counted).lower()}\n"
        for item in found
    )


def words(item: Learned, slack: float) -> str:
    """Say what was measured, and whether the plan's `overhead_slack` covers the bias."""
    covered = abs(item.bias) + 1.645 * item.error <= slack
    verdict = "within" if covered else "NOT within"
    return (
        f"{item.flow}: {item.judged} intervals of {item.interval_s:g} s judged: noise "
        f"{item.noise:.3%}, bias {item.bias:+.3%} (standard error {item.error:.3%}), worst "
        f"{item.worst:.3%}; {verdict} the plan's overhead_slack of {slack:.3%}"
    )
