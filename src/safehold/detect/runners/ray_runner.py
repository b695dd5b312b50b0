"""The runner for clusters: Ray actors over a job's queue (`pip install 'safehold[ray]'`).

Ray only starts processes. Units, leases and results stay in our own database, so that the rows are
the pool's, each once, whatever is killed. The databases must be reachable from every node:
PostgreSQL on a real cluster.
"""

import importlib
import os
import secrets
import time
from types import ModuleType
from typing import Any

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
from safehold.errors import DependencyError

_IDLE_S = 0.05


class _Actor:
    """One loaded worker in a Ray process."""

    def __init__(self, job: Job, name: str) -> None:
        self._worker = job.worker(name)

    def process(self) -> int:
        return os.getpid()

    def step(self) -> bool:
        worked = self._worker.step()
        if not worked:
            time.sleep(_IDLE_S)
        return worked


def run_ray(
    job: Job,
    limits: RunLimits,
    *,
    address: str | None = None,
    told: Told = lambda _: None,
    started: Started = lambda _: None,
) -> UnitCounts:
    """Work on a Ray cluster (without an address: on a local one that ends with the run).

    Raises:
        DependencyError: Ray is not installed.
        LedgerError: a database is gone.
        ScorerError: actors die again and again without ending a unit.
    """
    # Ray reports its usage home and picks the public address unless it is told otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray: Any = importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise DependencyError("the Ray runner needs Ray: pip install 'safehold[ray]'") from error
    local = {
        "num_cpus": limits.processes,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
    }
    where: dict[str, Any] = {"address": address} if address else local
    ray.init(log_to_driver=False, logging_level="ERROR", **where)

    def opened(queue: WorkQueue) -> Workers:
        return _Actors(ray, job, queue, started)

    try:
        return lead(job, opened, limits, told)
    finally:
        ray.shutdown()


class _Actors:
    """The running actors by what each does now."""

    def __init__(self, ray: ModuleType, job: Job, queue: WorkQueue, started: Started) -> None:
        self._ray, self._job, self._queue, self._started = ray, job, queue, started
        self._made = ray.remote(num_cpus=1, max_restarts=0)(_Actor)
        self._running: dict[Any, tuple[str, Any]] = {}
        self._starts = Starts()

    def bury(self) -> None:
        """Give each actor that ended its step the next one, and give on the units of the dead."""
        late = self._queue.overdue(now=time.time())
        for reference, (name, actor) in list(self._running.items()):
            if name in late:
                del self._running[reference]
                self._ray.kill(actor)
                self._queue.release(name)
        if not self._running:
            return
        waiting = list(self._running)
        ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        for reference in ready:
            name, actor = self._running.pop(reference)
            try:
                self._ray.get(reference)
                self._running[actor.step.remote()] = (name, actor)
            except self._ray.exceptions.RayActorError:
                self._queue.release(name)
            except self._ray.exceptions.RayTaskError:  # its step raised: as a pool's process dies
                self._ray.kill(actor)
                self._queue.release(name)

    def fill(self, number: int, *, done: int) -> None:
        """Start actors up to a number; each says its process id when it has loaded."""
        while len(self._running) < number:
            self._starts.one(number, done=done)
            name = secrets.token_hex(8)
            actor = self._made.remote(self._job, name)
            try:
                self._started(self._ray.get(actor.process.remote()))
                self._running[actor.step.remote()] = (name, actor)
            except self._ray.exceptions.RayActorError:
                self._queue.release(name)

    def end(self) -> None:
        """Stop every actor."""
        for name, actor in self._running.values():
            self._ray.kill(actor)
            self._queue.release(name)
        self._running.clear()
