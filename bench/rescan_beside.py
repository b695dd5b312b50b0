"""A re-scan beside a serving gateway: what it does to the time until a row is durable.

A gateway serves a steady pace of requests on the ledger that is scanned: alone, beside a re-scan
that never holds back, beside one that holds back at twice what the gateway needed alone, and beside
one whose limit is below what it needed alone, which therefore waits. The times are the gateway's
own (`safehold_ledger_append_seconds`), as upper bounds of buckets.

`python -m bench.rescan_beside [--seconds N] [--pace N] [--old N] [--processes N]`
"""

import argparse
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
from bench.tables import Table

from safehold.detect.monitoring.scan.interface import ScanLimits, ScannerSpec
from safehold.detect.monitoring.scan.pressure import Buckets, LedgerPressure, buckets
from safehold.detect.monitoring.scan.scanners import load_scanner
from safehold.detect.monitoring.scan.work import Busy, ScanJob, ScanWorker, never_busy
from safehold.detect.runners.interface import RunLimits, UnitCounts
from safehold.detect.runners.pool import run_pool
from safehold.guard.gateway.bundles.loading import RulesLoader
from safehold.guard.gateway.policy import Settings, Upstream
from safehold.guard.gateway.server import Parts, listen, run
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.monitoring import fill
from safehold.testing.upstream import MockUpstream, says

RULES = Path(__file__).resolve().parent / "outside" / "rules.yaml"


def serve(folder: str) -> None:
    """Serve on the folder's ledger until SIGTERM; print the address."""
    with MockUpstream(says("Malt is what it is made from, and water.", size=6)) as upstream:
        settings = Settings(
            port=0,
            upstream=Upstream(url=upstream.url),
            bundle=str(RULES),
            ledger=f"{folder}/ledger.db",
            log="none",
        )
        sock = listen(settings)
        print(f"http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
        sys.stdout.close()
        run(settings, Parts(loader=RulesLoader()), sock)


@contextmanager
def gateway(folder: str) -> Iterator[str]:
    """Start a gateway in a process of its own; give its address."""
    command = [sys.executable, "-m", "bench.rescan_beside", "--serve", folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(30)


def fetched(url: str, path: str, body: dict[str, Any] | None = None) -> bytes:
    """Return what the gateway answers."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            headers = {"content-type": "application/json"}
            connection.request("POST", path, json.dumps(body), headers)
        return connection.getresponse().read()
    finally:
        connection.close()


class Paced:
    """Sends requests at a pace, from a thread."""

    def __init__(self, url: str, per_s: float) -> None:
        self._url, self._every = url, 1 / per_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.took: list[float] = []

    def _send(self) -> None:
        number = 0
        while not self._stop.wait(self._every):
            number += 1
            said = [{"role": "user", "content": f"How long does bread rest? ({number})"}]
            began = time.monotonic()
            fetched(self._url, "/v1/chat/completions", {"model": "any", "messages": said})
            self.took.append(time.monotonic() - began)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class EnoughError(Exception):
    """The phase is over."""


def scanned(job: ScanJob, seconds: float, processes: int) -> tuple[int, int]:
    """Scan for a while; return how many exchanges were judged, and how often it held back."""
    ScanWorker(job, "planner").queue.plan(LedgerReader.open(job.ledger), name="session")
    end, held = time.monotonic() + seconds, [0]
    busy = job.busy

    def told(_: UnitCounts) -> None:
        held[0] += busy(job.ledger)
        if time.monotonic() >= end:
            raise EnoughError

    with suppress(EnoughError):
        run_pool(job, RunLimits(processes=processes), told=told)
    return job.queue().counts().done * job.limits.unit_rows, held[0]


def quantile(grown: Buckets, share: float) -> float:
    """Return the least bound at or below which the share of the rows lies."""
    total = max(grown.values(), default=0.0)
    return next((b for b, count in sorted(grown.items()) if count >= share * total), 0.0)


class Phase(msgspec.Struct, frozen=True):
    """What one phase did to the gateway."""

    name: str
    rows: int
    median: float
    q99: float
    client_q99: float
    judged: int
    held: int


def phase(name: str, url: str, pace: float, work: Callable[[], tuple[int, int]]) -> Phase:
    """Measure the gateway while something else works."""
    before = buckets(fetched(url, "/metrics").decode())
    with Paced(url, pace) as paced:
        judged, held = work()
    now = buckets(fetched(url, "/metrics").decode())
    grown = {bound: count - before.get(bound, 0.0) for bound, count in now.items()}
    took = sorted(paced.took)
    return Phase(
        name=name,
        rows=int(max(grown.values(), default=0.0)),
        median=quantile(grown, 0.5),
        q99=quantile(grown, 0.99),
        client_q99=took[int(0.99 * (len(took) - 1))] if took else 0.0,
        judged=judged,
        held=held,
    )


def beside(seconds: float, pace: float, old: int, processes: int) -> Table:
    """Measure the three phases."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = f"{folder}/ledger.db"
        fill(ledger, [(f"a{n % 50}", f"How does rye bread rise? ({n})", False)
                      for n in range(old)])  # fmt: skip
        with gateway(folder) as url:

            def alone() -> tuple[int, int]:
                time.sleep(seconds)
                return 0, 0

            def job(name: str) -> ScanJob:
                limits = ScanLimits(unit_rows=20)
                monitor = f"{folder}/{name}.db"
                return ScanJob(ledger, monitor, ScannerSpec("session"), load_scanner, limits)

            found = [phase("alone", url, pace, alone)]
            above: list[tuple[str, Busy]] = [("re-scan that never holds back", never_busy)]
            for limit in (2 * found[0].q99, found[0].q99 / 2):
                name = f"re-scan that holds back above {limit * 1e3:g} ms"
                above.append((name, LedgerPressure(url, limit)))
            for name, busy in above:
                given = msgspec.structs.replace(job(f"m{len(found)}"), busy=busy)
                found.append(
                    phase(name, url, pace, lambda given=given: scanned(given, seconds, processes))  # type: ignore[misc]
                )
    return Table(
        "A re-scan beside a serving gateway: time until a row of the gateway is durable",
        ("beside", "rows", "median", "99 % quantile", "a request's 99 %", "judged", "held back"),
        tuple((o.name, str(o.rows), f"<= {o.median * 1e3:g} ms", f"<= {o.q99 * 1e3:g} ms",
               f"{o.client_q99 * 1e3:.0f} ms", str(o.judged), str(o.held)) for o in found),
        note=f"{seconds:g} s each, {pace:g} requests a second, {processes} scanning processes.",
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--pace", type=float, default=10.0)
    parser.add_argument("--old", type=int, default=2_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve)
    else:
        print(beside(asked.seconds, asked.pace, asked.old, asked.processes).markdown())
