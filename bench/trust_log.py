"""The transparency log: appends per second, and proofs in a log of ten million leaves.

Run `python -m bench --only trust_log`. Everything is measured in one run on one file system, so the
ratios hold where the absolute figures do not. The ten million leaf hashes are synthetic (SHA-256 of
a counter); the tiles above them are real files in the log's own layout.
"""

import hashlib
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.tables import Table

from safehold.testing.trust import Enclave
from safehold.trust.log import (
    DirectorySource,
    LogKeys,
    LogStore,
    SigningKey,
    TileReader,
    create_log,
    sign_envelope,
)
from safehold.trust.log.interface import Checkpoint
from safehold.trust.log.log_entries import Record, statement_of
from safehold.trust.log.merkle import (
    prove_consistency,
    prove_inclusion,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from safehold.trust.log.tiles import Frontier, tile_path

PUBLISH_EVERY = 1000
GOAL = 2000
WRITERS = ((1, 1), (16, 1), (64, 1), (1, 100))


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
            store.append([sign_envelope(statement_of(record), key) for _ in range(batch)])
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


def timed(name: str, repeats: int, work: Callable[[int], None]) -> tuple[str, ...]:
    """Return the median and 99th percentile of a piece of work, in milliseconds."""
    times = []
    for number in range(repeats):
        start = time.perf_counter()
        work(number)
        times.append((time.perf_counter() - start) * 1000)
    p99 = sorted(times)[len(times) * 99 // 100]
    return name, f"{statistics.median(times):.3f}", f"{p99:.3f}", f"{repeats}"


def proofs(folder: Path, leaves: int, repeats: int) -> Table:
    """Measure proofs in a large tree."""
    frontier = synthetic(folder, leaves)
    root, source, pick = frontier.root(), DirectorySource(folder), random.Random(7)  # noqa: S311
    head = Checkpoint("bench", leaves, root)
    reader = TileReader(source, head)
    indices = [pick.randrange(leaves) for _ in range(repeats)]
    sizes = [pick.randrange(1, leaves) for _ in range(repeats)]
    roots = [tree_root(size, TileReader(source, head).node) for size in sizes]
    made = [prove_inclusion(index, leaves, reader.node) for index in indices]
    grown = [prove_consistency(size, leaves, reader.node) for size in sizes]
    hashes = [hashlib.sha256(b"%d" % index).digest() for index in indices]
    kinds: tuple[tuple[str, Callable[[int], object]], ...] = (
        (
            "inclusion proof, every tile read from files",
            lambda n: prove_inclusion(indices[n], leaves, TileReader(source, head).node),
        ),
        (
            "inclusion proof, 512 tiles kept",
            lambda n: prove_inclusion(indices[n], leaves, reader.node),
        ),
        (
            "consistency proof, 512 tiles kept",
            lambda n: prove_consistency(sizes[n], leaves, reader.node),
        ),
        ("verify inclusion", lambda n: verify_inclusion(made[n], hashes[n], root)),
        ("verify consistency", lambda n: verify_consistency(grown[n], roots[n], root)),
    )
    return Table(
        title=f"Proofs in a log of {leaves:,} leaves",
        columns=("work", "p50, ms", "p99, ms", "n"),
        rows=tuple(timed(name, repeats, work) for name, work in kinds),
    )


def writing(folder: Path, seconds: float) -> Table:
    """Measure appends beside bare syncs."""
    base = fsyncs(folder, seconds)
    rows = [("bare fdatasync of 1 KB", f"{base:,.0f}", "1.00", "", "")]
    for writers, batch in WRITERS:
        rate, used = appends(folder / f"log{writers}-{batch}", writers, batch, seconds)
        name = f"signed leaves, {writers} thread{'s' * (writers > 1)}, {batch} a call"
        goal = "yes" if rate >= GOAL else "no"
        rows.append((name, f"{rate:,.0f}", f"{rate / base:.2f}", f"{used:.0f}", goal))
    return Table(
        title="Appends: signed, durable and published",
        columns=("work", "a second", "x bare fdatasync", "us of CPU each", f">= {GOAL:,}/s"),
        rows=tuple(rows),
        note="An append has returned when its journal is synced; the tree is published every "
        f"{PUBLISH_EVERY:,} leaves.",
    )


def replay(folder: Path, grants: int) -> Table:
    """Measure how fast a reader judges a log of grants again."""
    enclave = Enclave(folder)
    for _ in range(grants):
        request = enclave.ask()
        enclave.file(request)
        enclave.approve(request, "dev-two", "dev-three", "sec-one")
        enclave.use(request)
    start, cpu = time.perf_counter(), time.process_time()
    desk = enclave.open_desk()
    if len(desk.state.cases) != grants:
        raise RuntimeError("the replay lost grants")
    spent, used = time.perf_counter() - start, time.process_time() - cpu
    leaves = desk.store.size
    return Table(
        title="Opening a log: every leaf about trust is judged again",
        columns=("leaves", "seconds", "leaves a second", "ms of CPU a leaf"),
        rows=(
            (f"{leaves:,}", f"{spent:.2f}", f"{leaves / spent:,.0f}", f"{used / leaves * 1e3:.2f}"),
        ),
        note="A grant is six leaves: request, three approvals, grant, use.",
    )


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - the runner's interface
    """Measure everything; `quick` takes a tree of 200,000 leaves and a second for each rate."""
    with tempfile.TemporaryDirectory(prefix="sht-") as name:
        folder = Path(name)
        return [
            writing(folder, 1.0 if quick else 3.0),
            proofs(folder / "large", 200_000 if quick else 10_000_000, 100 if quick else 300),
            replay(folder / "grants", 10 if quick else 100),
        ]


if __name__ == "__main__":
    for table in run(quick=False):
        print(table.markdown())
