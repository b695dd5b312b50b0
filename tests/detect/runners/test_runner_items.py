"""Items of any job through the pool: each result once, whatever is killed, breaks or hangs."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from safehold.detect.runners.interface import RunLimits
from safehold.detect.runners.items import ItemJob, Work
from safehold.detect.runners.pool import run_pool
from safehold.errors import ScorerError


def load(options: Mapping[str, str]) -> Work:
    """Return work that doubles numbers; some items do harm."""

    def work(item: str) -> str:
        time.sleep(float(options.get("pause_s", "0")))
        if item == "breaks":
            raise ScorerError("broken item")
        if item == "kills me":
            os.abort()
        return str(2 * int(item))

    return work


def test_items_end_once_with_result_or_reason(tmp_path: Path) -> None:
    """A broken item and one that kills its workers have reasons; all others have results."""
    job = ItemJob(url=str(tmp_path / "q.db"), name="double", load=load, losses=1)
    queue = job.queue()
    assert queue.put(["1", "breaks", "kills me", "2"]) == 4
    assert queue.put(["1", "2"]) == 0
    assert run_pool(job, RunLimits(processes=1)).done == 4
    found = [(one.item, one.result, one.reason) for one in queue.ended()]
    assert found == [
        ("1", "2", None),
        ("breaks", None, "ScorerError: broken item"),
        ("kills me", None, "LostWorkers"),
        ("2", "4", None),
    ]


def test_killed_workers_double_no_item(tmp_path: Path) -> None:
    """Workers die at random; each item has the result of an undisturbed run."""
    job = ItemJob(
        url=str(tmp_path / "q.db"), name="n", load=load, options={"pause_s": "0.02"}, losses=9
    )
    queue = job.queue()
    queue.put([str(n) for n in range(60)])
    pids: list[int] = []
    stop = threading.Event()

    def kill() -> None:
        for _ in range(3):
            if stop.wait(0.5):
                return
            if pids:
                with contextlib.suppress(ProcessLookupError):  # it had ended by itself
                    os.kill(pids[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    run_pool(job, RunLimits(processes=2), started=pids.append)
    stop.set()
    killer.join()
    assert [one.result for one in queue.ended()] == [str(2 * n) for n in range(60)]
