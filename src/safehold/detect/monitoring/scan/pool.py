"""The default runner: worker processes on this host over the queue of units."""

import multiprocessing
import secrets
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess

from safehold.detect.monitoring.scan.queue import UnitQueue
from safehold.detect.monitoring.scan.work import ScanJob, ScanWorker
from safehold.errors import ScorerError

_POLL_S = 0.05
_STARTS_WITHOUT_PROGRESS = 20


def run_pool(
    job: ScanJob,
    *,
    processes: int,
    progress: Callable[[dict[str, int]], None] = lambda _: None,
    started: Callable[[int], None] = lambda _: None,
) -> dict[str, int]:
    """Work until every planned unit is done or the budget is spent; return the queue's counts.

    A worker that dies is replaced and its unit given on at once; one that hangs is killed at the
    end of its lease. `started` is told each worker's process id.

    Raises:
        LedgerError: a database is gone.
        ScorerError: workers die again and again without ending a unit.
    """
    queue = ScanWorker(job, "leader").queue  # a scanner that can't be loaded is told here, at once
    pool, spent = _Pool(job, queue, started), queue.cpu_s()
    try:
        while True:
            counts = queue.counts()
            progress(counts)
            left = counts["open"] + counts["leased"]
            if not left or queue.cpu_s() - spent >= job.limits.budget_cpu_s:
                return counts
            pool.bury()
            pool.fill(min(processes, left), done=counts["done"])
            time.sleep(_POLL_S)
    finally:
        pool.end()


class _Pool:
    """The running workers by name."""

    def __init__(self, job: ScanJob, queue: UnitQueue, started: Callable[[int], None]) -> None:
        self._job, self._queue, self._started = job, queue, started
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[str, BaseProcess] = {}
        self._begun, self._best = 0, -1

    def bury(self) -> None:
        """Give on the units of the dead, and kill who has one for too long."""
        for name, process in list(self._workers.items()):
            if not process.is_alive():
                del self._workers[name]
                self._queue.release(name)
        for name in self._queue.overdue(now=time.time()) & self._workers.keys():
            self._workers[name].kill()

    def fill(self, processes: int, *, done: int) -> None:
        """Start workers up to a number; refuse to do so for ever while none ends a unit."""
        if done > self._best:
            self._begun, self._best = 0, done
        while len(self._workers) < processes:
            if self._begun > _STARTS_WITHOUT_PROGRESS + processes:
                raise ScorerError(f"{self._begun} scan workers died without ending a unit")
            self._begun += 1
            name = secrets.token_hex(8)
            process = self._context.Process(target=_work, args=(self._job, name), daemon=True)
            process.start()
            self._workers[name] = process
            self._started(process.pid or 0)

    def end(self) -> None:
        """Stop every worker; what it had begun is free again."""
        for name, process in self._workers.items():
            process.terminate()
            process.join(5.0)
            if process.is_alive():
                process.kill()
                process.join()
            self._queue.release(name)


def _work(job: ScanJob, name: str) -> None:
    worker = ScanWorker(job, name)
    while True:
        if not worker.step():
            time.sleep(_POLL_S)
