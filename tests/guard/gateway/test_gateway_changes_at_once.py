"""Administrators who change the same key or tenant at the same time, and names of models."""

import asyncio
import itertools
import json
import re
import threading
import time

import pytest
from gateway_wire import Start, post

from safehold.errors import ConfigError
from safehold.guard.gateway.access.store import MemoryStore
from safehold.guard.gateway.key_settings import moment
from safehold.guard.gateway.model_names import matches, named
from safehold.guard.gateway.operate.managed_access import managed_keys
from safehold.guard.gateway.operate.shared_state import SharedState
from safehold.guard.gateway.policy import Key, digest_key
from safehold.guard.ledger.interface import EventRow
from safehold.testing.ledger import MemoryLedger

ADMIN = "sk-safehold-zyxwvutsrqponmlkjihgfedcba98"
OPS = Key(id="ops", sha256=digest_key(ADMIN), admin=True)
KEY = {"id": "k", "sha256": "a" * 64}
BOUNDS = {"budget": {"tokens_per_day": 5}}


class Meeting(MemoryStore):
    """A store that others read too."""

    @property
    def shared(self) -> bool:
        """Others do."""
        return True


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(
    ("kind", "closing", "other"),
    [
        ("key", "revoked", KEY),
        ("key", "revoked", None),
        ("tenant-blocked", True, None),
        ("surface", "closed", None),
        ("tenant", BOUNDS, None),
    ],
)
def test_what_closes_wins_over_what_comes_at_the_same_time(
    order: tuple[int, int], kind: str, closing: object, other: object
) -> None:
    """A key that is revoked on one host while another changes it is revoked on both."""

    async def go() -> list[object]:
        store = Meeting()
        states = [SharedState(store, time.monotonic) for _ in range(2)]
        for number in order:
            await states[number].set(kind, "x", (closing, other)[number])
        for state in (*states, *states, *states):
            await state.read()
        return [state.of(kind)["x"] for state in states]

    assert asyncio.run(go()) == [closing, closing]


def test_a_field_that_another_host_replaced_is_known_as_overruled() -> None:
    """Who wrote what does not hold can be told; who wrote what holds can not."""

    async def go() -> tuple[int, int]:
        store = Meeting()
        one, two = (SharedState(store, time.monotonic) for _ in range(2))
        await one.set("key", "x", KEY)
        await two.set("key", "x", "revoked")
        for state in (one, two, one, two):
            await state.read()
        return one.overruled("key", "x"), two.overruled("key", "x")

    assert asyncio.run(go()) == (1, 0)


def test_a_key_in_the_store_that_no_rule_allows_lets_nobody_in() -> None:
    """What another version, or a stranger, wrote is no key; it ends no gateway."""

    async def go() -> dict[str, Key | None]:
        state = SharedState(MemoryStore(), time.monotonic)
        for number, broken in enumerate(
            ({"expires_at": "soon"}, {"sha256": "x"}, {"tenant": "a\nb"}, {"more": 1}, {})
        ):
            await state.set("key", str(number), KEY | broken)
        return managed_keys(state)

    assert [key is not None for key in asyncio.run(go()).values()] == [False] * 4 + [True]


def _admin(port: int, method: str, path: str, given: object = None) -> tuple[int, dict]:
    body = json.dumps(given or {}).encode()
    status, _, answer = post(port, path, body, extra=f"x-api-key: {ADMIN}\r\n", method=method)
    return status, json.loads(answer)


def _at_once(port: int, asks: list[tuple[str, str, object]]) -> list[tuple[int, dict]]:
    """Ask all of them at the same moment."""
    begin, answers = threading.Barrier(len(asks)), []

    def go(ask: tuple[str, str, object]) -> None:
        begin.wait(30)
        answers.append(_admin(port, *ask))

    threads = [threading.Thread(target=go, args=(ask,)) for ask in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def test_of_two_keys_of_one_id_one_is_made(stage: Start) -> None:
    """Exactly one secret of an id is told, and it is the one that opens."""
    at = stage(keys=(OPS,))
    answers = _at_once(at.gateway.port, [("POST", "/admin/keys", {"id": "k"})] * 6)
    made = [answer["key"] for status, answer in answers if status == 200]
    assert sorted(status for status, _ in answers) == [200] + [409] * 5
    assert at.gateway.gateway.gate.ring.client(made[0]).id == "k"


def test_limits_that_are_changed_at_once_are_all_kept(stage: Start) -> None:
    """Two who each change another limit, of a key or of a tenant, lose neither."""
    at = stage(keys=(OPS,))
    port = at.gateway.port
    _admin(port, "POST", "/admin/keys", {"id": "k"})
    limits = ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "flags_per_day")
    for path in ("/admin/keys/k", "/admin/tenants/t"):
        asks = [("PATCH", path, {"budget": {limit: 7}}) for limit in limits]
        assert {status for status, _ in _at_once(port, asks)} == {200}
        budget = _admin(port, "GET", path)[1]["budget"]
        assert {limit: budget[limit] for limit in limits} == dict.fromkeys(limits, 7)


