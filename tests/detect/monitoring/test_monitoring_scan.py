"""Re-scan: every exchange once, whatever is killed, hangs or lies."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from safehold.detect.monitoring.scan.coverage import scan_coverage
from safehold.detect.monitoring.scan.interface import ScanLimits, ScannerSpec, Unit
from safehold.detect.monitoring.scan.queue import UnitQueue
from safehold.detect.monitoring.scan.scanners import load_scanner
from safehold.detect.monitoring.scan.work import ScanJob, ScanWorker
from safehold.detect.monitoring.tables import RESULTS, UNITS, MonitorStore
from safehold.detect.runners.interface import RunLimits
from safehold.detect.runners.pool import run_pool
from safehold.errors import LedgerError, UsageError
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.judge import JudgeServer, by_words
from safehold.testing.monitoring import LIES, fill, load_hash_scanner

_ROWS = 400


@pytest.fixture(params=["sqlite", "postgresql"])
def job(request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[[], str]) -> ScanJob:
    """A job over an empty ledger of each storage."""
    if request.param == "sqlite":
        urls = str(tmp_path / "ledger.db"), str(tmp_path / "monitor.db")
    else:
        urls = new_database(), new_database()
    limits = ScanLimits(unit_rows=10, lease_s=60.0)
    return ScanJob(*urls, ScannerSpec("hash", {"pause_s": "0.002"}), load_hash_scanner, limits)


def _plan(job: ScanJob) -> UnitQueue:
    worker = ScanWorker(job, "planner")
    worker.queue.plan(LedgerReader.open(job.ledger), name="hash")
    return worker.queue


def _results(job: ScanJob) -> list[tuple[object, ...]]:
    with MonitorStore.open(job.monitor).begin() as connection:
        query = select(RESULTS).order_by(RESULTS.c.seq)
        return [tuple(row) for row in connection.execute(query)]


def test_killed_workers_lose_and_double_nothing(job: ScanJob, tmp_path: Path) -> None:
    """Workers are killed at random; each exchange has one row, equal to an undisturbed run's."""
    fill(job.ledger, [(f"a{i % 7}", f"text {i}", False) for i in range(_ROWS)])
    _plan(job)
    pids: list[int] = []
    stop, kills = threading.Event(), [0]
    chance = random.Random(5)

    def kill() -> None:
        while not stop.wait(0.4) and kills[0] < 6:
            if pids:
                try:
                    os.kill(pids.pop(chance.randrange(len(pids))), signal.SIGKILL)
                    kills[0] += 1
                except ProcessLookupError:
                    continue

    killer = threading.Thread(target=kill)
    killer.start()
    counts = run_pool(job, RunLimits(processes=2), started=pids.append)
    stop.set()
    killer.join()
    assert counts.done == _ROWS // 10
    disturbed = _results(job)
    assert len(disturbed) == _ROWS
    calm = ScanJob(job.ledger, str(tmp_path / "calm.db"), job.spec, job.load, job.limits)
    _plan(calm)
    worker = ScanWorker(calm, "one")
    while worker.step():
        pass
    assert _results(calm) == disturbed


def test_a_row_that_kills_hangs_or_lies_is_unscorable_and_alone(tmp_path: Path) -> None:
    """The neighbours of a poison row are scored; the row itself says why it is not."""
    texts = ["fine 0", "kills me", "fine 1", "lies", "breaks", "fine 2"]
    limits = ScanLimits(unit_rows=6, lease_s=60.0, losses=1)
    paths = str(tmp_path / "l.db"), str(tmp_path / "m.db")
    job = ScanJob(*paths, ScannerSpec("hash"), load_hash_scanner, limits)
    fill(job.ledger, [("a", text, False) for text in texts])
    _plan(job)
    run_pool(job, RunLimits(processes=1))
    found = [(row[5], row[8]) for row in _results(job)]
    assert [value is not None for value, _ in found] == [True, False, True, False, False, True]
    assert [why for _, why in found if why] == ["LostWorkers", "BadScore", "RuntimeError"]


@pytest.mark.parametrize("lie", LIES)
def test_whatever_no_scanner_may_answer_is_unscorable(lie: str, tmp_path: Path) -> None:
    """Each kind of lie leaves a reason and no value; its neighbour is scored."""
    paths = str(tmp_path / "l.db"), str(tmp_path / "m.db")
    job = ScanJob(*paths, ScannerSpec("hash"), load_hash_scanner)
    fill(job.ledger, [("a", lie, False), ("a", "fine", False)])
    _plan(job)
    assert ScanWorker(job, "w").step()
    assert [(row[5] is None, row[8]) for row in _results(job)] == [
        (True, "BadScore"),
        (False, None),
    ]


