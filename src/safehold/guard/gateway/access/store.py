"""A small shared store: counters with windows and values with a life time.

In process by default; any number of workers and hosts share one by URL: `redis://…`, or a database
(`sqlite:///path`, `postgresql+psycopg://…`).
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from safehold.errors import ConfigError, DependencyError, LedgerError

MAX_VALUE_BYTES = 256 * 1024 * 1024
"""How much the store inside one process keeps of conversations."""


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

    async def close(self) -> None:
        """Let go of connections."""
        ...


def windowed(key: str, window_s: int, now: float) -> str:
    """Return the name of a counter in the window that `now` lies in."""
    return f"{key}:{window_s}:{int(now // window_s)}"


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

    async def close(self) -> None:
        """Forget everything."""
        self._counts.clear()
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
        try:
            self._engine = sa.create_engine(url, pool_pre_ping=True)
            meta.create_all(self._engine)
        except sa.exc.ArgumentError as error:
            raise ConfigError("store: expected redis://… or a database URL") from error
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

    async def _run(self, call: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401 - whatever the call returns
        try:
            return await asyncio.to_thread(call, *args)
        except sa.exc.SQLAlchemyError as error:
            raise LedgerError("store: the database did not answer") from error

    async def close(self) -> None:
        """Let go of the connections."""
        await asyncio.to_thread(self._engine.dispose)


class RedisStore:
    """A store in Redis (extra `redis`)."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        """Take the URL; connections open on first use.

        Raises:
            DependencyError: The package `redis` is not installed.
        """
        try:
            from redis import asyncio as redis
            from redis.exceptions import RedisError
        except ImportError as error:
            raise DependencyError("store redis://: install safehold[redis]") from error
        self._error: type[Exception] = RedisError
        self._redis = redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
        self._clock = clock

    async def add(self, key: str, amount: int, window_s: int) -> int:
        """Add to a counter of the current window; return its sum."""
        name = f"safehold:{windowed(key, window_s, self._clock())}"
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.incrby(name, amount)
                pipe.expire(name, 2 * window_s)
                total, _ = await pipe.execute()
        except self._error as error:
            raise LedgerError("store: Redis did not answer") from error
        return int(total)

    async def get(self, key: str) -> bytes | None:
        """Return a value that still lives."""
        try:
            value = await self._redis.get(f"safehold:{key}")
        except self._error as error:
            raise LedgerError("store: Redis did not answer") from error
        return None if value is None else bytes(value)  # type: ignore[arg-type]

    async def put(self, key: str, value: bytes, life_s: int) -> None:
        """Keep a value."""
        try:
            await self._redis.set(f"safehold:{key}", value, ex=life_s)
        except self._error as error:
            raise LedgerError("store: Redis did not answer") from error

    async def close(self) -> None:
        """Let go of the connections."""
        await self._redis.aclose()


def open_store(url: str | None) -> Store:
    """Return the store that a URL names; None is the one in process.

    Raises:
        ConfigError: The URL is neither Redis's nor a database's.
        DependencyError: An extra is missing.
        LedgerError: The database can't be reached.
    """
    if url is None:
        return MemoryStore()
    if url.startswith(("redis://", "rediss://")):
        return RedisStore(url)
    return SqlStore(url)
