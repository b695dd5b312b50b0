"""One state for all workers and hosts: closed surfaces, keys, bundles, budgets that last."""

import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gateway_process import metric, served
from gateway_redis import RealRedis
from gateway_wire import PATHS, Start, body_for, post

from safehold.errors import ConfigError, LedgerError
from safehold.guard.gateway.access.admission import Gate
from safehold.guard.gateway.access.redis_store import RedisStore, sentinels
from safehold.guard.gateway.access.steady import SteadyCounters
from safehold.guard.gateway.access.store import MemoryStore, SqlStore, Store, open_store
from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.operate.shared_state import SharedState
from safehold.guard.gateway.policy import Budget, Key, SurfacePolicy, digest_key
from safehold.guard.ledger.interface import EventKind, EventRow
from safehold.testing.ports import held_port
from safehold.testing.upstream import MockUpstream

ADMIN = "sk-safehold-zyxwvutsrqponmlkjihgfedcba98"
CLIENT = "sk-safehold-0123456789abcdefghijklmnop"
KEYS = [
    {"id": "ops", "sha256": digest_key(ADMIN), "admin": True},
    {"id": "k", "sha256": digest_key(CLIENT)},
]
HI = json.dumps(body_for(PATHS[0], "hi")).encode()


def asked(port: int, path: str, body: bytes = HI, key: str = CLIENT, method: str = "POST") -> int:
    """Return the status of one request on a connection of its own."""
    return post(port, path, body, extra=f"x-api-key: {key}\r\n", method=method)[0]


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    """A real Redis server that forgets when it restarts."""
    with tempfile.TemporaryDirectory(prefix="shr-") as name, RealRedis(Path(name)) as server:
        yield server


@pytest.fixture(params=["redis", "unix", "sqlite", "postgresql", "pool"])
def store_url(
    request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[[], str]
) -> Iterator[str]:
    """The URL of an empty store, of each kind."""
    match request.param:
        case "redis" | "unix":
            server = request.getfixturevalue("redis")
            yield server.url if request.param == "redis" else server.unix_url
        case "sqlite":
            yield f"sqlite:///{tmp_path}/store.db"
        case _:
            url = new_database()
            plain = url.replace("postgresql://", "postgresql+psycopg://")
            yield url if request.param == "pool" else plain


