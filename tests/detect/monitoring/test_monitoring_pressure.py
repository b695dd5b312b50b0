"""Back-pressure: a scan holds back while the gateway's ledger is slow, and goes on afterwards."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from safehold.detect.monitoring.scan.interface import ScanLimits, ScannerSpec
from safehold.detect.monitoring.scan.pressure import METRIC, LedgerPressure, buckets, quantile
from safehold.detect.monitoring.scan.work import ScanJob, ScanWorker
from safehold.detect.monitoring.tables import MonitorStore
from safehold.detect.runners.interface import RunLimits
from safehold.detect.runners.pool import run_pool
from safehold.errors import ConfigError, LedgerError
from safehold.guard.gateway.operate.metrics import Metrics
from safehold.guard.ledger.engine import open_engine
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.monitoring import fill, load_hash_scanner


def told(metrics: Metrics) -> dict[float, float]:
    """Return the histogram as the gateway tells it."""
    return buckets(metrics.text().decode())


def test_the_quantile_is_of_what_came_since_the_last_look() -> None:
    """A slow past does not count; few rows and counters that began anew say nothing."""
    metrics = Metrics()
    for _ in range(100):
        metrics.ledger_took(2.0)
    slow = told(metrics)
    for _ in range(1_000):
        metrics.ledger_took(0.002)
    fast = told(metrics)
    assert quantile({}, slow) == 2.5
    assert quantile(slow, fast) <= 0.0025
    assert quantile(fast, slow) is None
    assert quantile(slow, slow) is None


@contextmanager
def gateway(metrics: Metrics) -> Iterator[str]:
    """Serve a gateway's metrics."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = metrics.text()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_slow_ledger_is_pressure_and_a_fast_or_missing_gateway_none() -> None:
    """Each look is of the rows since the last; who is not there needs nothing."""
    metrics, clock = Metrics(), iter(range(0, 100, 3))
    with gateway(metrics) as url:
        pressure = LedgerPressure(url, 0.25, lambda: float(next(clock)))
        assert not pressure("l")
        for _ in range(50):
            metrics.ledger_took(0.9)
        assert pressure("l")
        for _ in range(5_000):
            metrics.ledger_took(0.001)
        assert not pressure("l")
    assert not pressure("l")
    for url, limit in (("ftp://x", 1.0), ("http://x", 0.0), ("http://x", float("nan"))):
        with pytest.raises(ConfigError):
            LedgerPressure(url, limit)
    assert METRIC.encode() in metrics.text()


class Busy:
    """Is busy for a number of looks, and counts what was done meanwhile."""

    def __init__(self, looks: int, done: Callable[[], int]) -> None:
        self._left, self._done = looks, done
        self.seen: list[int] = []

    def __call__(self, ledger: str) -> bool:
        """Say so."""
        assert ledger
        self._left -= 1
        if self._left >= 0:
            self.seen.append(self._done())
        return self._left >= 0

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """Travel to workers without what only the leader asks."""
        return _calm, ()


def _calm() -> Callable[[str], bool]:
    return bool


def test_a_scan_begins_nothing_while_it_holds_back(tmp_path: Path) -> None:
    """Two looks under pressure: no unit is done in them; then all are."""
    paths = str(tmp_path / "l.db"), str(tmp_path / "m.db")
    fill(paths[0], [("a", f"text {n}", False) for n in range(8)])
    limits = ScanLimits(unit_rows=2)
    job = ScanJob(*paths, ScannerSpec("hash"), load_hash_scanner, limits)
    worker = ScanWorker(job, "planner")
    worker.queue.plan(LedgerReader.open(paths[0]), name="hash")
    busy = Busy(2, lambda: worker.queue.counts().done)
    held = ScanJob(*paths, ScannerSpec("hash"), load_hash_scanner, limits, busy)
    assert run_pool(held, RunLimits(processes=1)).done == 4
    assert busy.seen == [0, 0]


def test_foreign_tables_are_refused_by_name(tmp_path: Path) -> None:
    """A monitor's database of another release, and a ledger that is none, say what they are."""
    monitor = str(tmp_path / "m.db")
    MonitorStore.open(monitor)
    engine = open_engine(monitor, wait_s=1.0, write=True)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE monitor_schema SET version = 99")
    with pytest.raises(LedgerError, match="version 99"):
        MonitorStore.open(monitor)
    other = str(tmp_path / "other.db")
    MonitorStore.open(other)
    job = ScanJob(other, other, ScannerSpec("hash"), load_hash_scanner)
    with pytest.raises(LedgerError):
        ScanWorker(job, "w").queue.plan(LedgerReader.open(other), name="hash")


def test_a_monitor_that_vanishes_ends_the_run_with_its_name(tmp_path: Path) -> None:
    """The error names the database; the ledger is untouched."""
    paths = str(tmp_path / "l.db"), str(tmp_path / "m.db")
    fill(paths[0], [("a", "text", False)])
    job = ScanJob(*paths, ScannerSpec("hash"), load_hash_scanner)
    worker = ScanWorker(job, "w")
    worker.queue.plan(LedgerReader.open(paths[0]), name="hash")
    for file in tmp_path.glob("m.db*"):
        file.unlink()
    with pytest.raises(LedgerError, match=r"m\.db"):
        worker.step()
