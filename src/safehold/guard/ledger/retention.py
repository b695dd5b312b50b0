"""Ending what a dead writer left open, and removing what is too old to keep."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    delete,
    func,
    select,
    union,
    update,
)

from safehold.errors import LedgerError, UsageError
from safehold.exchange import Lane
from safehold.guard.ledger.codec import to_columns, to_entry
from safehold.guard.ledger.coverage import SETTLED, StallLimits, unfinished
from safehold.guard.ledger.engine import open_engine, told
from safehold.guard.ledger.interface import (
    Delivered,
    Detail,
    EventKind,
    EventRow,
    FinalRow,
    LedgerSettings,
    LedgerVerdict,
    Outcome,
    ProgressRow,
    RowSink,
)
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.schema import (
    EVENTS,
    FINALS,
    HEAD,
    HOLDS,
    PROGRESS,
    PROMPTS,
    check_version,
)
from safehold.guard.ledger.sqlite_log import empty_log, leave_syncing
from safehold.guard.ledger.writer import keep

SHORTEST_RETENTION_S = 3600.0
"""Younger rows may belong to a stream that still runs."""

_PAGE = 400
"""Decisions that are looked up at once."""
_HOLD_S = 0.01
"""How long a transaction should hold the write lock: the next one is made to fit."""
_FEWEST, _FIRST, _MOST = 5, 50, 400
"""Decisions of a transaction: at least, at first, at most."""
_PAUSE_S = (0.01, 0.5)
"""The shortest and the longest pause between two transactions."""


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What a pruning removed; with `dry_run`, what it would remove (`rows` is then 0)."""

    cutoff: float
    decisions: int
    rows: int
    dry_run: bool


Journalled = Mapping[str, FinalRow]
"""What the journals of crashed gateways prove: a final row by decision id."""


async def settle(
    ledger: RowSink,
    reader: LedgerReader,
    *,
    now: float,
    limits: StallLimits,
    journalled: Journalled | None,
) -> list[str]:
    """Give every exchange of a dead writer its final row and return their decision ids.

    The row has the outcome `error`, the error name `WriterDied`, and as delivered text what the
    journal holds, else what the progress rows hold: an upper bound of what the client received,
    all of it scored. `journalled` is None where there is no journal to read: then an exchange that
    has no progress rows either is left as it is, because nobody knows what it delivered.

    Raises:
        LedgerError: the ledger can't be read or written; or an exchange's delivered text is
            unknown (`journalled` is None), and nothing was settled.
    """
    with reader.snapshot() as connection:
        crashed = [
            left.decision_id
            for left in unfinished(connection, now=now, limits=limits)
            if left.why == "crashed"
        ]
        finals = [_last_words(connection, decision_id, now) for decision_id in crashed]
    unknown = [row.decision_id for row in finals if journalled is None and not row.delivered]
    if unknown:
        raise LedgerError(
            f"{len(unknown)} exchanges of a dead writer have no record here of what they "
            f"delivered ({unknown[0]}, …); expected the gateway's journal: name its folder with "
            "--journal, or start the gateway, which reads it"
        )
    finals = [
        (journalled or {}).get(row.decision_id, row) if not row.delivered else row for row in finals
    ]
    for final in finals:
        await ledger.append(final)
    if crashed:
        await ledger.append(
            EventRow(at=now, kind=EventKind.SETTLE, detail={"decisions": len(crashed)})
        )
    return crashed


def _last_words(connection: Connection, decision_id: str, now: float) -> FinalRow:
    texts: dict[Lane, str] = {}
    query = select(PROGRESS).where(PROGRESS.c.decision_id == decision_id).order_by(PROGRESS.c.seq)
    for columns in connection.execute(query).mappings():
        row = to_entry(ProgressRow, dict(columns)).row
        if isinstance(row, ProgressRow):
            texts[row.lane] = texts.get(row.lane, "") + row.text
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts.values())
    return FinalRow(
        decision_id=decision_id,
        at=now,
        outcome=Outcome.ERROR,
        verdict=LedgerVerdict.UNSCORED,
        delivered=tuple(Delivered(lane=lane, text=text) for lane, text in texts.items()),
        delivered_bytes=size,
        scored_bytes=size,
        error=SETTLED,
    )