def test_a_scanner_that_hangs_is_killed_at_the_end_of_its_lease(tmp_path: Path) -> None:
    """A hang costs leases, never the run."""
    limits = ScanLimits(unit_rows=2, lease_s=3.0, losses=1)
    paths = str(tmp_path / "l.db"), str(tmp_path / "m.db")
    job = ScanJob(*paths, ScannerSpec("hash"), load_hash_scanner, limits)
    fill(job.ledger, [("a", "hangs me", False), ("a", "fine", False)])
    _plan(job)
    run_pool(job, RunLimits(processes=1))
    assert [row[5] is None for row in _results(job)] == [True, False]


def test_a_hung_worker_whose_unit_another_took_is_ended(tmp_path: Path) -> None:
    """It holds no unit any more and still takes its place: the next unit would wait for ever."""
    limits = ScanLimits(unit_rows=1, lease_s=60.0)
    paths = str(tmp_path / "l.db"), str(tmp_path / "m.db")
    job = ScanJob(*paths, ScannerSpec("hash"), load_hash_scanner, limits)
    fill(job.ledger, [("a", "hangs me", False), ("a", "fine", False)])
    queue = _plan(job)

    def taken() -> None:
        while not queue.counts().leased:
            time.sleep(0.05)
        unit = queue.claim("elsewhere", now=time.time() + 61)
        assert unit is not None
        assert queue.finish(unit, "elsewhere", [])

    thief = threading.Thread(target=taken)
    thief.start()
    assert run_pool(job, RunLimits(processes=1)).done == 2
    thief.join()
    assert len(_results(job)) == 1
    assert queue.overdue(now=time.time()) == set()


def test_a_worker_that_lost_its_lease_can_not_commit(job: ScanJob) -> None:
    """Two workers end the same unit: the one whose lease ran out leaves no row."""
    fill(job.ledger, [("a", "text", False)])
    queue = _plan(job)
    first = queue.claim("slow", now=time.time())
    assert isinstance(first, Unit)
    assert queue.claim("fast", now=time.time()) is None
    second = queue.claim("fast", now=time.time() + 61)
    assert second == first
    assert queue.overdue(now=time.time()) == {"slow"}
    queue.release("slow")
    assert queue.overdue(now=time.time()) == set()
    queue.release("fast")
    assert queue.claim("fast", now=time.time()) == first
    assert queue.overdue(now=time.time()) == set()
    assert not queue.finish(first, "slow", [])
    assert queue.finish(first, "fast", [])
    assert not queue.finish(first, "fast", [])


def test_a_clock_set_back_frees_leases(job: ScanJob) -> None:
    """A lease further ahead than any lease could be counts as lost."""
    fill(job.ledger, [("a", "text", False)])
    queue = _plan(job)
    assert queue.claim("future", now=time.time() + 1e6)
    assert queue.claim("now", now=time.time())


def test_planning_again_cuts_only_what_is_new(job: ScanJob) -> None:
    """A second plan over the same ledger makes no unit."""
    fill(job.ledger, [("a", f"t{i}", False) for i in range(25)])
    queue = _plan(job)
    assert queue.counts().open == 3
    _plan(job)
    assert queue.counts().open == 3


def test_a_vanished_ledger_leaves_the_unit_whole(tmp_path: Path) -> None:
    """The error names the ledger; the unit is not ended."""
    paths = str(tmp_path / "l.db"), str(tmp_path / "m.db")
    job = ScanJob(*paths, ScannerSpec("hash"), load_hash_scanner)
    fill(job.ledger, [("a", "text", False)])
    queue = _plan(job)
    worker = ScanWorker(job, "w")
    for file in tmp_path.glob("l.db*"):
        file.unlink()
    with pytest.raises(LedgerError):
        worker.step()
    assert queue.counts().done == 0


def test_a_spent_budget_ends_the_run_with_units_left(tmp_path: Path) -> None:
    """No CPU second is taken beyond the budget's."""
    limits = ScanLimits(unit_rows=1)
    paths = str(tmp_path / "l.db"), str(tmp_path / "m.db")
    job = ScanJob(*paths, ScannerSpec("hash"), load_hash_scanner, limits)
    fill(job.ledger, [("a", "text", False)])
    _plan(job)
    assert run_pool(job, RunLimits(processes=1, budget_cpu_s=0.0)).open == 1


def test_the_whole_guard_scans_what_was_served(tmp_path: Path) -> None:
    """The stock bundle in a session gives every exchange a value."""
    paths = str(tmp_path / "l.db"), str(tmp_path / "m.db")
    job = ScanJob(*paths, ScannerSpec("session"), load_scanner)
    fill(job.ledger, [("a", "what is a good name for a cat?", False)])
    worker = ScanWorker(job, "w")
    worker.queue.plan(LedgerReader.open(job.ledger), name="session")
    assert worker.step()
    assert [row[6] for row in _results(job)] == ["allow"]


