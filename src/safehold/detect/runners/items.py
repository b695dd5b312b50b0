"""A queue of items for any job that is not a scan: text in, text out, each result once.

`put` names the items; a worker takes one under a lease and its result is written by the statement
that ends it. An item that costs `losses` workers ends without a result, with the reason.
"""

import time
from collections.abc import Callable, Iterator, Mapping

import msgspec
from sqlalchemy import (
    Column,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from safehold.detect.runners.interface import UnitCounts
from safehold.errors import SafeholdError
from safehold.guard.ledger.engine import told
from safehold.guard.ledger.own_tables import open_tables

_METADATA = MetaData()
_ITEMS = Table(
    "runner_items",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("job", String, nullable=False, index=True),
    Column("item", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("lease", Double, nullable=False),
    Column("worker", String, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("cpu_s", Double, nullable=False),
    Column("result", String),
    Column("reason", String),
    UniqueConstraint("job", "item"),
)
_LOST = Table("runner_lost", _METADATA, Column("worker", String, primary_key=True))
"""Workers whose item another one took because their lease ran out; their leader ends them."""
_STEPS = ("CREATE TABLE runner_lost (worker TEXT NOT NULL PRIMARY KEY);",)

Work = Callable[[str], str]
"""Turns an item into its result; what it raises of our errors is the item's reason."""


class ItemEnded(msgspec.Struct, frozen=True):
    """One item that ended: with a result, or with the reason why there is none."""

    item: str
    result: str | None
    reason: str | None


class ItemJob(msgspec.Struct, frozen=True, kw_only=True):
    """Items by name of a job, and what loads the work; `load` must be importable by name."""

    url: str
    name: str
    load: Callable[[Mapping[str, str]], Work]
    options: Mapping[str, str] = {}
    lease_s: float = 300.0
    losses: int = 3

    def queue(self) -> "ItemQueue":
        """Open the queue.

        Raises:
            LedgerError: the database can't be used.
        """
        return ItemQueue(self)

    def worker(self, name: str) -> "ItemWorker":
        """Load the work."""
        return ItemWorker(self, name)

    def waits(self) -> bool:
        """Never hold back."""
        return False


class ItemQueue:
    """The items of one job in a database."""

    def __init__(self, job: ItemJob) -> None:
        """Open the database and make its table where there is none."""
        self._job = job
        self._engine = open_tables(job.url, _METADATA, name="runner", steps=_STEPS)
        self._mine = _ITEMS.c.job == job.name

    def put(self, items: Iterator[str] | list[str]) -> int:
        """Add the items that are not there yet; return how many."""
        with told(self._engine), self._engine.begin() as connection:
            known = set(connection.execute(select(_ITEMS.c.item).where(self._mine)).scalars())
            fresh = [one for one in dict.fromkeys(items) if one not in known]
            empty = {"state": "open", "lease": 0.0, "worker": "", "losses": 0, "cpu_s": 0.0}
            rows = [{"job": self._job.name, "item": one, **empty} for one in fresh]
            if rows:
                connection.execute(insert(_ITEMS), rows)
            return len(rows)

    def claim(self, worker: str, *, now: float) -> tuple[int, str] | None:
        """Take the oldest item that is open or whose worker is lost."""
        with told(self._engine), self._engine.begin() as connection:
            while True:
                lost = (_ITEMS.c.lease < now) | (_ITEMS.c.lease > now + 2 * self._job.lease_s)
                free = or_(_ITEMS.c.state == "open", (_ITEMS.c.state == "leased") & lost)
                query = select(_ITEMS).where(self._mine, free).order_by(_ITEMS.c.id).limit(1)
                if self._engine.dialect.name == "postgresql":
                    query = query.with_for_update(skip_locked=True)
                row = connection.execute(query).one_or_none()
                if row is None:
                    return None
                if row.state == "leased" and row.lease:  # not one whose leader gave it back
                    connection.execute(delete(_LOST).where(_LOST.c.worker == row.worker))
                    connection.execute(insert(_LOST), {"worker": row.worker})
                losses = row.losses + (row.state == "leased")
                here = update(_ITEMS).where(_ITEMS.c.id == row.id)
                if losses >= self._job.losses:
                    connection.execute(here.values(state="done", reason="LostWorkers"))
                    continue
                changes = {"state": "leased", "worker": worker, "losses": losses}
                connection.execute(here.values(**changes, lease=now + self._job.lease_s))
                return int(row.id), str(row.item)

    def finish(
        self, number: int, worker: str, *, result: str | None, reason: str | None, cpu_s: float
    ) -> bool:
        """End an item; False when it is not the worker's any more."""
        with told(self._engine), self._engine.begin() as connection:
            ours = update(_ITEMS).where(
                _ITEMS.c.id == number, _ITEMS.c.worker == worker, _ITEMS.c.state == "leased"
            )
            values = {"state": "done", "result": result, "reason": reason, "cpu_s": cpu_s}
            return bool(connection.execute(ours.values(**values)).rowcount)

    def ended(self) -> Iterator[ItemEnded]:
        """Yield every item that ended, in the order in which they were put."""
        query = select(_ITEMS).where(self._mine, _ITEMS.c.state == "done").order_by(_ITEMS.c.id)
        with told(self._engine), self._engine.begin() as connection:
            for row in connection.execute(query):
                yield ItemEnded(row.item, row.result, row.reason)

    def counts(self) -> UnitCounts:
        """Return how many items there are in each state."""
        query = select(_ITEMS.c.state, func.count()).where(self._mine).group_by(_ITEMS.c.state)
        with told(self._engine), self._engine.begin() as connection:
            found = {str(row[0]): int(row[1]) for row in connection.execute(query)}
        return UnitCounts(found.get("open", 0), found.get("leased", 0), found.get("done", 0))

    def cpu_s(self) -> float:
        """Return the CPU seconds of the items that ended."""
        with told(self._engine), self._engine.begin() as connection:
            spent = select(func.coalesce(func.sum(_ITEMS.c.cpu_s), 0.0)).where(self._mine)
            return float(connection.execute(spent).scalar_one())

    def release(self, worker: str) -> None:
        """Say that a worker is dead: its item is free."""
        held = update(_ITEMS).where(
            self._mine, _ITEMS.c.worker == worker, _ITEMS.c.state == "leased"
        )
        with told(self._engine), self._engine.begin() as connection:
            connection.execute(held.values(lease=0.0))
            connection.execute(delete(_LOST).where(_LOST.c.worker == worker))

    def overdue(self, *, now: float) -> set[str]:
        """Return the workers that have, or had, an item for longer than its lease."""
        query = select(_ITEMS.c.worker).where(
            self._mine, _ITEMS.c.state == "leased", _ITEMS.c.lease < now
        )
        with told(self._engine), self._engine.begin() as connection:
            found = set(connection.execute(query).scalars())
            return found | set(connection.execute(select(_LOST.c.worker)).scalars())


class ItemWorker:
    """The loaded work beside the queue."""

    def __init__(self, job: ItemJob, name: str) -> None:
        """Load it; `name` tells this worker from every other one."""
        self._queue, self._name, self._work = ItemQueue(job), name, job.load(job.options)

    def step(self) -> bool:
        """Do one item; False when none is free now.

        Raises:
            LedgerError: the database is gone; the item stays whole.
        """
        taken = self._queue.claim(self._name, now=time.time())
        if taken is None:
            return False
        number, item = taken
        began = time.process_time()
        result: str | None = None
        reason = None
        try:
            result = self._work(item)
        except SafeholdError as error:
            reason = f"{type(error).__name__}: {error}"[:400]
        spent = time.process_time() - began
        self._queue.finish(number, self._name, result=result, reason=reason, cpu_s=spent)
        return True
