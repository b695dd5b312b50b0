"""The large run of `synth` on Ray: `python bench/outside/synth_ray.py FOLDER [ROUNDS]`.

A canned generator answers alone, to the pool and to Ray, while workers are killed. All three must
give the same rows and the same cells. No call may be answered twice except those that were in
flight when their worker died. Prints one line of JSON; exit status 1 where anything differs.
"""

import json
import os
import random
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from safehold.constitution import load
from safehold.detect.runners.interface import Job, RunLimits, Told, UnitCounts
from safehold.detect.runners.pool import run_pool
from safehold.detect.runners.ray_runner import run_ray
from safehold.improve.synthesis.calls import CallBook
from safehold.improve.synthesis.chat import ChatSettings
from safehold.improve.synthesis.generator import ModelGenerator
from safehold.improve.synthesis.spread import Run, Spread, SpreadPlan
from safehold.testing.generator import GeneratorServer, generating

CLASS = Path(__file__).parents[2] / "examples" / "classes" / "bicycle-repair.yaml"
LANES = 4


def disturbed(run: Run, kills: list[int], job: Job, limits: RunLimits, *, told: Told) -> UnitCounts:
    """Run, and kill a worker at random every second."""
    pids: list[int] = []
    chance = random.Random(len(kills))  # noqa: S311 - chance, no secret
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(1.0):
            if len(kills) < 3 and pids:
                pid = pids.pop(chance.randrange(len(pids)))
                try:
                    os.kill(pid, signal.SIGKILL)
                    kills.append(pid)
                except ProcessLookupError:
                    pass

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        return run(job, limits, started=pids.append, told=told)
    finally:
        stop.set()
        thread.join()


def made(
    server: GeneratorServer, folder: Path, rounds: int, run: Run | None
) -> tuple[list[Any], list[Any]]:
    """Return the rows and cells of one run."""
    settings = ChatSettings(
        url=server.url, model="canned", batch=4, rounds=rounds, fill=1, concurrency=LANES,
        retries=1, backoff_s=0.0, languages=("en",),
    )  # fmt: skip
    with CallBook(folder) as book:
        workers = None
        if run is not None:
            plan = SpreadPlan(url=str(folder / "spread.db"), run=run, limits=RunLimits(processes=2))
            workers = Spread(plan, load(str(CLASS)), settings, book)
        generator = ModelGenerator("openai", load(str(CLASS)), settings, book, workers=workers)
        return list(generator.generate(seed=1)), list(generator.yields)


def main(folder: Path, rounds: int) -> int:
    """Compare the three; return the exit status."""
    found: dict[str, Any] = {}
    same = True
    with generating(GeneratorServer()) as server:
        alone = made(server, folder / "alone", rounds, None)
        calls = len(server.asked)
        for name, run in (("pool", run_pool), ("ray", run_ray)):
            server.asked.clear()
            kills: list[int] = []
            began = time.monotonic()
            rows = made(server, folder / name, rounds, partial(disturbed, run, kills))
            repeated = len(server.asked) - calls
            equal = rows == alone and repeated <= LANES * len(kills)
            same = same and equal
            found[name] = {
                "rows": len(rows[0]),
                "same": equal,
                "calls": calls,
                "kills": len(kills),
                "in flight when killed": repeated,
                "seconds": round(time.monotonic() - began, 1),
            }
    print(json.dumps(found))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int((*sys.argv, 4)[2])))
