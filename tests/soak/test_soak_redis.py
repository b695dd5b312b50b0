"""Redis that fails over: a sentinel promotes the replica, and the gateway's counts go on there."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "guard" / "gateway"))

from gateway_redis import RealRedis

from safehold.errors import LedgerError
from safehold.guard.gateway.access.redis_store import RedisStore
from safehold.guard.gateway.access.steady import SteadyCounters

pytestmark = pytest.mark.soak


def test_sentinel_names_the_new_master() -> None:
    """The store follows its sentinel to the promoted replica, and counts there."""
    with tempfile.TemporaryDirectory(prefix="shr-") as name, RealRedis(Path(name)) as redis:
        fail_over(redis)


def fail_over(redis: RealRedis) -> None:
    """Count, lose the master, count on."""
    replica = RealRedis(redis.folder, "--replicaof", "127.0.0.1", str(redis.port))
    watch = (
        f"sentinel monitor main 127.0.0.1 {redis.port} 1",
        "sentinel down-after-milliseconds main 300",
        "sentinel failover-timeout main 2000",
    )
    with replica, RealRedis(redis.folder, *watch, sentinel=True) as sentinel:

        async def go() -> None:
            store = RedisStore(f"redis+sentinel://127.0.0.1:{sentinel.port}/main/0")
            counters = SteadyCounters(store)
            assert await counters.add("k", 3, 86_400) == 3
            await wait_for_replica(sentinel)
            redis.stop()
            await asked_until(lambda: counters.add("k", 1, 86_400))
            assert await counters.add("k", 0, 86_400) >= 4
            await store.close()

        asyncio.run(go())


async def wait_for_replica(sentinel: RealRedis) -> None:
    """Return when the sentinel knows a healthy replica."""
    client = RedisStore(sentinel.url)._redis
    until = time.monotonic() + 30
    while time.monotonic() < until:
        replicas = await client.execute_command("SENTINEL", "REPLICAS", "main")
        if replicas and b"down" not in str(replicas).encode() and "slave" in str(replicas):
            break
        await asyncio.sleep(0.1)
    await client.aclose()


async def asked_until(call: Callable[[], Awaitable[int]]) -> None:
    """Call until the store answers."""
    until = time.monotonic() + 40
    while True:
        try:
            await call()
        except LedgerError:
            assert time.monotonic() < until
            await asyncio.sleep(0.1)
        else:
            return
