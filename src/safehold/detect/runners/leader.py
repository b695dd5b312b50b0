"""The loop of every runner: count, bury, fill, until all is done or the budget is spent."""

import time
from collections.abc import Callable

from safehold.detect.runners.interface import Job, RunLimits, Told, UnitCounts, Workers, WorkQueue
from safehold.errors import ScorerError

_POLL_S = 0.05
_WAIT_S = 1.0
_STARTS_WITHOUT_PROGRESS = 20


def lead(
    job: Job,
    opened: Callable[[WorkQueue], Workers],
    limits: RunLimits,
    told: Told = lambda _: None,
) -> UnitCounts:
    """Work until every unit is done or the budget is spent; return the queue's counts.

    While the job waits, the workers are stopped and no unit is begun.

    Raises:
        LedgerError: a database is gone.
        ScorerError: workers die again and again without ending a unit.
    """
    queue = job.queue()
    spent = queue.cpu_s()
    workers = opened(queue)
    try:
        while True:
            counts = queue.counts()
            told(counts)
            if not counts.left or queue.cpu_s() - spent >= limits.budget_cpu_s:
                return counts
            if job.waits():
                workers.end()
                time.sleep(_WAIT_S)
                continue
            workers.bury()
            workers.fill(min(limits.processes, counts.left), done=counts.done)
            time.sleep(_POLL_S)
    finally:
        workers.end()


class Starts:
    """Counts starts since the last progress."""

    def __init__(self) -> None:
        self._begun, self._best = 0, -1

    def one(self, number: int, *, done: int) -> None:
        """Count a start.

        Raises:
            ScorerError: too many without a unit that ended.
        """
        if done > self._best:
            self._begun, self._best = 0, done
        if self._begun > _STARTS_WITHOUT_PROGRESS + number:
            raise ScorerError(f"{self._begun} workers died without ending a unit")
        self._begun += 1
