"""The default runner: worker processes on this host over a job's queue."""

import multiprocessing
import secrets
import time
from multiprocessing.process import BaseProcess

from safehold.detect.runners.interface import (
    Job,
    RunLimits,
    Started,
    Told,
    UnitCounts,
    Workers,
    WorkQueue,
)
from safehold.detect.runners.leader import Starts, lead

_POLL_S = 0.05


def run_pool(
    job: Job,
    limits: RunLimits,
    *,
    told: Told = lambda _: None,
    started: Started = lambda _: None,
) -> UnitCounts:
    """Work until every unit is done or the budget is spent; return the queue's counts.

    A worker that dies is replaced and its unit given on at once; one that hangs is killed at the
    end of its lease.

    Raises:
        LedgerError: a database is gone.
        ScorerError: workers die again and again without ending a unit.
    """

    def opened(queue: WorkQueue) -> Workers:
        return _Processes(job, queue, started)

    return lead(job, opened, limits, told)


class _Processes:
    """The running workers by name."""

    def __init__(self, job: Job, queue: WorkQueue, started: Started) -> None:
        self._job, self._queue, self._started = job, queue, started
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[str, BaseProcess] = {}
        self._starts = Starts()

    def bury(self) -> None:
        """Give on the units of the dead, and kill who has one for too long."""
        for name, process in list(self._workers.items()):
            if not process.is_alive():
                del self._workers[name]
                self._queue.release(name)
        for name in self._queue.overdue(now=time.time()) & self._workers.keys():
            self._workers[name].kill()

    def fill(self, number: int, *, done: int) -> None:
        """Start workers up to a number."""
        while len(self._workers) < number:
            self._starts.one(number, done=done)
            name = secrets.token_hex(8)
            process = self._context.Process(target=_work, args=(self._job, name), daemon=True)
            process.start()
            self._workers[name] = process
            self._started(process.pid or 0)

    def end(self) -> None:
        """Stop every worker."""
        for name, process in self._workers.items():
            process.terminate()
            process.join(5.0)
            if process.is_alive():
                process.kill()
                process.join()
            self._queue.release(name)
        self._workers.clear()


def _work(job: Job, name: str) -> None:
    worker = job.worker(name)
    while True:
        if not worker.step():
            time.sleep(_POLL_S)
