"""Re-scan by the pool and by Ray: `python bench/outside/rescan.py FOLDER [--only PART]`.

For SQLite and PostgreSQL: a calm run gives the rows; the pool and Ray, each with random `kill -9`
of workers, must give the same rows, each once. Exchanges that kill, hang or leave the worker, or
make the scanner lie, are unscorable alone under both: all others are scored. Then CPU a row of the
whole guard by both.
"""

import argparse
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
from safehold.testing.monitoring import LIES, fill, load_hash_scanner
from safehold.testing.postgres import EmbeddedPostgres

Run = Callable[..., UnitCounts]
RUNS: dict[str, Run] = {"pool": run_pool, "ray": run_ray}
Figures = dict[str, dict[str, Any]]


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


def poisoned(run: Run, job: ScanJob, expected: dict[str, str | None]) -> dict[str, Any]:
    """Run over exchanges of which some do harm; compare each reason with the expected one."""
    fill(job.ledger, [("a", text, False) for text in expected])
    began = time.monotonic()
    run(planned(job), RunLimits(processes=2))
    reasons = [row[8] for row in rows_of(job)]
    return {
        "exchanges": len(expected),
        "rows": len(reasons),
        "harmful": sum(reason is not None for reason in expected.values()),
        "sound": reasons == list(expected.values()),
        "seconds": round(time.monotonic() - began, 1),
    }


def harm() -> dict[str, str | None]:
    """Return texts, each with the reason why it can't be scored; None where it can."""
    found: dict[str, str | None] = {f"fine {n}": None for n in range(40)}
    found |= {"kills me": "LostWorkers", "hangs me": "LostWorkers", "leaves": "LostWorkers"}
    found |= {"breaks": "RuntimeError", **dict.fromkeys(LIES, "BadScore")}
    order = sorted(found)
    random.Random(3).shuffle(order)  # noqa: S311 - chance, no secret
    return {text: found[text] for text in order}


def under_kills(folder: Path, server: EmbeddedPostgres, given: argparse.Namespace) -> Figures:
    """Compare the rows of disturbed runs with a calm run's, for each storage and runner."""
    made: list[str] = []
    figures: Figures = {}
    for storage in ("sqlite", "postgresql"):

        def place(what: str, storage: str = storage) -> str:
            if storage == "postgresql":
                database = f"{what}{len(made)}"
                made.append(database)
                with psycopg.connect(server.url, autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE {database}")
                return server.url.replace("/postgres?", f"/{database}?")
            return str(folder / f"{what}.db")

        ledger, rows = place("ledger"), given.rows
        fill(ledger, [(f"a{n % 97}", f"text {n}", n % 9 == 0) for n in range(rows)])
        limits = ScanLimits(unit_rows=10, lease_s=60.0, losses=50)
        spec = ScannerSpec("hash", {"pause_s": "0.01"})
        calm = planned(ScanJob(ledger, place("calm"), spec, load_hash_scanner, limits))
        run_pool(calm, RunLimits(processes=2))
        expected = rows_of(calm)
        once = len({row[1] for row in expected}) == len(expected) == rows
        for runner, run in RUNS.items():
            job = planned(ScanJob(ledger, place(runner), spec, load_hash_scanner, limits))
            killed, took = disturbed(run, job, given.kills)
            found = rows_of(job)
            one = {
                "exchanges": rows,
                "rows": len(found),
                "distinct": len({row[1] for row in found}),
                "equal": found == expected,
                "kill -9": killed,
                "seconds": round(took, 1),
                "sound": once and found == expected and killed == given.kills,
            }
            figures[f"{storage} {runner}"] = one
            print(storage, runner, one, flush=True)
    return figures


def under_harm(folder: Path, server: EmbeddedPostgres, given: argparse.Namespace) -> Figures:
    """Run each runner over exchanges that kill, hang, leave, break or lie."""
    del server, given
    figures: Figures = {}
    for runner, run in RUNS.items():
        where = str(folder / f"harm-{runner}.db"), str(folder / f"harm-{runner}-monitor.db")
        limits = ScanLimits(unit_rows=20, lease_s=10.0, losses=1)
        job = ScanJob(*where, ScannerSpec("hash"), load_hash_scanner, limits)
        figures[f"harm {runner}"] = poisoned(run, job, harm())
        print("harm", runner, figures[f"harm {runner}"], flush=True)
    return figures


def whole_guard(folder: Path, server: EmbeddedPostgres, given: argparse.Namespace) -> Figures:
    """Compare the CPU a row of the whole guard."""
    del server
    found = guard_cpu(folder, given.guard_rows)
    found["sound"] = bool(found["ratio"] <= 1.15)
    print("whole guard", found, flush=True)
    return {"guard": found}


Part = Callable[[Path, EmbeddedPostgres, argparse.Namespace], Figures]
PARTS: dict[str, Part] = {"kills": under_kills, "harm": under_harm, "guard": whole_guard}


def main() -> int:
    """Run the parts; the exit status says whether all held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--guard-rows", type=int, default=400)
    parser.add_argument("--only", choices=PARTS)
    given = parser.parse_args()
    figures: Figures = {}
    with (
        tempfile.TemporaryDirectory(prefix="shr-") as name,
        tempfile.TemporaryDirectory(prefix="shp-") as data,
        EmbeddedPostgres(Path(data)) as server,
    ):
        for part, run in PARTS.items():
            if given.only in {None, part}:
                figures |= run(Path(name), server, given)
    given.folder.mkdir(parents=True, exist_ok=True)
    (given.folder / "rescan.json").write_text(json.dumps(figures, indent=1))
    return 0 if all(one["sound"] for one in figures.values()) else 1


def guard_cpu(folder: Path, n: int) -> dict[str, Any]:
    """Return CPU ms a row of the whole guard by each runner on two workers, and their ratios."""
    ledger = str(folder / "guard.db")
    chance = random.Random(1)  # noqa: S311 - chance, no secret
    words = ["kettle", "water", "bread", "how", "long", "should", "it", "rest", "flour", "yeast"]
    fill(ledger, [("a", " ".join(chance.choices(words, k=80)), False) for _ in range(n)])
    cpu: dict[str, float] = {}
    wall: dict[str, float] = {}
    for attempt in range(2):
        for runner, run in RUNS.items():
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
