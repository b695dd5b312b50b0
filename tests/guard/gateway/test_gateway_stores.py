"""Clocks that jump, a real Redis, and traces in memory."""

import asyncio
import itertools
import json
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gateway_redis import RealRedis
from gateway_wire import PATHS, Start, body_for, post
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from safehold.guard.gateway.access.admission import Gate
from safehold.guard.gateway.access.store import MemoryStore, RedisStore, Store, open_store
from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.operate.tracing import Both, Tracer
from safehold.guard.gateway.policy import Budget, Key, digest_key
from safehold.guard.gateway.relaying.conversations import Histories
from safehold.guard.gateway.server import Parts
from safehold.guard.ledger.interface import FinalRow, PromptRow
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.writer import Ledger
from safehold.testing.guards import MARKER, held_rules
from safehold.testing.ports import held_port
from safehold.testing.upstream import Script

DAY = 86_400.0
NOON = 1_900_000_000.0


def limited(store: Store) -> tuple[Gate, Key]:
    """Return a gate and a key of two requests a minute."""
    key = Key(
        id="k",
        sha256=digest_key("sk-safehold-0123456789abcdefghijklmnop"),
        budget=Budget(requests_per_minute=2),
    )
    return Gate((key,), store), key


def admitted(gate: Gate, key: Key, times: int) -> int:
    """Return how many of some requests are admitted."""

    async def ask() -> int:
        answers = [await gate.admit(key, Surface.CHAT) for _ in range(times)]
        return sum(answer is None for answer in answers)

    return asyncio.run(ask())


@pytest.mark.parametrize("jump", [-DAY, -61.0, -1.0, 1.0, 61.0, DAY])
def test_clock_that_jumps_gives_at_most_one_budget_more(jump: float) -> None:
    """After a jump a window is never admitted beyond its budget, and going back gives none anew."""
    now = [NOON]
    gate, key = limited(MemoryStore(lambda: now[0]))
    assert admitted(gate, key, 5) == 2
    now[0] += jump
    assert admitted(gate, key, 5) <= 2
    now[0] -= jump
    assert admitted(gate, key, 5) == 0


def test_clock_that_jumps_keeps_the_order_of_rows(stage: Start, tmp_path: Path) -> None:
    """Rows stay in the order they happened in, and latencies stay sane, whatever the clock says."""
    url = f"{tmp_path}/ledger.db"
    at = stage(None, Parts(loader=_no_loader, held=held_rules(), ledger=_open(url)))
    body = json.dumps(body_for(PATHS[0], "hi")).encode()
    clock = [NOON]
    at.gateway.gateway.relay.clock = lambda: clock[0]
    for jump in (0.0, -DAY, 2 * DAY, -3 * DAY):
        clock[0] += jump
        assert post(at.gateway.port, PATHS[0], body)[0] == 200
    rows = [entry.row for entry in LedgerReader.open(url).after(0, limit=1000)]
    asked = [row for row in rows if isinstance(row, PromptRow) and row.use_case != "canary"]
    assert [row.at for row in asked] == [NOON, NOON - DAY, NOON + DAY, NOON - 2 * DAY]
    finals = {row.decision_id: row for row in rows if isinstance(row, FinalRow)}
    for row in asked:
        assert 0 <= (finals[row.decision_id].latency.total_ms or -1) < 60_000


def _no_loader(path: Path) -> None:
    raise AssertionError(path)


class _Lazy:
    """Opens a ledger inside the gateway's own loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ledger: Ledger | None = None

    async def append(self, *rows: object) -> int:
        """Pass rows on."""
        if self._ledger is None:
            self._ledger = await Ledger.open(self._url)
        return await self._ledger.append(*rows)

    async def close(self) -> None:
        """Close what was opened."""
        if self._ledger is not None:
            await self._ledger.close()


def _open(url: str) -> _Lazy:
    return _Lazy(url)


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A real Redis server on a free port."""
    with RealRedis(tmp_path) as server:
        yield server.url


def test_budgets_and_values_in_a_real_redis(redis_url: str) -> None:
    """Two workers' stores on one Redis count together; values live as long as they were given."""

    async def play() -> None:
        one, two = RedisStore(redis_url), RedisStore(redis_url)
        assert [await one.add("k", 1, 60), await two.add("k", 2, 60)] == [1, 3]
        await one.put("v", b"\x00bytes", 30)
        assert await two.get("v") == b"\x00bytes"
        assert await two.get("other") is None
        await one.close()
        await two.close()

    asyncio.run(play())


def test_gateway_with_redis_refuses_when_it_is_gone(stage: Start, redis_url: str) -> None:
    """Budgets in Redis are kept; a Redis that does not answer refuses, never lets pass."""
    secret = "sk-safehold-0123456789abcdefghijklmnop"
    key = Key(id="k", sha256=digest_key(secret), budget=Budget(requests_per_minute=2))
    body = json.dumps(body_for(PATHS[0], "hi")).encode()
    extra = f"x-api-key: {secret}\r\n"
    at = stage(keys=(key,), store=redis_url)
    statuses = [post(at.gateway.port, PATHS[0], body, extra=extra)[0] for _ in range(3)]
    assert statuses == [200, 200, 429]
    with held_port() as nobody:
        at = stage(keys=(key,), store=f"redis://127.0.0.1:{nobody}/0")
        assert post(at.gateway.port, PATHS[0], body, extra=extra)[0] == 503
    assert at.prompts()[-1].action == "refuse"


