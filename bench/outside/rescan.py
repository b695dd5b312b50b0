"""Re-scan by the pool and by Ray: `python bench/outside/rescan.py FOLDER [ROWS] [KILLS]`.

For SQLite and PostgreSQL: a calm run gives the rows; the pool and Ray, each with random `kill -9`
of workers, must give the same rows, each once. Then CPU a row of the whole guard by both.
"""

import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import select

from safehold.detect.monitoring.scan.interface import ScanLimits, ScannerSpec
from safehold.detect.monitoring.scan.scanners import load_scanner
from safehold.detect.monitoring.scan.work import ScanJob, ScanWorker
from safehold.detect.monitoring.tables import RESULTS, MonitorStore
from safehold.detect.runners.interface import RunLimits, UnitCounts
from safehold.detect.runners.pool import run_pool
from safehold.detect.runners.ray_runner import run_ray
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.monitoring import fill, load_hash_scanner
from safehold.testing.postgres import EmbeddedPostgres

Run = Callable[..., UnitCounts]


def rows_of(job: ScanJob) -> list[tuple[Any, ...]]:
    """Return every result, in order."""
    with MonitorStore.open(job.monitor).begin() as connection:
        query = select(RESULTS).order_by(RESULTS.c.seq)
        return [tuple(row) for row in connection.execute(query)]


def planned(job: ScanJob) -> ScanJob:
    """Cut the ledger into units."""
    worker = ScanWorker(job, "planner")
    worker.queue.plan(LedgerReader.open(job.ledger), name=job.spec.name)
    return job


def disturbed(run: Run, job: ScanJob, kills: int) -> tuple[int, float]:
    """Run with workers killed at random until `kills` of them died; return kills and seconds."""
    pids: list[int] = []
    chance = random.Random(7)  # noqa: S311 - chance, no secret
    stop, done = threading.Event(), [0]

    def kill() -> None:
        while done[0] < kills and not stop.wait(chance.uniform(0.2, 0.8)):
            if pids:
                try:
                    os.kill(pids.pop(chance.randrange(len(pids))), signal.SIGKILL)
                    done[0] += 1
                except ProcessLookupError:
                    continue

    killer = threading.Thread(target=kill)
    killer.start()
    began = time.monotonic()
    run(job, RunLimits(processes=2), started=pids.append)
    took = time.monotonic() - began
    stop.set()
    killer.join()
    return done[0], took


def main() -> int:
    """Run everything; the exit status says whether all held."""
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 2_000
    kills = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    figures: dict[str, Any] = {}
    sound = True
    made: list[str] = []
    runs: dict[str, Run] = {"pool": run_pool, "ray": run_ray}
    with (
        tempfile.TemporaryDirectory(prefix="shr-") as name,
        tempfile.TemporaryDirectory(prefix="shp-") as data,
        EmbeddedPostgres(Path(data)) as server,
    ):
        folder = Path(name)
        for storage in ("sqlite", "postgresql"):

            def place(what: str, storage: str = storage) -> str:
                if storage == "postgresql":
                    database = f"{what}{len(made)}"
                    made.append(database)
                    with psycopg.connect(server.url, autocommit=True) as connection:
                        connection.execute(f"CREATE DATABASE {database}")
                    return server.url.replace("/postgres?", f"/{database}?")
                return str(folder / f"{what}.db")

            ledger = place("ledger")
            fill(ledger, [(f"a{n % 97}", f"text {n}", n % 9 == 0) for n in range(rows)])
            limits = ScanLimits(unit_rows=10, lease_s=60.0, losses=50)
            spec = ScannerSpec("hash", {"pause_s": "0.01"})
            calm = planned(ScanJob(ledger, place("calm"), spec, load_hash_scanner, limits))
            run_pool(calm, RunLimits(processes=2))
            expected = rows_of(calm)
            sound &= len({row[1] for row in expected}) == len(expected) == rows
            for runner, run in runs.items():
                job = planned(ScanJob(ledger, place(runner), spec, load_hash_scanner, limits))
                killed, took = disturbed(run, job, kills)
                found = rows_of(job)
                equal = found == expected
                sound &= equal and killed == kills
                figures[f"{storage} {runner}"] = {
                    "exchanges": rows,
                    "rows": len(found),
                    "distinct": len({row[1] for row in found}),
                    "equal": equal,
                    "kill -9": killed,
                    "seconds": round(took, 1),
                }
                print(storage, runner, figures[f"{storage} {runner}"], flush=True)
        figures["guard"] = guard_cpu(folder, runs)
        print("whole guard", figures["guard"], flush=True)
        sound &= bool(figures["guard"]["ratio"] <= 1.15)
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    (Path(sys.argv[1]) / "rescan.json").write_text(json.dumps(figures, indent=1))
    return 0 if sound else 1


def guard_cpu(folder: Path, runs: dict[str, Run]) -> dict[str, float]:
    """Return CPU ms a row of the whole guard by each runner on two workers, and their ratios."""
    ledger, n = str(folder / "guard.db"), 400
    chance = random.Random(1)  # noqa: S311 - chance, no secret
    words = ["kettle", "water", "bread", "how", "long", "should", "it", "rest", "flour", "yeast"]
    fill(ledger, [("a", " ".join(chance.choices(words, k=80)), False) for _ in range(n)])
    cpu: dict[str, float] = {}
    wall: dict[str, float] = {}
    for attempt in range(2):
        for runner, run in runs.items():
            limits = ScanLimits(unit_rows=25)
            spec = ScannerSpec("session")
            monitor = str(folder / f"guard-{runner}-{attempt}.db")
            job = planned(ScanJob(ledger, monitor, spec, load_scanner, limits))
            began = time.monotonic()
            run(job, RunLimits(processes=2))
            wall[runner] = min(wall.get(runner, 1e9), time.monotonic() - began)
            cpu[runner] = min(cpu.get(runner, 1e9), job.queue().cpu_s() / n * 1e3)
    return {
        "rows": n,
        "pool_ms": round(cpu["pool"], 2),
        "ray_ms": round(cpu["ray"], 2),
        "ratio": round(cpu["ray"] / cpu["pool"], 3),
        "wall_ratio": round(wall["ray"] / wall["pool"], 2),
    }


if __name__ == "__main__":
    sys.exit(main())
