"""A small shared store: counters with windows and values with a life time.

In process by default; any number of workers and hosts share one by URL: `redis://…` (`unix://…`,
`redis+sentinel://…`), or a database (`sqlite:///path`, `postgresql://…`).
"""

import asyncio
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from safehold.errors import ConfigError, LedgerError
from safehold.guard.gateway.access.redis_store import RedisStore
from safehold.guard.gateway.access.windows import windowed
from safehold.guard.ledger.engine import make_missing, parse_url, switch_to_wal

P = ParamSpec("P")
T = TypeVar("T")

MAX_VALUE_BYTES = 256 * 1024 * 1024
"""How much the store inside one process keeps of conversations."""
_WAIT_S = 20.0
_STORE_URL = (
    "store: expected redis://host, unix:///path, redis+sentinel://host,host/service, "
    "sqlite:///path or postgresql://host/database"
)


class Store(Protocol):
    """What budgets and response histories are kept in."""

    async def add(self, key: str, amount: int, window_s: int) -> int:
        """Add to a counter that starts anew every `window_s` seconds; return its sum so far.

        Raises:
            LedgerError: The store can't be reached.
        """
        ...

    async def get(self, key: str) -> bytes | None:
        """Return a value, or None if there is none or its life time is over."""
        ...

    async def put(self, key: str, value: bytes, life_s: int) -> None:
        """Keep a value."""
        ...

    async def state(self) -> dict[str, bytes]:
        """Return what all workers and hosts share, by field.

        Raises:
            LedgerError: The store can't be reached.
        """
        ...

    async def set_state(self, field: str, value: bytes) -> None:
        """Keep a shared field, without an end.

        Raises:
            LedgerError: The store can't be reached.
        """
        ...

    @property
    def shared(self) -> bool:
        """Whether other processes read this store too."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class MemoryStore:
    """A store inside one process.

    A counter is never evicted to make room: it ends two windows after its last use, by a clock
    that no one sets, so there are as many as there are keys and windows. Values are bounded by
    their bytes; the oldest go first.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        ticks: Callable[[], float] = time.monotonic,
        max_bytes: int = MAX_VALUE_BYTES,
    ) -> None:
        self._clock = clock
        self._ticks = ticks
        self._max_bytes = max_bytes
        self._bytes = 0
        self._counts: dict[int, OrderedDict[str, tuple[float, int]]] = {}
        self._values: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._state: dict[str, bytes] = {}

    async def add(self, key: str, amount: int, window_s: int) -> int:
        """Add to a counter of the current window; return its sum."""
        name, now = windowed(key, window_s, self._clock()), self._ticks()
        counts = self._counts.setdefault(window_s, OrderedDict())  # the longest unused first
        _, total = counts.pop(name, (0.0, 0))
        total += amount
        counts[name] = (now, total)
        while next(iter(counts.values()))[0] < now - 2 * window_s:
            counts.popitem(last=False)
        return total

    async def get(self, key: str) -> bytes | None:
        """Return a value that still lives."""
        until, value = self._values.get(key, (0.0, b""))
        return value if until > self._clock() else None

    async def put(self, key: str, value: bytes, life_s: int) -> None:
        """Keep a value."""
        _, old = self._values.pop(key, (0.0, b""))
        self._values[key] = (self._clock() + life_s, value)
        self._bytes += len(value) - len(old)
        while self._bytes > self._max_bytes:
            _, (_, gone) = self._values.popitem(last=False)
            self._bytes -= len(gone)

    async def state(self) -> dict[str, bytes]:
        """Return the fields."""
        return dict(self._state)

    async def set_state(self, field: str, value: bytes) -> None:
        """Keep a field."""
        self._state[field] = value

    @property
    def shared(self) -> bool:
        """Nobody else reads this store."""
        return False

    async def close(self) -> None:
        """Forget everything."""
        self._counts.clear()
        self._state.clear()
        self._values.clear()
        self._bytes = 0


