"""Explained-bytes accounting: what the kernel saw less what the senders signed for.

residual = kernel bytes - (explained bytes * (1 + h) + items * g), with the overhead (h per byte
for headers, TLS records and acknowledgements; g per item for handshakes) learned once, from a
time that somebody vouches for, and then frozen: an overhead that kept learning could be taught to
hide a thief.

Headers need not be learned: the kernel counts a reconciled flow's packets, those with TCP
timestamps and those over IPv6, so their header bytes are known, not estimated.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from safehold.errors import EgressError
from safehold.secure.egress.explain.ledger import ExplainedRow
from safehold.secure.egress.interface import ExplainedRowError

MAX_OVERHEAD = 0.5
_MIN_INTERVALS = 12
_EDGES = 0.005
"""A row told a moment late moves bytes over an interval's edge: so far below 0 is still 0."""


class Overhead(msgspec.Struct, frozen=True):
    """Kernel bytes per explained byte (1 + `per_byte`) and per item (`per_item`).

    With `counted` the kernel's bytes are taken without the headers that its own packet counters
    account for: how a reply is cut into packets then no longer matters.
    """

    per_byte: float = 0.04
    per_item: float = 0.0
    sigma: float = 0.0
    """Relative standard deviation of what is left, per interval of the learning time."""
    counted: bool = False

    def expected(self, count: float, items: float) -> float:
        """Kernel bytes that explained ones should make."""
        return count * (1 + self.per_byte) + items * self.per_item


def learn_overhead(
    kernel: Sequence[float], explained: Sequence[float], items: Sequence[float]
) -> Overhead:
    """Fit the overhead on intervals that were vouched for, robustly (Huber weights, 20 rounds).

    Raises:
        EgressError: Too few intervals, or an overhead outside [0, 50 %]: then what was vouched
            for had other traffic in it.
    """
    seen = np.asarray(kernel, dtype=float)
    x = np.column_stack([np.asarray(explained, dtype=float), np.asarray(items, dtype=float)])
    busy = x[:, 0] > 0
    if int(busy.sum()) < _MIN_INTERVALS:
        raise EgressError(f"expected at least {_MIN_INTERVALS} busy intervals to learn from")
    seen, x = seen[busy], x[busy]
    if not x[:, 1].any() or np.linalg.matrix_rank(x) < x.shape[1]:
        x = x[:, :1]
    scale = 1 / np.maximum(x[:, 0], 1)
    weights = np.ones(len(seen))
    fit = np.zeros(x.shape[1])
    for _ in range(20):
        root = scale * np.sqrt(weights)
        fit = np.linalg.lstsq(x * root[:, None], seen * root, rcond=None)[0]
        error = (seen - x @ fit) * scale
        spread = max(float(np.median(np.abs(error))) * 1.4826, 1e-9)
        weights = np.minimum(1.0, 1.345 * spread / np.maximum(np.abs(error), 1e-12))
    per_item = max(0.0, float(fit[1])) if len(fit) > 1 else 0.0
    if per_item == 0.0:
        fit[0] = float(np.median(seen / x[:, 0]))
    elif fit[0] < 1:
        # Replies of one size can't tell the two parts apart; then all of it is by item.
        extra = (seen - x[:, 0]) / np.maximum(x[:, 1], 1)
        fit[0], per_item = 1.0, float(np.median(extra))
        if per_item < 0:
            raise EgressError("rows explain more bytes than the kernel saw: nothing to learn")
    overhead = float(fit[0]) - 1
    if -_EDGES < overhead < 0:
        overhead = 0.0
    if not 0 <= overhead <= MAX_OVERHEAD:
        raise EgressError(
            f"the overhead came out as {overhead:.1%}, expected 0 to {MAX_OVERHEAD:.0%}: "
            "the learning time holds traffic that its rows do not explain"
        )
    error = (seen - x[:, 0] * fit[0] - (x[:, 1] * per_item if x.shape[1] > 1 else 0)) * scale
    return Overhead(per_byte=overhead, per_item=per_item, sigma=float(error.std()))


class Residual(msgspec.Struct, frozen=True):
    """The odometer of one flow's unexplained bytes since the last two-party review.

    `pending` is what the kernel saw and rows may still explain; `odometer` is what they did not.
    A sender can't save up credit: explained bytes that the kernel never saw count for nothing
    beyond `bank`, and are a finding.
    """

    balance: float = 0.0
    odometer: float = 0.0
    over_explained: float = 0.0
    pending: tuple[tuple[float, float], ...] = ()

    def advance(
        self, *, kernel: float, expected: float, now: float, lag_s: float, bank: float
    ) -> "Residual":
        """Return the residual after one more reading of the kernel and the rows.

        Bytes younger than `lag_s` wait for their rows; then they are unexplained for good. Rows
        pay for the oldest waiting bytes first.
        """
        if kernel < 0 or expected < 0:
            raise ExplainedRowError("bytes do not run backwards")
        waiting = [*self.pending, (now, kernel)] if kernel else list(self.pending)
        credit = min(self.balance + expected, bank + sum(size for _, size in waiting))
        wasted = self.balance + expected - credit
        left: list[tuple[float, float]] = []
        lost = 0.0
        for at, size in waiting:
            paid = min(size, credit)
            credit -= paid
            rest = size - paid
            if rest <= 0:
                continue
            if at <= now - lag_s:
                lost += rest
            else:
                left.append((at, rest))
        return Residual(
            balance=min(credit, bank),
            odometer=self.odometer + lost,
            over_explained=self.over_explained + wasted,
            pending=tuple(left),
        )

    def reviewed(self) -> "Residual":
        """Return the residual after a two-party review cleared the odometer."""
        return msgspec.structs.replace(self, odometer=0.0, over_explained=0.0)


def expected_by_flow(
    rows: Sequence[ExplainedRow], overheads: Mapping[str, Overhead]
) -> dict[str, float]:
    """Kernel bytes that these rows explain, by flow."""
    total: dict[str, float] = {}
    for row in rows:
        overhead = overheads.get(row.flow, Overhead())
        total[row.flow] = total.get(row.flow, 0.0) + overhead.expected(row.size, row.items)
    return total