def test_surface_closed_in_one_worker_is_closed_in_all(tmp_path: Path) -> None:
    """After the administrator's answer no worker answers, nor does a killed worker's successor."""
    with (
        MockUpstream() as upstream,
        served(
            tmp_path,
            upstream.url,
            "--workers",
            "2",
            store=f"sqlite:///{tmp_path}/store.db",
            keys=KEYS,
        ) as at,
    ):
        assert {asked(at.port, PATHS[0]) for _ in range(8)} == {200}
        assert asked(at.port, "/admin/surfaces/openai.chat/close", b"{}", ADMIN) == 200
        assert [asked(at.port, PATHS[0]) for _ in range(12)] == [503] * 12
        assert asked(at.port, PATHS[1], json.dumps(body_for(PATHS[1], "hi")).encode()) == 200
        assert metric(at.port, 'safehold_surface_closed{surface="openai.chat"}') == 1
        worker = workers_of(at.process.pid)[0]
        os.kill(worker, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while len(set(workers_of(at.process.pid)) - {worker}) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [asked(at.port, PATHS[0]) for _ in range(12)] == [503] * 12
        assert asked(at.port, "/admin/surfaces/openai.chat/open", b"{}", ADMIN) == 200
        assert [asked(at.port, PATHS[0]) for _ in range(12)] == [200] * 12
        for _ in range(4):
            assert metric(at.port, 'safehold_surface_closed{surface="openai.chat"}') == 0


def workers_of(parent: int) -> list[int]:
    """Return the children of a process that serve (not Python's resource tracker)."""
    found = []
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"spawn_main" in line:
            found.append(int(pid))
    return found


def test_fields_reach_every_reader_of_each_store(store_url: str) -> None:
    """What one sets the other reads; what it lifts is lifted; the higher version holds."""

    async def go() -> None:
        one, two = open_store(store_url), open_store(store_url)
        ticks = [0.0]
        a, b = SharedState(one, lambda: ticks[0]), SharedState(two, lambda: ticks[0])
        heard: list[tuple[str, object]] = []

        async def take(name: str, value: object) -> None:
            heard.append((name, value))

        b.on("surface", take)
        await b.fresh()
        await a.set("surface", "openai.chat", "because")
        ticks[0] = 5.0
        await b.fresh()
        await b.set("surface", "openai.chat", None)
        await a.read()
        assert a.of("surface") == {"openai.chat": None}
        assert heard == [("openai.chat", "because"), ("openai.chat", None)]
        assert one.shared
        await one.close()
        await two.close()

    asyncio.run(go())


def test_store_that_forgot_is_told_again(redis: RealRedis) -> None:
    """A Redis that restarts empty learns what was closed and what was charged, from memory."""

    async def go() -> None:
        store = RedisStore(redis.url)
        state = SharedState(store, time.monotonic)
        gate = Gate((), store)
        key = Key(id="k", sha256="0" * 64, budget=Budget(flags_per_day=2))
        await state.set("surface", "openai.chat", "because")
        await gate.charge(key, flagged=True, tokens=0)
        await gate.charge(key, flagged=True, tokens=0)
        assert (await gate.admit(key, Surface.CHAT)).status == 403
        redis.stop()
        with pytest.raises(LedgerError):
            await state.read()
        redis.start()
        await state.read()
        assert (await gate.admit(key, Surface.CHAT)).status == 403
        other = RedisStore(redis.url)
        fresh = SharedState(other, time.monotonic)
        await fresh.read()
        assert fresh.of("surface") == {"openai.chat": "because"}
        await store.close()
        await other.close()

    asyncio.run(go())


def test_charge_while_the_store_is_away_is_owed(redis: RealRedis) -> None:
    """A flag that could not be counted is counted when the store is back; an unsent one is not."""

    async def go() -> None:
        store = RedisStore(redis.url)
        gate = Gate((), store)
        key = Key(id="k", sha256="0" * 64, budget=Budget(flags_per_day=1, tokens_per_day=100))
        redis.stop()
        await gate.charge(key, flagged=True, tokens=7)
        with pytest.raises(LedgerError):
            await gate.admit(key, Surface.CHAT)
        redis.start()
        await gate.counters.settle()
        fresh = RedisStore(redis.url)
        other = SteadyCounters(fresh)
        assert await other.add("flags:k", 0, 86_400) == 1
        assert await other.add("tokens:k", 0, 86_400) == 7
        await store.close()
        await fresh.close()

    asyncio.run(go())


def test_connection_that_was_cut_while_idle_costs_no_request(redis: RealRedis) -> None:
    """Redis that dropped every idle connection is asked again, not reported as away."""

    async def go() -> None:
        store, other = RedisStore(redis.url), RedisStore(redis.unix_url)
        await store.add("k", 1, 60)
        await other._redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await store.add("k", 1, 60) == 2
        await other._redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await store.put("v", b"1", 60)
        assert await other.get("v") == b"1"
        await store.close()
        await other.close()

    asyncio.run(go())


def test_sentinel_names_the_master(redis: RealRedis) -> None:
    """The store counts on the server that its sentinel calls the master of a service."""
    watch = (f"sentinel monitor main 127.0.0.1 {redis.port} 1",)
    with RealRedis(redis.folder, *watch, sentinel=True) as sentinel, held_port() as nobody:

        async def go() -> None:
            url = f"redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{sentinel.port}/main/0"
            store, direct, other = RedisStore(url), RedisStore(redis.url), RedisStore(url + "1")
            assert await store.add("k", 3, 86_400) == 3
            assert await direct.add("k", 1, 86_400) == 4
            strange = RedisStore(url.replace("/main/", "/strange/"))
            with pytest.raises(LedgerError, match="did not answer"):
                await strange.add("k", 1, 60)
            for each in (store, direct, other, strange):
                await each.close()

        asyncio.run(go())


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:notaport",
        "redis+sentinel://h",
        "redis+sentinel:///main",
        "redis+sentinel://h:x/main",
        "redis+sentinel://h/main/db",
        "mysql://h/d",
        "http://h",
    ],
)
def test_store_url_that_is_none_is_named(url: str) -> None:
    """A URL that no store has is one sentence, not a traceback."""
    with pytest.raises(ConfigError, match="store"):
        open_store(url)


def test_sentinel_url_in_parts() -> None:
    """Several sentinels, a user, IPv6 and default ports are read."""
    found = sentinels("redis+sentinel://u:p%40w@a:1,b,[::1]:3/main/2")
    assert found.sentinels == (("a", 1), ("b", 26_379), ("::1", 3))
    assert (found.service, found.db, found.username, found.password) == ("main", 2, "u", "p@w")