def test_a_key_revoked_while_it_is_rotated_and_changed_is_out(stage: Start) -> None:
    """No change that is under way brings a revoked key back."""
    at = stage(keys=(OPS,))
    port = at.gateway.port
    for number in range(5):
        path = f"/admin/keys/k{number}"
        _admin(port, "POST", "/admin/keys", {"id": f"k{number}"})
        change = ("PATCH", path, {"budget": {"tokens_per_day": 1}})
        rotate = ("POST", f"{path}/rotate", {"grace_s": 60})
        _at_once(port, [rotate, change, ("POST", f"{path}/revoke", {}), change, rotate])
        assert _admin(port, "GET", path)[1]["state"] == "revoked"


@pytest.mark.parametrize(
    ("place", "out", "back"),
    [
        ("/admin/keys/configured", "revoke", "restore"),
        ("/admin/tenants/t", "block", "unblock"),
        ("/admin/surfaces/openai.chat", "close", "open"),
    ],
)
def test_a_ledger_that_is_away_keeps_nobody_in_and_lets_nobody_in(
    stage: Start, place: str, out: str, back: str
) -> None:
    """What shuts out holds before its row is written; what lets in waits for its row."""
    other = Key(id="configured", sha256=digest_key("sk-configured-0123456789"), tenant="t")
    at = stage(keys=(OPS, other))
    port = at.gateway.port

    def is_out() -> bool:
        if "surfaces" in place:
            return bool(
                _admin(port, "GET", "/admin/status")[1]["surfaces"]["openai.chat"] != "open"
            )
        return bool(_admin(port, "GET", place)[1]["state"] != "active")

    assert not is_out()
    at.ledger.fail = "the disk is full"
    assert _admin(port, "POST", f"{place}/{out}")[0] == 503
    assert is_out()
    assert _admin(port, "POST", f"{place}/{back}")[0] == 503
    assert is_out()
    at.ledger.fail = None
    assert _admin(port, "POST", f"{place}/{back}")[0] == 200
    assert not is_out()


@pytest.fixture(scope="module")
def one_key(module_stage: Start) -> tuple[int, MemoryLedger]:
    """The port and the ledger of a gateway with one key of the admin API, for all tests."""
    at = module_stage(keys=(OPS,))
    _admin(at.gateway.port, "POST", "/admin/keys", {"id": "k"})
    return at.gateway.port, at.ledger


@pytest.mark.parametrize(
    "given",
    [
        {"budget": {"tokens_per_day": -1}},
        {"budget": {"tokens_per_day": 1e308}},
        {"budget": {"tokens_per_day": 1.5}},
        {"budget": {"tokens_per_day": True}},
        {"budget": {"tokens_per_day": "5"}},
        {"budget": {"tokens_per_week": 5}},
        {"budget": 5},
        {"tenant": ""},
        {"tenant": "a\u200bb"},
        {"models": "small"},
        {"id": "other"},
        {"sha256": "b" * 64},
        {"admin": True},
        {"policies": {}},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "9999-99-99"},
    ],
)
def test_a_change_that_can_not_be_changes_nothing(
    one_key: tuple[int, MemoryLedger], given: dict
) -> None:
    """A wrong value is 400, leaves no row and leaves the key as it was."""
    port, ledger = one_key
    before = _admin(port, "GET", "/admin/keys/k")[1]
    events = sum(isinstance(row, EventRow) for row in ledger.rows)
    assert _admin(port, "PATCH", "/admin/keys/k", given)[0] == 400
    assert _admin(port, "GET", "/admin/keys/k")[1] == before
    assert sum(isinstance(row, EventRow) for row in ledger.rows) == events


def test_a_key_says_that_it_has_run_out(stage: Start) -> None:
    """Whoever looks at a key that has ended is not told that it is active."""
    past = Key(id="k", sha256="b" * 64, expires_at="2020-01-01T00:00:00Z")
    port = stage(keys=(OPS, past)).gateway.port
    assert _admin(port, "GET", "/admin/keys/k")[1]["state"] == "run out"


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_time_at_the_end_of_all_times_is_no_defect(text: str) -> None:
    """It is seconds or it is an error of ours, on every platform."""
    try:
        assert isinstance(moment(text), float)
    except ConfigError:
        return


@pytest.mark.parametrize(
    ("id_", "tenant"),
    [("a/b", "t"), ("", "t"), ("a\nb", "t"), ("a", "x" * 129), ("a", "t\u202e"), ("a", " t")],
)
def test_a_name_that_could_not_be_revoked_is_no_name(id_: str, tenant: str) -> None:
    """The configuration refuses ids and tenants that no command could name again."""
    with pytest.raises(ConfigError, match="expected"):
        Key(id=id_, sha256="a" * 64, tenant=tenant)


def test_models_are_matched_as_a_regular_expression_would() -> None:
    """Every short name over a small alphabet, against every short model."""
    words = ["".join(one) for size in range(5) for one in itertools.product("ab*", repeat=size)]
    models = ["".join(one) for size in range(5) for one in itertools.product("ab", repeat=size)]
    for name in words:
        pattern = re.compile(".*".join(re.escape(part) for part in name.split("*")), re.DOTALL)
        for model in models:
            assert matches(model, name) is (pattern.fullmatch(model) is not None), (model, name)


def test_a_name_of_many_stars_costs_nothing() -> None:
    """A client's model of a megabyte of the letter between the stars is answered at once."""
    began = time.process_time()
    assert not named("a" * 1_000_000 + "c", ["*a" * 50 + "*b"])
    assert named("a" * 1_000_000 + "b", ["*a" * 50 + "*b"])
    assert time.process_time() - began < 1