def test_an_unknown_scanner_is_refused() -> None:
    """The message names those that there are."""
    with pytest.raises(UsageError, match="session"):
        load_scanner(ScannerSpec("nonsense"))


def _judge(folder: Path, server: JudgeServer, **options: str) -> ScanJob:
    spec = ScannerSpec("judge", {"url": server.url, "model": "m", **options})
    paths = str(folder / "l.db"), str(folder / "m.db")
    return ScanJob(*paths, spec, load_scanner, ScanLimits(unit_rows=4))


def _labels(job: ScanJob) -> list[object]:
    return [row[6] for row in _results(job)]


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_a_judge_that_is_away_judges_nothing_and_is_asked_again(
    status: int, tmp_path: Path
) -> None:
    """Nothing is kept as judged; three units are asked, the others wait; then each row is there."""
    with JudgeServer(by_words("unheard")) as server:
        job = _judge(tmp_path, server)
        fill(job.ledger, [("a", f"text {n}", False) for n in range(24)])
        queue = _plan(job)
        server.status = status
        worker = ScanWorker(job, "w")
        while worker.step():
            pass
        assert _results(job) == []
        counts = queue.counts()
        assert (counts.left, counts.done, counts.parked) == (0, 0, 9)
        assert queue.parked_why() == f"judge: expected status 200, came {status}"
        assert len({one["messages"][-1]["content"] for one in server.asked}) == 6, "prompt, reply"
        assert [one.waiting for one in scan_coverage(MonitorStore.open(job.monitor))] == [24]
        server.status = 200
        _plan(job)
        while worker.step():
            pass
    assert _labels(job) == ["allow"] * 24
    assert queue.counts().parked == 0
    assert queue.counts().left == 0


def test_an_exchange_that_can_never_be_asked_about_holds_up_no_other(tmp_path: Path) -> None:
    """It waits alone, scan after scan; what was judged before and behind it is kept."""
    with JudgeServer(by_words("unheard")) as server:
        job = _judge(tmp_path, server)
        fill(job.ledger, [("a", "bad" if n == 5 else f"text {n}", False) for n in range(12)])
        server.fails = "bad"
        for _ in range(3):
            queue = _plan(job)
            worker = ScanWorker(job, "w")
            while worker.step():
                pass
    assert _labels(job) == ["allow"] * 11
    assert queue.counts().parked == 1
    with MonitorStore.open(job.monitor).begin() as connection:
        parked = connection.execute(select(UNITS).where(UNITS.c.state == "parked")).one()
    assert parked.row_count == 1


def test_a_request_that_the_judge_refuses_is_unscorable(tmp_path: Path) -> None:
    """A status about one request is an answer: it is not asked about again."""
    with JudgeServer(by_words("unheard"), status=400) as server:
        job = _judge(tmp_path, server)
        fill(job.ledger, [("a", "text", False)])
        queue = _plan(job)
        assert ScanWorker(job, "w").step()
    assert _labels(job) == ["unscorable"]
    assert queue.counts().parked == 0


def test_a_worker_that_lost_its_lease_can_not_park(job: ScanJob) -> None:
    """The unit of another worker stays whole, with its results."""
    fill(job.ledger, [("a", f"t{n}", False) for n in range(3)])
    queue = _plan(job)
    first = queue.claim("slow", now=time.time())
    assert isinstance(first, Unit)
    assert queue.claim("fast", now=time.time() + 61) == first
    assert not queue.park(first, "slow", [], [first.first], why="away")
    assert queue.finish(first, "fast", [])
    assert queue.counts().parked == 0


def test_what_the_first_scanner_has_not_seen_waits(tmp_path: Path) -> None:
    """The judge of a top share asks about new exchanges once their value is there."""
    with JudgeServer(by_words("unheard")) as server:
        monitor = str(tmp_path / "m.db")
        hashed = ScanJob(str(tmp_path / "l.db"), monitor, ScannerSpec("hash"), load_hash_scanner)
        job = _judge(tmp_path, server, of="hash:1", floor="0", monitor=monitor)
        fill(job.ledger, [("a", f"t{n}", False) for n in range(2)])
        for one in (job, hashed, job):
            _plan(one)
            worker = ScanWorker(one, "w")
            while worker.step():
                pass
    with MonitorStore.open(monitor).begin() as connection:
        rows = connection.execute(select(RESULTS).where(RESULTS.c.scanner != "hash:1")).all()
    assert [row.label for row in rows] == ["allow", "allow"]
