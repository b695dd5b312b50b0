"""The runner for clusters: Ray actors over the same queue (`pip install 'ray>=2.46,<2.54'`).

Ray only starts and restarts processes. Units, leases and results stay in our own database, so that
the rows are the pool's, each once, whatever is killed. Both databases must be reachable from every
node: PostgreSQL on a real cluster.
"""

import importlib
import os
import secrets
import time
from collections.abc import Callable
from typing import Any

from safehold.detect.monitoring.scan.work import ScanJob, ScanWorker
from safehold.errors import DependencyError, ScorerError

_ROUNDS_WITHOUT_PROGRESS = 50


class _Actor:
    """One loaded scanner in a Ray worker; a restarted actor has another name."""

    def __init__(self, job: ScanJob) -> None:
        self._worker = ScanWorker(job, secrets.token_hex(8))

    def name(self) -> str:
        return self._worker.name

    def step(self) -> tuple[int, bool]:
        return os.getpid(), self._worker.step()


def run_ray(
    job: ScanJob,
    *,
    processes: int,
    address: str | None = None,
    started: Callable[[int], None] = lambda _: None,
) -> dict[str, int]:
    """Work on a Ray cluster (or a local one) until every unit is done; return the counts.

    Raises:
        DependencyError: Ray is not installed.
        ScorerError: actors die again and again without ending a unit.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise DependencyError("the Ray runner needs Ray: pip install 'ray>=2.46,<2.54'") from error
    queue = ScanWorker(job, "leader").queue
    local: dict[str, Any] = {"num_cpus": processes, "include_dashboard": False}
    where: dict[str, Any] = {"address": address} if address else local
    ray.init(log_to_driver=False, logging_level="ERROR", **where)
    try:
        remote = ray.remote(num_cpus=1, max_restarts=-1)(_Actor)
        actors = [remote.remote(job) for _ in range(processes)]
        names = {actor: ray.get(actor.name.remote()) for actor in actors}
        running = {actor.step.remote(): actor for actor in actors}
        idle, best = 0, -1
        while True:
            counts = queue.counts()
            if not counts["open"] + counts["leased"]:
                return counts
            idle, best = (0, counts["done"]) if counts["done"] > best else (idle, best)
            ready, _ = ray.wait(list(running), timeout=1.0)
            for reference in ready:
                actor = running.pop(reference)
                try:
                    process, worked = ray.get(reference)
                    started(process)
                    if not worked:
                        time.sleep(0.05)
                except ray.exceptions.RayActorError:
                    queue.release(names[actor])
                    names[actor] = ray.get(actor.name.remote())
                    idle += 1
                    if idle > _ROUNDS_WITHOUT_PROGRESS:
                        raise ScorerError("Ray actors die without ending a unit") from None
                running[actor.step.remote()] = actor
    finally:
        ray.shutdown()