@pytest.mark.parametrize("path", PATHS)
def test_spans_carry_genai_names_and_no_content(stage: Start, path: str) -> None:
    """One span per exchange, one evaluation event per score, and none of the words."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    at = stage()
    gateway = at.gateway.gateway
    gateway.relay.watcher = Both(gateway.metrics, Tracer(provider.get_tracer("test")))
    for text in ("sesame", f"sesame {MARKER}"):
        post(at.gateway.port, path, json.dumps(body_for(path, text, stream=False)).encode())
    fair, blocked = exporter.get_finished_spans()
    assert fair.attributes["gen_ai.operation.name"] == "chat"
    assert fair.attributes["gen_ai.request.model"] == "m"
    assert fair.attributes["gen_ai.provider.name"] in ("openai", "anthropic")
    assert fair.attributes["gen_ai.usage.output_tokens"] == 5
    assert fair.attributes["safehold.decision_id"] == at.prompts()[0].decision_id
    for span, label in ((fair, "allow"), (blocked, "block")):
        events = [event for event in span.events if event.name == "gen_ai.evaluation.result"]
        assert [event.attributes["gen_ai.evaluation.name"] for event in events] == [
            "safehold.prompt",
            "safehold.reply",
        ]
        assert events[0].attributes["gen_ai.evaluation.score.label"] == label
        assert 0 <= events[0].attributes["gen_ai.evaluation.score.value"] <= 1
        assert span.end_time >= span.start_time
        assert "sesame" not in span.to_json()
        assert "purple" not in span.to_json()


def test_suspended_key_is_not_forgiven_under_load() -> None:
    """However many other keys are counted, a key over its daily flags stays out."""
    ticks = [0.0]
    store = MemoryStore(lambda: NOON, ticks=lambda: ticks[0])
    key = Key(id="k", sha256="0" * 64, budget=Budget(flags_per_day=1))
    gate = Gate((key,), store)

    async def go() -> int:
        await gate.charge(key, flagged=True, tokens=0)
        for number in range(30_000):
            await store.add(f"requests:{number}", 1, 60)
        refusal = await gate.admit(key, Surface.CHAT)
        return refusal.status if refusal is not None else 200

    assert asyncio.run(go()) == 403


def test_counters_end_with_their_windows_not_with_their_number() -> None:
    """Memory is bounded by keys and windows: what was not used for two windows is gone."""
    ticks = [0.0]
    store = MemoryStore(lambda: NOON + ticks[0], ticks=lambda: ticks[0])

    async def go() -> None:
        for minute in range(50):
            ticks[0] = 60.0 * minute
            for number in range(100):
                await store.add(f"requests:{number}", 1, 60)

    asyncio.run(go())
    assert len(store._counts[60]) <= 300


def test_values_are_bounded_by_their_bytes() -> None:
    """The oldest values go when the bytes are spent; what replaces a value is counted once."""
    store = MemoryStore(lambda: NOON, max_bytes=1000)

    async def go() -> list[bool]:
        for _ in range(50):
            await store.put("same", b"x" * 100, 60)
        for number in range(12):
            await store.put(f"v{number}", b"x" * 100, 60)
        return [await store.get(f"v{number}") is not None for number in range(12)]

    assert asyncio.run(go()) == [False] * 2 + [True] * 10


class SlowStore(MemoryStore):
    """A store that takes its time to keep a value."""

    async def put(self, key: str, value: bytes, life_s: int) -> None:
        """Keep a value, late."""
        await asyncio.sleep(0.1)
        await super().put(key, value, life_s)


@pytest.mark.parametrize("ids", [["r0", "r1", "r2", "r3"], ["same"] * 4, ["a", "b", "a", "b"]])
def test_conversation_is_kept_as_links_and_read_whole(stage: Start, ids: list[str]) -> None:
    """Each response keeps its own turns and is read with all before it, also where ids repeat."""
    at = stage()
    store = SlowStore(lambda: NOON)
    histories = at.gateway.gateway.histories = Histories(store)
    at.gateway.gateway.relay.keep = histories.keep
    sizes = []
    for turn, name in enumerate(ids):
        asked = body_for("/v1/responses", f"turn number {turn}", stream=False)
        if turn:
            asked["previous_response_id"] = ids[turn - 1]
        at.upstream.script = Script(response_id=name)
        assert post(at.gateway.port, "/v1/responses", json.dumps(asked).encode())[0] == 200
        whole = asyncio.run(histories.get(name, ""))  # at once: a quick client asks now
        assert whole is not None
        assert len(whole.turns) == 2 * turn + 2
        texts = [part.text for part in whole.texts() if part.text.startswith("turn")]
        assert texts == [f"turn number {number}" for number in range(turn + 1)]
        sizes.append(store._bytes)
    grown = [after - before for before, after in itertools.pairwise(sizes)]
    assert len(set(ids)) < len(ids) or max(grown) - min(grown) < 20


def test_workers_that_start_at_once_all_open_the_store(tmp_path: Path) -> None:
    """Another worker that is making the tables at this moment is nobody's failure."""
    path = tmp_path / "store.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE made (name)")
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(open_store, f"sqlite:///{path}")
        time.sleep(0.3)
        other.execute("COMMIT")
        asyncio.run(opening.result(60).close())
    other.close()