class SqlStore:
    """A store in a database; every call is one short transaction in a thread."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        """Open the database and make its two tables.

        Raises:
            ConfigError: The URL is no database's.
            LedgerError: The database can't be reached.
        """
        self._clock = clock
        meta = sa.MetaData()
        self._counts = sa.Table(
            "gateway_counts",
            meta,
            sa.Column("name", sa.String(300), primary_key=True),
            sa.Column("total", sa.BigInteger, nullable=False),
            sa.Column("until", sa.Float, nullable=False, index=True),
        )
        self._values = sa.Table(
            "gateway_values",
            meta,
            sa.Column("name", sa.String(300), primary_key=True),
            sa.Column("value", sa.LargeBinary, nullable=False),
            sa.Column("until", sa.Float, nullable=False, index=True),
        )
        self._state = sa.Table(
            "gateway_state",
            meta,
            sa.Column("name", sa.String(300), primary_key=True),
            sa.Column("value", sa.LargeBinary, nullable=False),
        )
        try:
            place = parse_url(url)
            # A pooler in transaction mode knows no prepared statement.
            postgres = place.get_backend_name() == "postgresql"
            given = {"prepare_threshold": None} if postgres else {"timeout": _WAIT_S}
            self._engine = sa.create_engine(place, pool_pre_ping=True, connect_args=given)
            if not postgres:
                sa.event.listen(self._engine, "connect", _wal)
            make_missing(self._engine, meta, wait_s=_WAIT_S)
        except (sa.exc.ArgumentError, ConfigError) as error:
            raise ConfigError(_STORE_URL) from error
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            raise LedgerError("store: the database can't be opened") from error
        self._insert: Any = (
            postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        )

    async def add(self, key: str, amount: int, window_s: int) -> int:
        """Add to a counter of the current window; return its sum."""
        total: int = await self._run(self._add, key, amount, window_s)
        return total

    def _add(self, key: str, amount: int, window_s: int) -> int:
        now = self._clock()
        table = self._counts
        row = {"name": windowed(key, window_s, now), "total": amount, "until": now + 2 * window_s}
        statement = self._insert(table).values(row)
        statement = statement.on_conflict_do_update(
            index_elements=["name"], set_={"total": table.c.total + amount}
        ).returning(table.c.total)
        with self._engine.begin() as connection:
            total: int = int(connection.execute(statement).scalar_one())
            if total == amount:  # a window's first use clears out the ones that are over
                connection.execute(sa.delete(table).where(table.c.until < now))
        return total

    async def get(self, key: str) -> bytes | None:
        """Return a value that still lives."""
        value: bytes | None = await self._run(self._get, key)
        return value

    def _get(self, key: str) -> bytes | None:
        table = self._values
        query = sa.select(table.c.value).where(table.c.name == key, table.c.until > self._clock())
        with self._engine.begin() as connection:
            value = connection.execute(query).scalar_one_or_none()
        return None if value is None else bytes(value)

    async def put(self, key: str, value: bytes, life_s: int) -> None:
        """Keep a value."""
        await self._run(self._put, key, value, life_s)

    def _put(self, key: str, value: bytes, life_s: int) -> None:
        now = self._clock()
        row = {"name": key, "value": value, "until": now + life_s}
        statement = self._insert(self._values).values(row)
        statement = statement.on_conflict_do_update(
            index_elements=["name"], set_={"value": value, "until": now + life_s}
        )
        with self._engine.begin() as connection:
            connection.execute(sa.delete(self._values).where(self._values.c.until < now))
            connection.execute(statement)

    async def state(self) -> dict[str, bytes]:
        """Return the fields."""
        fields: dict[str, bytes] = await self._run(self._fields)
        return fields

    def _fields(self) -> dict[str, bytes]:
        table = self._state
        with self._engine.begin() as connection:
            found = connection.execute(sa.select(table.c.name, table.c.value))
            return {name: bytes(value) for name, value in found}

    async def set_state(self, field: str, value: bytes) -> None:
        """Keep a field."""
        await self._run(self._set_field, field, value)

    def _set_field(self, field: str, value: bytes) -> None:
        statement = self._insert(self._state).values({"name": field, "value": value})
        statement = statement.on_conflict_do_update(index_elements=["name"], set_={"value": value})
        with self._engine.begin() as connection:
            connection.execute(statement)

    @property
    def shared(self) -> bool:
        """Other workers and hosts read this store too."""
        return True

    async def _run(self, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(call, *args, **named)
        except sa.exc.SQLAlchemyError as error:
            raise LedgerError("store: the database did not answer") from error

    async def close(self) -> None:
        """Let go of the connections."""
        await asyncio.to_thread(self._engine.dispose)


def _wal(connection: sqlite3.Connection, _record: object) -> None:
    """Let readers and one writer work side by side; a power cut may cost the last counts."""
    switch_to_wal(connection, wait_s=_WAIT_S)
    connection.execute("PRAGMA synchronous=NORMAL").fetchall()


def open_store(url: str | None) -> Store:
    """Return the store that a URL names; None is the one in process.

    Raises:
        ConfigError: The URL is neither Redis's nor a database's.
        DependencyError: An extra is missing.
        LedgerError: The database can't be reached.
    """
    if url is None:
        return MemoryStore()
    if url.startswith(("redis://", "rediss://", "unix://", "redis+sentinel://")):
        return RedisStore(url)
    return SqlStore(url)
