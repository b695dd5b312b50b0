"""Ledger appends per second, beside what bare SQLite commits and bare fsyncs allow.

Run `python bench/ledger.py [--postgres]`. Everything is measured in one run on one file system, so
the ratios hold where the absolute figures do not.
"""

import argparse
import asyncio
import os
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from safehold.exchange import user_says
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import RowMaker
from safehold.testing.postgres import EmbeddedPostgres

_PROMPT = user_says("how is malt made? " * 30)


def fsyncs(folder: Path, seconds: float) -> float:
    """Return bare 4 KB appends with fdatasync per second."""
    with (folder / "raw").open("wb", buffering=0) as file:
        count, until = 0, time.perf_counter() + seconds
        while time.perf_counter() < until:
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            count += 1
    return count / seconds


def commits(folder: Path, seconds: float) -> float:
    """Return bare one-row SQLite commits per second (WAL, synchronous=FULL)."""
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (seq INTEGER PRIMARY KEY, content TEXT)")
    count, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        connection.execute("INSERT INTO t (content) VALUES (?)", ("x" * 700,))
        count += 1
    connection.close()
    return count / seconds


async def appends(url: str, writers: int, seconds: float) -> tuple[float, float, float]:
    """Return appends per second, and the median and 99th percentile latency in milliseconds."""
    rows, times = RowMaker(), []
    stamp = time.time_ns()
    until = time.perf_counter() + seconds

    async def write(ledger: Ledger, writer: int) -> None:
        number = 0
        while (start := time.perf_counter()) < until:
            number += 1
            await ledger.append(rows.prompt(f"{stamp}-{writer}-{number}", exchange=_PROMPT))
            times.append((time.perf_counter() - start) * 1000)

    async with await Ledger.open(url) as ledger:
        await asyncio.gather(*(write(ledger, writer) for writer in range(writers)))
    return len(times) / seconds, statistics.median(times), sorted(times)[len(times) * 99 // 100]


def report(name: str, url: str, seconds: float, base: float) -> None:
    """Print one storage's figures."""
    for writers in (1, 64, 256):
        rate, median, p99 = asyncio.run(appends(url, writers, seconds))
        print(
            f"{name}, {writers:>3} waiting: {rate:>8,.0f} appends/s  "
            f"{rate / base:>5.2f} x bare commits  p50 {median:.2f} ms  p99 {p99:.2f} ms"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--folder", type=Path, default=None, help="where the files go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="shb-") as name:
        folder = Path(name)
        print(f"bare fdatasync:      {fsyncs(folder, options.seconds):>8,.0f} /s")
        base = commits(folder, options.seconds)
        print(f"bare SQLite commits: {base:>8,.0f} /s")
        report("ledger on SQLite    ", str(folder / "l.db"), options.seconds, base)
        if options.postgres:
            folder.chmod(0o755)
            with EmbeddedPostgres(folder / "pg") as server:
                report("ledger on PostgreSQL", server.url, options.seconds, base)


if __name__ == "__main__":
    main()
