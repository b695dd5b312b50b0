"""What a worker does with one unit, whichever runner started it."""

import time
from collections.abc import Callable

import msgspec

from safehold.detect.monitoring.scan.interface import (
    Loader,
    Postponed,
    ScanFinding,
    ScanLimits,
    Scanner,
    ScannerSpec,
    unscorable,
)
from safehold.detect.monitoring.scan.queue import UnitQueue, poisoned, read_unit
from safehold.detect.monitoring.tables import MonitorStore
from safehold.guard.interface import Failed
from safehold.guard.ledger.joined import Joined
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.session.drivers import guarded

_AWAY = 3
"""Units postponed in a row, after which the others wait unasked: what is asked is away."""
Busy = Callable[[str], bool]
"""Says of a ledger's URL whether whoever writes it is under pressure."""


def never_busy(ledger: str) -> bool:
    """Say that nobody is."""
    del ledger
    return False


class ScanJob(msgspec.Struct, frozen=True):
    """Everything that a worker process needs to begin; `load` must be importable by name."""

    ledger: str
    monitor: str
    spec: ScannerSpec
    load: Loader
    limits: ScanLimits = ScanLimits()
    busy: Busy = never_busy
    """Says whether the gateway's ledger is under pressure now: then the scan holds back."""

    def queue(self) -> UnitQueue:
        """Open the queue; a scanner that can't be loaded is told here, at once."""
        return ScanWorker(self, "leader").queue

    def worker(self, name: str) -> "ScanWorker":
        """Load the scanner in a worker's process."""
        return ScanWorker(self, name)

    def waits(self) -> bool:
        """Hold back while the gateway needs its ledger."""
        return self.busy(self.ledger)


class ScanWorker:
    """A loaded scanner beside the queue and the ledger."""

    def __init__(self, job: ScanJob, name: str) -> None:
        """Load the scanner; `name` tells this worker from every other one that ever was."""
        self.name = name
        self.scanner = job.load(job.spec)
        self.queue = UnitQueue(MonitorStore.open(job.monitor), self.scanner.digest, job.limits)
        self._reader = LedgerReader.open(job.ledger)
        self._away = 0

    def step(self) -> bool:
        """Do one unit; False when none is free now.

        Raises:
            LedgerError: the ledger or the monitor's database is gone; the unit stays whole.
        """
        unit = self.queue.claim(self.name, now=time.time())
        if unit is None:
            return False
        began = time.process_time()
        rows = read_unit(self._reader, unit)
        waiting: list[Joined] = []
        why = ""
        if self.queue.lost_too_often(unit):
            found = poisoned(rows)
        else:
            found = []
            for place, one in enumerate(rows):
                said = judged(self.scanner, one)
                if isinstance(said, Postponed):
                    waiting, why = rows[place:], said.why
                    break
                found.append((one, said))
        spent = time.process_time() - began
        if not waiting:
            self._away = 0
            self.queue.finish(unit, self.name, found, cpu_s=spent)
            return True
        seqs = [one.seq for one in waiting]
        self.queue.park(unit, self.name, found, seqs, why=why, cpu_s=spent)
        self._away += 1
        if self._away >= _AWAY:
            self.queue.park_open(why)
        return True


def judged(scanner: Scanner, one: Joined) -> ScanFinding | Postponed:
    """Return a scanner's finding; one that raises or answers nonsense leaves a reason."""
    found = guarded(scanner.scan, one)
    if isinstance(found, Postponed):
        return found
    if isinstance(found, Failed):
        return unscorable(found.reason)
    if not isinstance(found, ScanFinding) or not found.sound:
        return unscorable("BadScore")
    return found
