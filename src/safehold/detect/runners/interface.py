"""What a job gives its runner: a queue that knows what is left, and workers that do a step each.

The queue lives in a database and is the only place where work and results are. So every runner
gives the same rows, each once, and whatever is killed goes on where it was.
"""

import math
import multiprocessing
from collections.abc import Callable
from typing import Protocol

import msgspec


class UnitCounts(msgspec.Struct, frozen=True):
    """How many units are open, leased to a worker, done, and parked until the next run."""

    open: int
    leased: int
    done: int
    parked: int = 0

    @property
    def left(self) -> int:
        """How many units this run has still to do."""
        return self.open + self.leased


class WorkQueue(Protocol):
    """The units of one job, as the leader sees them."""

    def counts(self) -> UnitCounts:
        """Return how many units there are in each state."""
        ...

    def cpu_s(self) -> float:
        """Return the CPU seconds that the ended units took."""
        ...

    def release(self, worker: str) -> None:
        """Say that a worker is dead: its unit is free."""
        ...

    def overdue(self, *, now: float) -> set[str]:
        """Return the workers that have, or had, a unit for longer than its lease."""
        ...


class Worker(Protocol):
    """Does one unit after the other, in a process of its own."""

    def step(self) -> bool:
        """Do one unit; False when none is free now."""
        ...


class Job(Protocol):
    """Travels to worker processes: everything in it can be pickled."""

    def queue(self) -> WorkQueue:
        """Open the queue for the leader; a job that can't begin says so here."""
        ...

    def worker(self, name: str) -> Worker:
        """Load what a worker needs; `name` tells it from every worker that ever was."""
        ...

    def waits(self) -> bool:
        """Say whether to hold back now, for somebody who needs the machine more."""
        ...


class Workers(Protocol):
    """The running workers of one runner."""

    def bury(self) -> None:
        """Give on the units of the dead, and end who has one for longer than its lease."""
        ...

    def fill(self, number: int, *, done: int) -> None:
        """Start workers up to a number; refuse to do so for ever while none ends a unit."""
        ...

    def end(self) -> None:
        """Stop every worker; what it had begun is free again."""
        ...


class RunLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many workers, and after how many CPU seconds no more units are begun."""

    processes: int = multiprocessing.cpu_count()
    budget_cpu_s: float = math.inf


Told = Callable[[UnitCounts], None]
Started = Callable[[int], None]
"""Is told each worker's process id."""
