"""The large run: a generator's calls and the scoring of its answers spread over many workers.

Workers only fill the book of paid calls and score; the leader makes the rows from the book as it
does alone. So the rows are those of one machine, for the same seed and answers, whatever was killed
and in whatever order the answers came.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec

from safehold.constitution import Constitution
from safehold.detect.runners.interface import Job, RunLimits, UnitCounts
from safehold.detect.runners.items import ItemEnded, ItemJob, Work
from safehold.errors import UpstreamError
from safehold.improve.synthesis.calls import CallBook
from safehold.improve.synthesis.cells import Cell
from safehold.improve.synthesis.chat import Chat, ChatSettings, session_for
from safehold.improve.synthesis.generator import ModelGenerator
from safehold.improve.synthesis.nonsense import Cells, told_apart
from safehold.improve.synthesis.pace import Pace
from safehold.improve.synthesis.paid_calls import SharedCalls
from safehold.progress import Progress

_SCORED_TOGETHER = 16
"""Cells that a worker scores as one item."""
_UPSTREAM = f"{UpstreamError.__name__}: "

Run = Callable[..., UnitCounts]
"""`run_pool` or `run_ray`."""


class AskedCell(msgspec.Struct, frozen=True):
    """An item: a cell, and the messages of its twin, which its own must differ from."""

    cell: Cell
    beside: tuple[str, ...]


class SpreadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Where the work is queued, what runs it, and how much each item may cost.

    Args:
        url: The database of items and answers; reachable from every worker.
        run: Starts the workers.
        limits: How many.
        lease_s: Seconds after which a worker's item is given to another one.
    """

    url: str
    run: Run
    limits: RunLimits
    lease_s: float = 1800.0


class Spread:
    """Has workers answer cells and score what was answered (`CellWorkers`)."""

    def __init__(
        self,
        plan: SpreadPlan,
        constitution: Constitution,
        settings: ChatSettings,
        book: CallBook,
        progress: Progress | None = None,
    ) -> None:
        """Take the plan, what to ask of which model, and the book that the leader reads."""
        self._plan = plan
        self._constitution = constitution
        self._settings = settings
        self._book = book
        self._progress = progress or Progress()
        self._calls = SharedCalls(plan.url)

    def ask(self, cells: Sequence[tuple[Cell, tuple[str, ...]]], seed: int) -> None:
        """Have every call of these cells answered; afterwards the answers stand in the book.

        Raises:
            UpstreamError: The model can't be reached; what was answered is kept.
            LedgerError: The database is gone.
        """
        self._calls.take(self._book)
        load = partial(load_asking, self._constitution, self._settings, self._plan.url, seed)
        items = [msgspec.json.encode(AskedCell(*one)).decode() for one in cells]
        try:
            ended = self._ended(load, items, "cells asked by workers")
        finally:
            self._calls.give(self._book)
        failed = [one.reason for one in ended if one.reason and one.reason.startswith(_UPSTREAM)]
        if failed:
            raise UpstreamError(failed[0].removeprefix(_UPSTREAM))

    def marks(self, cells: Cells, seed: int, anything: frozenset[str]) -> dict[str, list[float]]:
        """Return what `told_apart` says of these cells."""
        names = list(cells)
        items = [
            msgspec.json.encode(names[at : at + _SCORED_TOGETHER]).decode()
            for at in range(0, len(names), _SCORED_TOGETHER)
        ]
        given = {name: (group, tuple(pairs)) for name, (group, pairs) in cells.items()}
        found: dict[str, list[float]] = {}
        load = partial(load_scoring, given, seed, anything)
        for one in self._ended(load, items, "cells scored"):
            if one.result is not None:
                found |= msgspec.json.decode(one.result, type=dict[str, list[float]])
        left = [name for name in names if name not in found]
        if left:  # whose workers were lost
            found |= told_apart(cells, seed=seed, anything=anything, only=left)
        return {name: found[name] for name in names}

    def _ended(
        self, load: Callable[[Mapping[str, str]], Work], items: Sequence[str], what: str
    ) -> list[ItemEnded]:
        # What was asked before stands in the shared calls, so each go has a job of its own.
        job = ItemJob(
            url=self._plan.url,
            name=f"synth-{secrets.token_hex(8)}",
            load=load,
            lease_s=self._plan.lease_s,
        )
        queue = job.queue()
        queue.put(list(items))
        self._progress.start(what, len(items))
        done = 0

        def told(counts: UnitCounts) -> None:
            nonlocal done
            self._progress.advance(counts.done - done)
            done = counts.done

        begun: Job = job
        self._plan.run(begun, self._plan.limits, told=told)
        return list(queue.ended())


def load_asking(
    constitution: Constitution,
    settings: ChatSettings,
    url: str,
    seed: int,
    options: Mapping[str, str],
) -> Work:
    """Load what a worker needs to ask for cells."""
    del options
    calls = SharedCalls(url)
    generator = ModelGenerator("worker", constitution, settings, calls)

    pace = Pace(settings.concurrency, settings.timeout_s)

    async def asked(one: AskedCell) -> None:
        async with session_for(settings) as session:
            chat = Chat(session, settings, calls, pace=pace)
            await generator.run_cell(chat, one.cell, seed, one.beside)

    def work(item: str) -> str:
        asyncio.run(asked(msgspec.json.decode(item, type=AskedCell)))
        return ""

    return work


def load_scoring(
    cells: Cells, seed: int, anything: frozenset[str], options: Mapping[str, str]
) -> Work:
    """Load what a worker needs to score cells."""
    del options

    def work(item: str) -> str:
        only = msgspec.json.decode(item, type=list[str])
        return msgspec.json.encode(
            told_apart(cells, seed=seed, anything=anything, only=only)
        ).decode()

    return work
