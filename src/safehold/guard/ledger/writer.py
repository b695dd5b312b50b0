"""The writing side of the ledger: many waiters, one thread, one shared commit."""

import asyncio
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import msgspec
from sqlalchemy import BigInteger, Connection, Engine, Table, bindparam, insert, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from safehold.errors import LedgerError
from safehold.guard.ledger.codec import Columns, table_of, to_columns
from safehold.guard.ledger.engine import Place, check_encoding, open_engine, told
from safehold.guard.ledger.interface import LedgerSettings, Row
from safehold.guard.ledger.schema import HEAD, ROW_TABLES, WRITERS, migrate
from safehold.guard.ledger.sqlite_writes import SqliteWrites

# Built once: building a statement costs more than running it.
_TAKE_NUMBERS = (
    update(HEAD).values(seq=HEAD.c.seq + bindparam("count", type_=BigInteger)).returning(HEAD.c.seq)
)
_INSERTS = {table: insert(table) for table in ROW_TABLES}


class _Job(msgspec.Struct, frozen=True):
    """Rows that are kept together or not at all, and who waits for them."""

    rows: tuple[Row, ...]
    waiter: "asyncio.Future[int]"


class Ledger:
    """Keeps rows durably; the only writer of its process.

    `append` may be called by any number of tasks of one event loop. One thread takes all that
    wait, writes them in one transaction and wakes them after its single fsync (group commit), so
    the rate grows with the number of waiters. A storage that fails raises LedgerError to every
    waiter of that commit and is opened anew for the next one.
    """

    def __init__(
        self, engine: Engine, settings: LedgerSettings, clock: Callable[[], float]
    ) -> None:
        self.writer = secrets.token_hex(8)
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(settings.max_pending)
        self._closing = False
        self._stopped = False
        self._storage = _Storage(engine, self.writer, clock)
        self._thread = threading.Thread(target=self._run, name="safehold-ledger", daemon=True)

    @classmethod
    async def open(
        cls,
        url: str,
        settings: LedgerSettings = LedgerSettings(),
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open or make the ledger behind a path, `sqlite:///` or `postgresql://` URL.

        Raises:
            ConfigError: the URL can't be used.
            DependencyError: the PostgreSQL driver is not installed.
            LedgerError: the storage can't be opened, or was made by a newer release.
        """
        engine = open_engine(url, wait_s=settings.wait_s, write=True)
        ledger = cls(engine, settings, clock)
        await asyncio.to_thread(ledger._storage.begin)
        ledger._thread.start()
        return ledger

    async def append(self, row: Row, *more: Row) -> int:
        """Return the last row's sequence number once all rows are durable, all or none.

        A caller that is cancelled while it waits leaves its rows queued: they are still kept.

        Raises:
            LedgerError: nothing was kept, or it can't be known; the caller must not release.
        """
        await self._room.acquire()
        if self._closing or self._stopped:
            self._room.release()
            raise LedgerError("expected an open ledger, came a closed one")
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiter.add_done_callback(lambda _: self._room.release())
        self._jobs.put(_Job(rows=(row, *more), waiter=waiter))
        if self._stopped and not waiter.done():  # it may have stopped between check and put
            waiter.set_exception(LedgerError("the ledger's writer has stopped"))
        return await waiter

    async def close(self) -> None:
        """Keep what is still queued, mark this writer as closed and let go of the storage."""
        if not self._closing:
            self._closing = True
            self._jobs.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the storage, as of the last row or heartbeat."""
        if self._stopped:
            return "the ledger's writer has stopped; restart the gateway"
        return self._storage.trouble

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _run(self) -> None:
        try:
            while (jobs := self._collect()) is not None:
                if jobs:
                    self._keep(jobs)
                else:
                    self._storage.beat()
        finally:  # also when this thread dies of a defect: nobody may wait for ever
            self._stopped = True
            self._storage.end()
            left = []
            while not self._jobs.empty():
                if (job := self._jobs.get()) is not None:
                    left.append((job.waiter, LedgerError("the ledger's writer has stopped")))
            _wake(left)

    def _collect(self) -> list[_Job] | None:
        """Return the jobs that wait, [] after an idle heartbeat, None at the end."""
        try:
            first = self._jobs.get(timeout=self._settings.heartbeat_s)
        except queue.Empty:
            return []
        if first is None:
            return None
        jobs, rows = [first], len(first.rows)
        while rows < self._settings.max_batch and not self._jobs.empty():
            job = self._jobs.get()
            if job is None:
                self._jobs.put(None)  # nothing comes after the end, so it stays the last
                break
            jobs.append(job)
            rows += len(job.rows)
        return jobs

    def _keep(self, jobs: list[_Job]) -> None:
        """Write what waits, and answer every waiter, whatever is thrown."""
        died = LedgerError("the ledger's writer failed at these rows")
        answers: list[tuple[asyncio.Future[int], int | LedgerError]]
        answers = [(job.waiter, died) for job in jobs]
        try:
            answers = self._kept(jobs)
        finally:
            _wake(answers)

    def _kept(self, jobs: list[_Job]) -> list[tuple["asyncio.Future[int]", int | LedgerError]]:
        answers: list[tuple[asyncio.Future[int], int | LedgerError]] = []
        good: list[tuple[_Job, list[tuple[Table, Columns]]]] = []
        for job in jobs:
            try:
                limit = self._settings.max_row_bytes
                good.append(
                    (job, [(table_of(row), to_columns(row, max_bytes=limit)) for row in job.rows])
                )
            except LedgerError as error:
                answers.append((job.waiter, error))
        try:
            last = self._storage.write([columns for _, rows in good for columns in rows])
            for job, rows in reversed(good):
                answers.append((job.waiter, last))
                last -= len(rows)
        except LedgerError as error:
            if len(good) > 1 and _blames_a_row(error.__cause__):
                answers += [self._keep_alone(job, rows) for job, rows in good]
            else:
                answers += [(job.waiter, error) for job, _ in good]
        return answers

    def _keep_alone(
        self, job: _Job, rows: list[tuple[Table, Columns]]
    ) -> tuple["asyncio.Future[int]", int | LedgerError]:
        """Write one job by itself: one caller's impossible row must not fail its neighbours."""
        try:
            return job.waiter, self._storage.write(rows)
        except LedgerError as error:
            return job.waiter, error


class _Storage:
    """One database connection, opened when needed and dropped after any error."""

    def __init__(self, engine: Engine, writer: str, clock: Callable[[], float]) -> None:
        self._engine = engine
        self.writer = writer
        self._clock = clock
        self._connection: Connection | None = None
        self._sqlite: SqliteWrites | None = None
        self._beaten = 0.0
        self._place = Place(engine)
        self.trouble: str | None = None

    def begin(self) -> None:
        """Make the tables if need be and register this writer."""
        now = self._clock()
        with told(self._engine):
            # Kept open from here on: SQLite's write-ahead log lies there as long as a writer lives.
            connection = self._open()
            with ExitStack() as failed:
                failed.callback(self._drop)
                with connection.begin():
                    check_encoding(connection)
                    migrate(connection, now=now)
                    row = {"writer": self.writer, "opened_at": now, "seen_at": now}
                    connection.execute(insert(WRITERS), row | {"home": self._place.home})
                if self._place.home is not None:  # a copy without the log knows of this writer
                    _checkpoint(connection)
                failed.pop_all()
        self._place.remember()

    def write(self, rows: list[tuple[Table, Columns]]) -> int:
        """Commit the rows in order and return the last one's sequence number.

        A connection that had gone stale while idle is opened once more, but only if it broke
        before COMMIT was sent: after that the rows may be kept already.
        """
        try:
            last = self._written(rows)
        except LedgerError as error:
            if not _blames_a_row(error.__cause__):
                self.trouble = str(error)
            raise
        self.trouble = None
        return last

    def _written(self, rows: list[tuple[Table, Columns]]) -> int:
        with told(self._engine):
            reused = self._connection is not None
            while True:
                connection = self._connect()
                committing = False
                try:
                    if (sqlite := self._sqlite) is not None:
                        return self._through(sqlite, rows)
                    with connection.begin() as transaction:
                        last = self._insert(connection, rows)
                        self._place.check()
                        committing = True
                        transaction.commit()
                except DBAPIError as error:
                    self._drop()
                    if reused and not committing and error.connection_invalidated:
                        reused = False
                        continue
                    raise
                return last

    def beat(self) -> None:
        """Say that this writer lives; a storage that fails here will say so at the next row."""
        try:
            self.write([])
        except LedgerError:
            self._drop()

    def end(self) -> None:
        """Mark this writer as closed, if the storage still takes it, and disconnect."""
        try:
            with told(self._engine), self._connect().begin():
                self._connect().execute(
                    update(WRITERS)
                    .where(WRITERS.c.writer == self.writer)
                    .values(closed_at=self._clock())
                )
        except LedgerError:
            pass  # the audit then takes this writer for dead, which is the safe reading
        self._drop()

    def _through(self, sqlite: SqliteWrites, rows: list[tuple[Table, Columns]]) -> int:
        """Commit rows to a SQLite file, whose own statements cost the least."""
        due = self._due(rows)

        def check(known: bool) -> None:  # noqa: FBT001 - a callback
            self._check_known(known=known)
            self._place.check()

        last = sqlite.commit(self.writer, rows, seen_at=due, check=check)
        self._beaten = self._beaten if due is None else due
        return last

    def _due(self, rows: list[tuple[Table, Columns]]) -> float | None:
        """Return the time that this writer's record is to be brought up to; None for not now."""
        now = self._clock()
        return now if now - self._beaten > 1 or now < self._beaten or not rows else None

    def _check_known(self, *, known: bool) -> None:
        if not known:
            raise LedgerError(
                f"ledger {self._place.name}: it does not know this writer, so it is another "
                "one than at the start; bring the first one back, or restart the gateway"
            )

    def _insert(self, connection: Connection, rows: list[tuple[Table, Columns]]) -> int:
        last = keep(connection, self.writer, rows)
        if (now := self._due(rows)) is not None:
            seen = connection.execute(
                update(WRITERS).where(WRITERS.c.writer == self.writer).values(seen_at=now)
            )
            self._check_known(known=seen.rowcount == 1)
            self._beaten = now
        return last

    def _open(self) -> Connection:
        connection = self._connection = self._engine.connect()
        if self._engine.dialect.name == "sqlite":
            self._sqlite = SqliteWrites(connection)
        return connection

    def _connect(self) -> Connection:
        if self._connection is not None:
            return self._connection
        self._place.check()
        self._beaten = 0.0  # the first row after a new connection asks: is it the same ledger?
        return self._open()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = self._sqlite = None


def keep(connection: Connection, writer: str, rows: list[tuple[Table, Columns]]) -> int:
    """Insert rows inside the caller's transaction and return the last sequence number.

    The head record's lock orders all writers: numbers follow commits and have no holes.
    """
    last: int = connection.execute(_TAKE_NUMBERS, {"count": len(rows)}).scalar_one()
    by_table: dict[Table, list[Columns]] = {}
    for seq, (table, columns) in enumerate(rows, start=last - len(rows) + 1):
        by_table.setdefault(table, []).append({"seq": seq, "writer": writer, **columns})
    for table, values in by_table.items():
        connection.execute(_INSERTS[table], values)
    return last


def _checkpoint(connection: Connection) -> None:
    """Move what SQLite's write-ahead log holds into the file, as far as readers let it."""
    raw = connection.connection.cursor()
    try:
        raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    finally:
        raw.close()


def _blames_a_row(cause: BaseException | None) -> bool:
    """Tell an impossible row from a storage that failed."""
    return isinstance(cause, IntegrityError | DataError | UnicodeError) or (
        isinstance(cause, StatementError) and not isinstance(cause, DBAPIError)
    )


def _wake(answers: Iterable[tuple["asyncio.Future[int]", int | LedgerError]]) -> None:
    """Give every waiter its answer, with one call into each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[int], int | LedgerError]]]
    by_loop = {}
    for waiter, answer in answers:
        by_loop.setdefault(waiter.get_loop(), []).append((waiter, answer))
    for loop, mine in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, mine)


def _settle(answers: list[tuple["asyncio.Future[int]", int | LedgerError]]) -> None:
    for waiter, answer in answers:
        if not waiter.done():
            if isinstance(answer, LedgerError):
                waiter.set_exception(answer)
            else:
                waiter.set_result(answer)
