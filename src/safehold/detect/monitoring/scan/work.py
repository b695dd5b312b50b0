"""What a worker does with one unit, whichever runner started it."""

import time

import msgspec

from safehold.detect.monitoring.scan.interface import (
    Finding,
    Loader,
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
from safehold.guard.session.flow import guarded


class ScanJob(msgspec.Struct, frozen=True):
    """Everything that a worker process needs to begin; `load` must be importable by name."""

    ledger: str
    monitor: str
    spec: ScannerSpec
    load: Loader
    limits: ScanLimits = ScanLimits()


class ScanWorker:
    """A loaded scanner beside the queue and the ledger."""

    def __init__(self, job: ScanJob, name: str) -> None:
        """Load the scanner; `name` tells this worker from every other one that ever was."""
        self.name = name
        self.scanner = job.load(job.spec)
        self.queue = UnitQueue(MonitorStore.open(job.monitor), self.scanner.digest, job.limits)
        self._reader = LedgerReader.open(job.ledger)

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
        if self.queue.lost_too_often(unit):
            found = poisoned(rows)
        else:
            found = [(one, judged(self.scanner, one)) for one in rows]
        self.queue.finish(unit, self.name, found, cpu_s=time.process_time() - began)
        return True


def judged(scanner: Scanner, one: Joined) -> Finding:
    """Return a scanner's finding; one that raises or answers nonsense leaves a reason."""
    found = guarded(scanner.scan, one)
    if isinstance(found, Failed):
        return unscorable(found.reason)
    if not isinstance(found, Finding) or not found.sound:
        return unscorable("BadScore")
    return found