def prune(
    url: str,
    *,
    older_than_s: float,
    dry_run: bool = False,
    clock: Callable[[], float] = time.time,
    settings: LedgerSettings = LedgerSettings(),
    progress: Callable[[int], None] = lambda _: None,
) -> Pruned:
    """Remove the decisions whose last row is older than this many seconds and that nobody holds.

    Events stay: they hold no content, and they are the record of what was pruned. One event says
    what is about to go, before it does; one says what went. Rows go in small transactions, so
    that a gateway that writes meanwhile waits for milliseconds. SQLite overwrites what it frees;
    in PostgreSQL the space is freed by its own vacuum.

    Raises:
        UsageError: the period is shorter than an hour: its streams may still run.
        LedgerError: the ledger can't be read or written; what was removed so far is recorded.
    """
    if not older_than_s >= SHORTEST_RETENTION_S:
        raise UsageError(
            f"expected to keep at least {SHORTEST_RETENTION_S:.0f} s, came {older_than_s:.0f} s"
        )
    cutoff = clock() - older_than_s
    reading = open_engine(url, wait_s=settings.wait_s, write=False)
    writer = secrets.token_hex(8)
    limit = settings.max_row_bytes
    now = clock()
    with told(reading), reading.connect() as connection:  # no write lock
        check_version(connection)
        due = select(func.count()).select_from(_due(cutoff, now).subquery())
        decisions: int = connection.execute(due).scalar_one()
    if dry_run or not decisions:
        return Pruned(cutoff=cutoff, decisions=decisions, rows=0, dry_run=dry_run)
    engine = open_engine(url, wait_s=settings.wait_s, write=True)
    with told(engine), engine.begin() as connection:
        detail: Detail = {"phase": "begin", "cutoff": cutoff, "decisions": decisions}
        _event(connection, writer, detail, now=clock(), limit=limit)
    rows = _remove_all(reading, engine, cutoff, now, progress)
    with told(engine), engine.begin() as connection:
        detail = {"phase": "end", "cutoff": cutoff, "decisions": decisions, "rows": rows}
        _event(connection, writer, detail, now=clock(), limit=limit)
    empty_log(engine, wait_s=settings.wait_s)
    return Pruned(cutoff=cutoff, decisions=decisions, rows=rows, dry_run=False)


def _remove_all(
    reading: Engine, engine: Engine, cutoff: float, now: float, progress: Callable[[int], None]
) -> int:
    """Remove what is due in small transactions, each of which looks once more at its own few.

    A gateway that waits for the write lock looks for it at intervals of up to 0.1 s. So the lock is
    held for about 10 ms, and is free for at least as long as it was held: half of the time, however
    slow the machine is.
    """
    rows, size = 0, _FIRST
    with told(engine), engine.connect() as connection:
        leave_syncing(connection)
        for page in _pages(reading, cutoff):
            at = 0
            while at < len(page):
                some = page[at : at + size]
                at += len(some)
                with connection.begin():
                    began = time.monotonic()
                    removed = _remove(connection, cutoff, now, some)
                held = time.monotonic() - began
                rows += removed
                progress(len(some))
                time.sleep(_pause(held))
                size = _next_size(len(some), held)
    return rows


def _remove(connection: Connection, cutoff: float, now: float, some: Sequence[str]) -> int:
    batch = connection.execute(_due(cutoff, now, some)).scalars().all()
    removed = sum(
        connection.execute(delete(table).where(table.c.decision_id.in_(batch))).rowcount
        for table in (PROGRESS, FINALS, PROMPTS)
    )
    if removed:
        connection.execute(update(HEAD).values(pruned=HEAD.c.pruned + removed))
    return removed


def _pause(held_s: float) -> float:
    """Return how long the lock stays free: as long as it was held, within bounds."""
    shortest, longest = _PAUSE_S
    return min(max(held_s, shortest), longest)


def _next_size(size: int, held_s: float) -> int:
    """Return how many decisions the next transaction takes: at most twice, at least half."""
    fits = int(size * _HOLD_S / max(held_s, 1e-6))
    return max(_FEWEST, min(_MOST, max(size // 2, min(2 * size, fits))))


def _pages(reading: Engine, cutoff: float) -> Iterator[Sequence[str]]:
    """Yield the decisions with an old row, each table read once in the order of its rows."""
    for table in (PROMPTS, FINALS, PROGRESS):
        last = -1
        while True:
            page = (
                select(table.c.seq, table.c.decision_id)
                .where(table.c.seq > last, table.c.at < cutoff)
                .order_by(table.c.seq)
                .limit(_PAGE)
            )
            with told(reading), reading.connect() as connection:
                found = connection.execute(page).all()
            if not found:
                break
            last = found[-1].seq
            yield sorted({row.decision_id for row in found})


def _due(cutoff: float, now: float, among: Sequence[str] | None = None) -> Select[tuple[str]]:
    """Select the decisions of which no row is younger than the cutoff, and that nobody holds."""

    def without(table: Table, outer: Table, *, young: bool = False) -> ColumnElement[bool]:
        found = select(table.c.seq).where(table.c.decision_id == outer.c.decision_id)
        return ~(found.where(table.c.at >= cutoff) if young else found).exists()

    def old(table: Table, *conditions: ColumnElement[bool]) -> Select[tuple[str]]:
        query = select(table.c.decision_id).where(table.c.at < cutoff, *conditions)
        return query if among is None else query.where(table.c.decision_id.in_(among))

    due = union(
        old(PROMPTS, without(FINALS, PROMPTS, young=True), without(PROGRESS, PROMPTS, young=True)),
        old(FINALS, without(PROMPTS, FINALS)),
        old(PROGRESS, without(PROMPTS, PROGRESS), without(FINALS, PROGRESS)),
    ).subquery()
    held = select(HOLDS.c.decision_id).where(
        HOLDS.c.decision_id == due.c.decision_id, HOLDS.c.until > now
    )
    return select(due.c.decision_id).where(~held.exists())


def _event(connection: Connection, writer: str, detail: Detail, *, now: float, limit: int) -> None:
    row = EventRow(at=now, kind=EventKind.PRUNE, detail=detail)
    keep(connection, writer, [(EVENTS, to_columns(row, max_bytes=limit))])
