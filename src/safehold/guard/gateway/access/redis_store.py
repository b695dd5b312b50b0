"""A store in Redis (extra `redis`): a server, a Unix socket, or whom sentinels call master."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import msgspec

from safehold.errors import ConfigError, DependencyError, LedgerError
from safehold.guard.gateway.access.windows import windowed

_NAMES = ("service", "database")

_TIMEOUT_S = 5
_RETRIES = 3
_SENTINEL_PORT = 26_379
_STATE = "safehold:state"


class Watched(msgspec.Struct, frozen=True):
    """A `redis+sentinel://` URL in parts."""

    sentinels: tuple[tuple[str, int], ...]
    service: str
    db: int = 0
    username: str | None = None
    password: str | None = None


class RedisStore:
    """A store in Redis. A connection that was lost is opened anew, and the command sent again.

    A counter that is added to twice that way errs on the side of the limit.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        """Take the URL; connections open on first use.

        Raises:
            ConfigError: The URL is none.
            DependencyError: The package `redis` is not installed.
        """
        try:
            from redis.exceptions import RedisError
        except ImportError as error:
            raise DependencyError("store redis://: install safehold[redis]") from error
        self._error: type[Exception] = RedisError
        self._clock = clock
        try:
            self._redis, self._watches = _client(url)
        except ValueError as error:
            raise ConfigError(
                "store: expected redis://host:port/db, unix:///path?db=0 or "
                "redis+sentinel://host:port,host:port/service/db"
            ) from error

    async def add(self, key: str, amount: int, window_s: int) -> int:
        """Add to a counter of the current window; return its sum."""
        name = f"safehold:{windowed(key, window_s, self._clock())}"
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.incrby(name, amount)
                pipe.expire(name, 2 * window_s)
                total, _ = await pipe.execute()
        except (self._error, OSError) as error:
            raise LedgerError("store: Redis did not answer") from error
        return int(total)

    async def get(self, key: str) -> bytes | None:
        """Return a value that still lives."""
        value = await self._ask("get", f"safehold:{key}")
        return None if value is None else bytes(value)

    async def put(self, key: str, value: bytes, life_s: int) -> None:
        """Keep a value."""
        await self._ask("set", f"safehold:{key}", value, life_s)

    async def state(self) -> dict[str, bytes]:
        """Return the fields."""
        found = await self._ask("hgetall", _STATE)
        return {name.decode(): bytes(value) for name, value in found.items()}

    async def set_state(self, field: str, value: bytes) -> None:
        """Keep a field."""
        await self._ask("hset", _STATE, field, value)

    async def _ask(self, command: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever Redis says
        try:
            return await getattr(self._redis, command)(*arguments)
        except (self._error, OSError) as error:
            raise LedgerError("store: Redis did not answer") from error

    @property
    def shared(self) -> bool:
        """Other workers and hosts read this store too."""
        return True

    async def close(self) -> None:
        """Let go of the connections, those to the sentinels too."""
        await self._redis.aclose()
        for watch in self._watches:
            await watch.aclose()


def sentinels(url: str) -> Watched:
    """Return the parts of `redis+sentinel://[user:password@]host[:port],…/service[/db]`.

    Raises:
        ValueError: It has not that form.
    """
    # Several hosts are no URL of the standard library's, which some versions refuse.
    netloc, _, path = url.partition("://")[2].partition("/")
    before, _, hosts = netloc.rpartition("@")
    user, _, password = before.partition(":")
    places = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        place = (name or port).strip("[]")
        if not place:
            raise ValueError("expected a host")
        places.append((place, int(port) if name and port else _SENTINEL_PORT))
    names = path.strip("/").split("/")
    if not names[0] or len(names) > len(_NAMES):
        raise ValueError("expected a service")
    return Watched(
        sentinels=tuple(places),
        service=names[0],
        db=int(names[1]) if len(names) > 1 else 0,
        username=unquote(user) or None,
        password=unquote(password) or None,
    )


def _client(url: str) -> tuple[Any, list[Any]]:
    """Return the client of the data, and those of the sentinels."""
    from redis import asyncio as redis
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import ExponentialBackoff
    from redis.exceptions import ConnectionError as LostError

    # Its own backoff: a sentinel takes a moment to name a new master.
    given: dict[str, Any] = {
        "socket_timeout": _TIMEOUT_S,
        "retry": Retry(ExponentialBackoff(cap=0.2, base=0.02), _RETRIES),
        "retry_on_error": [LostError],
    }
    if not url.startswith("redis+sentinel://"):
        if not url.startswith("unix://"):
            given["socket_connect_timeout"] = _TIMEOUT_S
        return redis.from_url(url, **given), []
    watched = sentinels(url)
    watch = Sentinel(  # type: ignore[no-untyped-call]
        list(watched.sentinels),
        sentinel_kwargs={
            "socket_timeout": 1,
            "socket_connect_timeout": 1,
            "retry": Retry(ExponentialBackoff(cap=0.2, base=0.02), 1),
        },
        socket_connect_timeout=_TIMEOUT_S,
        **given,
    )
    master = watch.master_for(
        watched.service, db=watched.db, username=watched.username, password=watched.password
    )
    return master, list(watch.sentinels)