def test_two_closings_and_an_opening_at_once_end_alike() -> None:
    """Of concurrent changes of one version the closing wins, whatever the order of writing."""

    class Meeting(MemoryStore):
        """A store that others read too."""

        @property
        def shared(self) -> bool:
            return True

    async def go(order: tuple[int, int]) -> list[object]:
        store = Meeting()
        states = [SharedState(store, time.monotonic) for _ in range(2)]
        values = ("closed", None)
        for number in order:
            await states[number].set("surface", "openai.chat", values[number])
        for _ in range(3):
            for state in states:
                await state.read()
        return [state.of("surface")["openai.chat"] for state in states]

    assert asyncio.run(go((0, 1))) == ["closed", "closed"]
    assert asyncio.run(go((1, 0))) == ["closed", "closed"]


def test_key_is_made_limited_and_revoked_over_the_admin_api(stage: Start) -> None:
    """A made key works at once for what it was made for; revoked it is out; rows tell who did."""
    keys = tuple(Key(**key) for key in KEYS)
    at = stage(keys=keys)
    port = at.gateway.port

    def admin(method: str, path: str, given: object = None) -> tuple[int, dict]:
        body = json.dumps(given or {}).encode()
        status, _, answer = post(port, path, body, extra=f"x-api-key: {ADMIN}\r\n", method=method)
        return status, json.loads(answer)

    wanted = {"id": "team", "surfaces": ["openai.chat"], "budget": {"requests_per_minute": 3}}
    status, made = admin("POST", "/admin/keys", wanted)
    assert status == 200
    assert admin("POST", "/admin/keys", wanted)[0] == 409
    assert asked(port, PATHS[0], key=made["key"]) == 200
    other = json.dumps(body_for(PATHS[1], "hi")).encode()
    assert asked(port, PATHS[1], other, key=made["key"]) == 403
    changed = wanted | {"surfaces": [], "models": ["other"]}
    assert admin("PUT", "/admin/keys/team", changed)[0] == 200
    assert asked(port, PATHS[0], key=made["key"]) == 403
    listed = admin("GET", "/admin/keys")[1]["keys"]
    assert {key["id"]: key["from"] for key in listed} == {
        "ops": "configuration",
        "k": "configuration",
        "team": "admin",
    }
    assert made["key"] not in str(listed)
    assert digest_key(made["key"]) not in str(listed)
    assert admin("POST", "/admin/keys/team/revoke")[0] == 200
    assert asked(port, PATHS[0], key=made["key"]) == 401
    assert admin("POST", "/admin/keys/k/revoke")[0] == 200
    assert asked(port, PATHS[0]) == 401
    assert admin("POST", "/admin/keys/k/restore")[0] == 200
    assert asked(port, PATHS[0]) == 200
    assert admin("POST", "/admin/keys/ops/revoke")[0] == 409
    assert admin("POST", "/admin/keys/nobody/revoke")[0] == 404
    rows = [row for row in at.ledger.rows if isinstance(row, EventRow)]
    changes = [row.detail["change"] for row in rows if row.kind is EventKind.POLICY]
    assert changes == ["added", "changed", "revoked", "revoked", "restored"]


def test_surface_that_the_configuration_closes_is_not_opened_by_hand(stage: Start) -> None:
    """The admin API opens what was closed while it runs, never what the operator wrote."""
    keys = tuple(Key(**key) for key in KEYS)
    at = stage(keys=keys, surfaces={Surface.CHAT: SurfacePolicy(closed=True)})
    assert asked(at.gateway.port, "/admin/surfaces/openai.chat/open", b"{}", ADMIN) == 409
    assert asked(at.gateway.port, PATHS[0]) == 503


def test_gateway_whose_store_is_away_is_not_ready(stage: Start, redis: RealRedis) -> None:
    """Readyz says that the store does not answer, requests are refused, and both end with it."""
    at = stage(keys=tuple(Key(**key) for key in KEYS), store=redis.url)
    assert asked(at.gateway.port, PATHS[0]) == 200
    redis.stop()
    time.sleep(1.2)
    assert asked(at.gateway.port, PATHS[0]) == 503
    status, _, body = post(at.gateway.port, "/readyz", b"", method="GET")
    assert status == 503
    assert json.loads(body)["store"] == "not answering"
    redis.start()
    until = time.monotonic() + 30
    while asked(at.gateway.port, PATHS[0]) != 200:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_sql_store_is_a_store(tmp_path: Path) -> None:
    """Several that open one database at once make its tables once."""

    async def go() -> None:
        stores: list[Store] = await asyncio.gather(
            *(asyncio.to_thread(SqlStore, f"sqlite:///{tmp_path}/s.db") for _ in range(4))
        )
        await asyncio.gather(*(store.add("k", 1, 86_400) for store in stores))
        assert await stores[0].add("k", 0, 86_400) == 4
        for store in stores:
            await store.close()

    asyncio.run(go())
