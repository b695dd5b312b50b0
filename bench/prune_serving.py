"""Prune half of a ledger while it serves: CPU, refused appends and the slowest, beside the usual.

Run `python -m bench.prune_serving [--exchanges N] [--folder DIR]`. A process appends exchanges, as
a gateway does, before and while another prunes; an append that fails would be a 503.
"""

import argparse
import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.tables import Table

from safehold.errors import LedgerError
from safehold.guard.ledger import retention
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import NOW, RowMaker

_PAUSE_S = 0.05
_KEPT_S = 86_400


async def fill(url: str, exchanges: int) -> None:
    """Fill a ledger, half of it too old to keep."""
    rows = RowMaker()
    async with await Ledger.open(url) as ledger:
        for start in range(0, exchanges, 500):
            some: list[Any] = []
            for number in range(start, min(start + 500, exchanges)):
                at = 0.0 if number < exchanges // 2 else NOW
                some += [rows.prompt(f"d{number}", at=at), rows.final(f"d{number}", at=at)]
            await ledger.append(*some)


async def serve(url: str, until: Path) -> dict[str, Any]:
    """Append exchanges until a file appears; return what each append took, and what failed."""
    rows, times, failed, number = RowMaker(), [], 0, 0
    async with await Ledger.open(url) as ledger:
        while not os.path.exists(until):  # noqa: ASYNC240, PTH110 - it takes microseconds
            name = f"s{time.time_ns()}-{number}"
            number += 1
            for row in (rows.prompt(name), rows.final(name)):
                began = time.perf_counter()
                try:
                    await ledger.append(row)
                except LedgerError:
                    failed += 1
                times.append(time.perf_counter() - began)
            await asyncio.sleep(_PAUSE_S)
    return {"times": times, "failed": failed}


def _serving(url: str, stop: Path) -> "subprocess.Popen[str]":
    stop.unlink(missing_ok=True)
    asked = [sys.executable, "-m", "bench.prune_serving", "--serve", url, "--stop", str(stop)]
    return subprocess.Popen(asked, stdout=subprocess.PIPE, text=True)


def _ended(serving: "subprocess.Popen[str]", stop: Path) -> dict[str, Any]:
    stop.touch()
    said, _ = serving.communicate()
    return dict(json.loads(said))


def measured(folder: Path, exchanges: int, usual_s: float) -> tuple[tuple[str, ...], float]:
    """Return one size's row, and the CPU seconds of its pruning."""
    url, stop = f"{folder}/ledger-{exchanges}.db", folder / "stop"
    if not Path(url).exists():
        asyncio.run(fill(url, exchanges))
    worked = f"{folder}/worked.db"  # the full one stays for the next time
    shutil.copy(url, worked)
    serving = _serving(worked, stop)
    time.sleep(usual_s)
    usual = _ended(serving, stop)
    serving = _serving(worked, stop)
    time.sleep(1.0)
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    pruned = retention.prune(worked, older_than_s=_KEPT_S, clock=lambda: NOW)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    meanwhile = _ended(serving, stop)
    for end in ("", "-wal", "-shm"):
        Path(worked + end).unlink(missing_ok=True)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    slowest, most = max(usual["times"], default=0.0), max(meanwhile["times"], default=0.0)
    row = (
        f"{pruned.decisions:,} of {exchanges:,}",
        f"{cpu:.1f}",
        f"{wall:.0f}",
        f"{meanwhile['failed']} of {len(meanwhile['times'])}",
        f"{slowest:.3f}",
        f"{most:.3f}",
    )
    print(*row, sep="  ", flush=True)
    return row, cpu


def table(folder: Path, sizes: tuple[int, int], usual_s: float) -> Table:
    """Measure two sizes."""
    import math  # noqa: PLC0415 - once

    found = [measured(folder, size, usual_s) for size in sizes]
    grew = math.log(found[1][1] / found[0][1]) / math.log(sizes[1] / sizes[0])
    return Table(
        title="Pruning half of a ledger while it serves",
        columns=("pruned", "CPU s", "s", "failed appends", "slowest usually", "slowest meanwhile"),
        rows=tuple(row for row, _ in found),
        note=f"CPU grows with the exponent {grew:.2f}.",
    )


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - the runner's interface
    """Measure 10,000 and 100,000 exchanges; a million are for the command line."""
    with tempfile.TemporaryDirectory(prefix="shp-") as name:
        return [table(Path(name), (1_000, 4_000) if quick else (10_000, 100_000), 2.0)]


def main() -> None:
    """Measure two sizes in a folder that stays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exchanges", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--serve", default=None, help="a ledger to append to")
    parser.add_argument("--stop", type=Path, default=None, help="a file that ends it")
    given = parser.parse_args()
    if given.serve is not None:
        print(json.dumps(asyncio.run(serve(given.serve, given.stop))))
        return
    folder = given.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    print(table(folder, (given.exchanges // 10, given.exchanges), 10.0).markdown())


if __name__ == "__main__":
    main()
