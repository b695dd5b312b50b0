"""The transparency log: appends per second, and proofs in a log of ten million leaves.

Run `python bench/trust_log.py [--leaves N]`. Everything is measured in one run on one file system,
so the ratios hold where the absolute figures do not. The ten million leaf hashes are synthetic
(SHA-256 of a counter); the tiles above them are real files in the log's own layout.
"""

import argparse
import hashlib
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from safehold.trust.leaves import Record, statement_of
from safehold.trust.log import (
    DirectorySource,
    LogKeys,
    LogStore,
    SigningKey,
    TileReader,
    create_log,
    seal,
)
from safehold.trust.log.merkle import (
    prove_consistency,
    prove_inclusion,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from safehold.trust.log.tiles import Frontier, tile_path

PUBLISH_EVERY = 1000


def fsyncs(folder: Path, seconds: float) -> float:
    """Return bare 1 KB appends with fdatasync per second."""
    with (folder / "raw").open("wb", buffering=0) as file:
        count, until = 0, time.perf_counter() + seconds
        while time.perf_counter() < until:
            file.write(b"x" * 1024)
            os.fdatasync(file.fileno())
            count += 1
    return count / seconds


def appends(folder: Path, writers: int, batch: int, seconds: float) -> tuple[float, float]:
    """Return signed, durable and published leaves per second, and CPU microseconds of each."""
    key = SigningKey.generate("bench.test/log")
    vkey = str(key.verifier)
    create_log(folder, key, LogKeys("bench.test/log", vkey, (vkey,)))
    store = LogStore(folder, key)
    until = time.perf_counter() + seconds
    counts = [0] * writers
    published = [0]

    def write(writer: int) -> None:
        number = 0
        while time.perf_counter() < until:
            record = Record(
                1_800_000_000, "note", {"writer": f"{writer}", "number": f"{number}"}, {}
            )
            store.append([seal(statement_of(record), key) for _ in range(batch)])
            number += batch
            counts[writer] = number
            if writer == 0 and store.size - published[0] >= PUBLISH_EVERY:
                published[0] = store.publish().size

    start, cpu = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.publish()
    used = (time.process_time() - cpu) / sum(counts)
    return sum(counts) / (time.perf_counter() - start), used * 1e6


def synthetic(folder: Path, leaves: int) -> Frontier:
    """Write the tiles of a tree of synthetic leaf hashes."""
    frontier = Frontier()
    made: set[Path] = set()

    def write(path: Path, data: bytes) -> None:
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        path.write_bytes(data)

    for number in range(leaves):
        for level, index, data in frontier.add(hashlib.sha256(b"%d" % number).digest()):
            write(folder / tile_path(level, index), data)
    for level, index, width, data in frontier.partials():
        write(folder / tile_path(level, index, width), data)
    return frontier


def timed(name: str, repeats: int, work: Callable[[int], None]) -> None:
    """Print the median and 99th percentile of a piece of work, in milliseconds."""
    times = []
    for number in range(repeats):
        start = time.perf_counter()
        work(number)
        times.append((time.perf_counter() - start) * 1000)
    print(
        f"{name:<44} p50 {statistics.median(times):>7.3f} ms  "
        f"p99 {sorted(times)[len(times) * 99 // 100]:>7.3f} ms  (n = {repeats})"
    )


def proofs(folder: Path, leaves: int, repeats: int) -> None:
    """Measure proofs in a large tree."""
    start = time.perf_counter()
    frontier = synthetic(folder, leaves)
    print(f"synthetic tree of {leaves:,} leaves made in {time.perf_counter() - start:.0f} s")
    root, source, pick = frontier.root(), DirectorySource(folder), random.Random(7)  # noqa: S311
    reader = TileReader(source, leaves)
    indices = [pick.randrange(leaves) for _ in range(repeats)]
    sizes = [pick.randrange(1, leaves) for _ in range(repeats)]
    roots = [tree_root(size, TileReader(source, leaves).node) for size in sizes]

    def cold(number: int) -> None:
        prove_inclusion(indices[number], leaves, TileReader(source, leaves).node)

    def warm(number: int) -> None:
        prove_inclusion(indices[number], leaves, reader.node)

    def consistency(number: int) -> None:
        prove_consistency(sizes[number], leaves, reader.node)

    timed("inclusion proof, every tile read from files", repeats, cold)
    timed("inclusion proof, 512 tiles kept", repeats, warm)
    timed("consistency proof, 512 tiles kept", repeats, consistency)
    made = [prove_inclusion(index, leaves, reader.node) for index in indices]
    grown = [prove_consistency(size, leaves, reader.node) for size in sizes]
    hashes = [hashlib.sha256(b"%d" % index).digest() for index in indices]
    timed("verify inclusion", repeats, lambda n: verify_inclusion(made[n], hashes[n], root))
    timed("verify consistency", repeats, lambda n: verify_consistency(grown[n], roots[n], root))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--leaves", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--folder", type=Path, default=None, help="where the files go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="sht-") as name:
        folder = Path(name)
        base = fsyncs(folder, options.seconds)
        print(f"bare fdatasync of 1 KB: {base:>8,.0f} /s")
        for writers, batch in ((1, 1), (16, 1), (64, 1), (1, 100)):
            rate, used = appends(folder / f"log{writers}-{batch}", writers, batch, options.seconds)
            print(
                f"signed leaves, {writers:>2} threads, {batch:>3} a call: {rate:>8,.0f} appends/s  "
                f"{rate / base:>5.2f} x bare fdatasync  {used:>4.0f} us CPU each"
            )
        proofs(folder / "large", options.leaves, options.repeats)


if __name__ == "__main__":
    main()
