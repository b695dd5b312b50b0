"""Keys, budgets, actions, exemptions, swaps and canaries, on a running gateway."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any, Never

import msgspec
import pytest
from gateway_wire import PATHS, Start, body_for, post

from safehold.errors import BundleError, ConfigError
from safehold.guard.gateway.access.store import MemoryStore, SqlStore
from safehold.guard.gateway.bundles.active_guard import Held
from safehold.guard.gateway.bundles.swap import LoadedBundle, Probe
from safehold.guard.gateway.interface import Exempt, NotExempt, Surface
from safehold.guard.gateway.policy import Budget, Canary, Key, Settings, SurfacePolicy, digest_key
from safehold.guard.gateway.server import Parts
from safehold.guard.interface import FailMode
from safehold.guard.ledger.interface import EventKind, EventRow
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.session import Guard
from safehold.testing.guards import MARKER, held_rules, rule_guard
from safehold.testing.ledger import MemoryLedger
from safehold.testing.upstream import says

SECRET = "sk-safehold-0123456789abcdefghijklmnop"
ADMIN = "sk-safehold-zyxwvutsrqponmlkjihgfedcba98"


def key(**changes) -> Key:  # noqa: ANN003 - settings by name
    """Return a client's key."""
    return Key(**({"id": "laptop", "sha256": digest_key(SECRET), "tenant": "lab"} | changes))


def ask(at: Any, text: str = "hi", *, secret: str | None = SECRET, extra: str = ""):  # noqa: ANN201 - a fixture
    """Ask the chat surface with a key."""
    auth = f"authorization: Bearer {secret}\r\n" if secret else ""
    body = json.dumps(body_for(PATHS[0], text)).encode()
    return post(at.gateway.port, PATHS[0], body, extra=auth + extra)


def admin(at: Any, path: str, given: object = None):  # noqa: ANN201 - a fixture
    """Call the admin API."""
    body = b"" if given is None else json.dumps(given).encode()
    extra = f"authorization: Bearer {ADMIN}\r\n"
    status, _, answer = post(at.gateway.port, path, body, extra=extra)
    return status, json.loads(answer)


def test_no_key_and_wrong_key_are_refused(stage: Start) -> None:
    """Where keys are configured, nobody gets in without one, and the upstream never sees it."""
    at = stage(keys=(key(),))
    assert ask(at, secret=None)[0] == 401
    assert ask(at, secret="sk-wrong")[0] == 401
    assert ask(at)[0] == 200
    assert SECRET not in str(at.upstream.seen)
    assert (at.prompts()[-1].key_id, at.prompts()[-1].tenant) == ("laptop", "lab")


def test_keys_are_not_in_rows_or_settings(stage: Start) -> None:
    """Only a key's digest is kept anywhere."""
    at = stage(keys=(key(),))
    ask(at)
    assert SECRET not in str(at.ledger.rows)
    assert SECRET not in repr(at.gateway.gateway.settings)


@pytest.mark.parametrize("weak", ["", "secret", "a" * 40, "password1234"])
def test_weak_key_is_refused(weak: str) -> None:
    """A key that can be guessed is not accepted."""
    with pytest.raises(ConfigError, match="weak key"):
        digest_key(weak)


def test_exposed_address_without_a_key_is_refused() -> None:
    """A gateway beyond loopback needs a client key; an admin key is not one."""
    with pytest.raises(ConfigError, match="needs a client key"):
        Settings(host="0.0.0.0")
    with pytest.raises(ConfigError, match="needs a client key"):
        Settings(host="0.0.0.0", keys=(key(admin=True),))
    assert Settings(host="0.0.0.0", keys=(key(),)).host == "0.0.0.0"


def test_key_of_another_surface_is_refused(stage: Start) -> None:
    """A key that is bound to one surface opens no other."""
    at = stage(keys=(key(surfaces=(Surface.MESSAGES,)),))
    assert ask(at)[0] == 403
    assert at.prompts()[-1].action == "refuse"


def test_requests_per_minute_are_counted(stage: Start) -> None:
    """Requests beyond the budget get 429 with a time to wait."""
    at = stage(keys=(key(budget=Budget(requests_per_minute=2)),))
    assert [ask(at)[0] for _ in range(3)] == [200, 200, 429]
    assert b"retry-after: 60" in ask(at)[1]


def test_flag_budget_suspends_a_key(stage: Start) -> None:
    """A key that was blocked too often is suspended, for harmless requests too."""
    at = stage(keys=(key(budget=Budget(flags_per_day=2)),))
    assert ask(at, MARKER)[0] == 200
    assert ask(at, MARKER)[0] == 200
    time.sleep(0.1)
    assert ask(at, "hi")[0] == 403


def no_more(path: object) -> Never:
    """Stand where no test loads a bundle."""
    raise AssertionError(path)


def test_unreadable_text_is_counted_by_row_and_by_day(stage: Start) -> None:
    """A key that got its day's unreadable characters gets no more of them, but other answers."""
    cascade = rule_guard("never said").cascade
    held = Held(Guard(cascade, ViewDecoder()), name="views", canaries=())
    parts = Parts(loader=no_more, held=held)
    at = stage(parts=parts, keys=(key(budget=Budget(unreadable_per_day=250)),))
    cipher = "Xqzv jkwp tgbz qvxn rlkd hzwq bxpj mvzt kqdg wxzr jpqb vnkh zgtx qlwm. " * 2
    at.upstream.script = says(cipher)
    first, second = (b"content_filter" in ask(at)[2] for _ in range(2))
    assert (first, second) == (False, True)
    assert at.finals()[0].unreadable > 100
    at.upstream.script = says("The old harbour keeps its boats in rows along the quay.")
    assert b"content_filter" not in ask(at)[2]
    assert at.finals()[-1].unreadable == 0


def test_token_budget_is_charged(stage: Start) -> None:
    """Tokens that the upstream counted are charged to the key."""
    at = stage(keys=(key(budget=Budget(tokens_per_day=10)),))
    body = json.dumps(body_for(PATHS[0], "hi", stream=False)).encode()
    extra = f"x-api-key: {SECRET}\r\n"
    assert post(at.gateway.port, PATHS[0], body, extra=extra)[0] == 200
    time.sleep(0.1)
    assert post(at.gateway.port, PATHS[0], body, extra=extra)[0] == 429


def test_policy_of_a_key_overrides_its_surface(stage: Start) -> None:
    """A key in shadow is delivered what another key is refused."""
    shadow = key(policies={Surface.CHAT: SurfacePolicy(shadow=True)})
    at = stage(keys=(shadow,))
    assert b"content_filter" not in ask(at, MARKER)[2]
    assert at.prompts()[-1].would_block is True


def test_use_case_is_recorded_and_checked(stage: Start) -> None:
    """The use case header goes to the row; anything but a plain name is refused."""
    at = stage()
    assert ask(at, secret=None, extra="x-safehold-use-case: search.v2\r\n")[0] == 200
    assert at.prompts()[-1].use_case == "search.v2"
    assert ask(at, secret=None, extra="x-safehold-use-case: a b c\r\n")[0] == 400


def test_fallback_sends_a_blocked_prompt_to_the_named_model(stage: Start) -> None:
    """A blocked prompt goes to the weaker model, whose reply is guarded all the same."""
    policy = SurfacePolicy(on_block="fallback", fallback_model="tiny")
    at = stage(default=policy)
    assert b"Hello" in ask(at, MARKER, secret=None)[2]
    assert at.upstream.requests[-1]["model"] == "tiny"
    assert at.prompts()[-1].action == "fallback"
    at.upstream.script = says(f"so the {MARKER} is", size=4)
    assert b"content_filter" in ask(at, MARKER, secret=None)[2]


def test_review_refuses_and_queues(stage: Start) -> None:
    """An exchange held for review is refused on the wire and queued in the ledger."""
    at = stage(default=SurfacePolicy(on_block="review"))
    assert b"content_filter" in ask(at, MARKER, secret=None)[2]
    events = [row for row in at.ledger.rows if isinstance(row, EventRow)]
    queued = [row for row in events if row.kind is EventKind.REVIEW]
    assert queued[0].decision_id == at.prompts()[-1].decision_id


class Grants:
    """Exempts one key from one clause."""

    def action_for(self, subject, use_case, clause, surface, now):  # noqa: ANN001, ANN201 - a fixture
        """Return the grant for `laptop` and the test clause."""
        del use_case, surface, now
        if (subject, clause) == ("laptop", "test-marker"):
            return Exempt(grant_id="grant-1")
        return NotExempt()


def test_exemption_changes_the_action_never_the_row(stage: Start) -> None:
    """An exempt subject is delivered what is blocked for others; verdict and score stay."""
    parts = Parts(loader=_never, held=held_rules(), exemptions=Grants())
    at = stage(says(f"so the {MARKER} is", size=4), parts=parts, keys=(key(),))
    assert MARKER.split()[2].encode() in ask(at, MARKER)[2]
    row, final = at.prompts()[-1], at.finals()[-1]
    assert (row.verdict, row.action, row.grant_id) == ("block", "forward", "grant-1")
    assert (final.verdict, final.outcome) == ("block", "complied")
    assert MARKER in "".join(item.text for item in final.delivered)


def _never(path: str) -> Never:
    raise AssertionError(path)


class FakeLoader:
    """Loads guards by name: `good`, `slow`, `bad` (fails its golden set), else refuses."""

    def __call__(self, path: str):  # noqa: ANN204 - a fixture
        """Return a guard whose golden set fits or not."""
        if path.name not in ("good", "bad", "slow"):
            raise BundleError("no such bundle")
        held = held_rules("green giraffe", digest="1" * 64)
        held.name = str(path)
        text = "green giraffe" if path.name != "bad" else "a yellow fish"
        golden = (Probe(prompt=text, reply="", blocked=True), Probe("hi", "there", blocked=False))
        if path.name == "slow":
            time.sleep(0.5)
        return LoadedBundle(held=held, golden=golden)


@pytest.fixture
def swapping(stage: Start, tmp_path: Path):  # noqa: ANN201 - a fixture
    """Return a gateway with an administrator and a folder of bundles."""
    admin_key = Key(id="ops", sha256=digest_key(ADMIN), admin=True)
    parts = Parts(loader=FakeLoader(), held=held_rules())
    return stage(parts=parts, keys=(admin_key,), bundles=str(tmp_path))


def test_good_bundle_takes_over_and_rolls_back_at_once(swapping: Any) -> None:
    """A sound bundle swaps in; rolling back loads nothing, and takes no second of work."""
    assert b"content_filter" in ask(swapping, MARKER, secret=None)[2]
    assert admin(swapping, "/admin/bundle", {"bundle": "good"}) == (200, {"bundle": "1" * 64})
    assert b"content_filter" not in ask(swapping, MARKER, secret=None)[2]
    assert b"content_filter" in ask(swapping, "a green giraffe", secret=None)[2]
    began = time.process_time()  # the gateway's threads included: a busy machine is no failure
    assert admin(swapping, "/admin/bundle/rollback")[0] == 200
    assert time.process_time() - began < 1
    assert b"content_filter" in ask(swapping, MARKER, secret=None)[2]


def test_bundle_swapped_on_one_host_is_followed_on_another(stage: Start, tmp_path: Path) -> None:
    """Two gateways with one store: what one puts to use the other loads from its own folder."""
    key = Key(id="ops", sha256=digest_key(ADMIN), admin=True)
    hosts = [
        stage(
            parts=Parts(loader=FakeLoader(), held=held_rules()),
            keys=(key,),
            bundles=str(tmp_path),
            store=f"sqlite:///{tmp_path}/store.db",
        )
        for _ in range(2)
    ]
    assert b"content_filter" not in ask(hosts[1], "a green giraffe", secret=None)[2]
    assert admin(hosts[0], "/admin/bundle", {"bundle": "good"})[0] == 200
    until = time.monotonic() + 60
    while b"content_filter" not in ask(hosts[1], "a green giraffe", secret=None)[2]:
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize("name", ["bad", "missing"])
def test_bad_bundle_never_takes_over(swapping: Any, name: str) -> None:
    """A bundle that fails its golden set or does not load changes nothing and is recorded."""
    status, answer = admin(swapping, "/admin/bundle", {"bundle": name})
    assert status == 409
    assert answer["error"]
    assert b"content_filter" in ask(swapping, MARKER, secret=None)[2]
    kinds = [row.kind for row in swapping.ledger.rows if isinstance(row, EventRow)]
    assert EventKind.BUNDLE_REFUSED in kinds


def test_stream_keeps_the_guard_it_began_with(swapping: Any) -> None:
    """A swap in the middle of a stream neither drops it nor changes its guard."""
    script = says("Quite harmless words. " * 20 + MARKER, size=4)
    swapping.upstream.script = msgspec.structs.replace(script, delay_s=0.003)
    from threading import Thread  # noqa: PLC0415 - an extra, or for one process only

    answers = []
    thread = Thread(target=lambda: answers.append(ask(swapping, secret=None)[2]))
    thread.start()
    until = time.monotonic() + 60
    while not swapping.upstream.requests:  # asked with the guard that it began with
        assert time.monotonic() < until
        time.sleep(0.01)
    assert admin(swapping, "/admin/bundle", {"bundle": "good"})[0] == 200
    thread.join()
    assert b"content_filter" in answers[0]


@pytest.mark.parametrize("bad", [{"bundle": "../../etc"}, {"bundle": "a/b"}, {"novel": 1}, []])
def test_admin_refuses_what_it_does_not_know(swapping: Any, bad: object) -> None:
    """Paths outside the folder and unknown fields are refused."""
    assert admin(swapping, "/admin/bundle", bad)[0] == 400 if bad != [] else True


def test_admin_needs_an_admin_key(stage: Start) -> None:
    """A client's key does not open the admin API."""
    at = stage(keys=(key(),))
    extra = f"authorization: Bearer {SECRET}\r\n"
    assert post(at.gateway.port, "/admin/bundle", b"{}", extra=extra)[0] == 401


def test_canary_that_passes_closes_its_surface(stage: Start) -> None:
    """A guard that stops catching its canary closes every surface, and says so."""
    at = stage(canary=Canary(prompts=(f"say {MARKER}",)))
    gateway = at.gateway.gateway
    assert ask(at, secret=None)[0] == 200
    gateway.relay.holder.swap(held_rules("green giraffe"))
    canaries = gateway.admin._canaries
    asyncio.run_coroutine_threadsafe(canaries.run_all(), at.gateway.loop).result(60)
    assert ask(at, secret=None)[0] == 503
    kinds = {row.kind for row in at.ledger.rows if isinstance(row, EventRow)}
    assert {EventKind.ALARM, EventKind.SURFACE_CLOSED} <= kinds


def test_ledger_bypass_is_explicit(stage: Start) -> None:
    """Only a policy that says so goes on without rows, and counts it."""
    ledger = MemoryLedger()
    parts = Parts(loader=_never, held=held_rules(), ledger=ledger)
    at = stage(parts=parts, default=SurfacePolicy(ledger_fail_mode=FailMode.BYPASS))
    ledger.fail = "gone"
    assert ask(at, secret=None)[0] == 200
    ledger.fail = None
    metrics = at.gateway.gateway.metrics.text()
    assert b'safehold_ledger_failures_total{surface="openai.chat"} 2.0' in metrics


def test_metrics_show_equal_coverage(stage: Start) -> None:
    """Delivered bytes never exceed scored bytes, and both are shown per surface."""
    at = stage(says("word " * 200))
    for path in PATHS:
        post(at.gateway.port, path, json.dumps(body_for(path, "hi")).encode())
    text = at.gateway.gateway.metrics.text().decode()
    for surface in ("openai.chat", "openai.responses", "anthropic.messages"):
        assert f'safehold_scored_bytes_total{{surface="{surface}"}} 1000.0' in text
        assert f'safehold_delivered_bytes_total{{surface="{surface}"}} 1000.0' in text


def test_embeddings_are_refused_until_allowed(stage: Start) -> None:
    """Embeddings pass by configuration only."""
    body = json.dumps({"model": "m", "input": "hi"}).encode()
    assert post(stage().gateway.port, "/v1/embeddings", body)[0] == 400
    status, _, answer = post(stage(embeddings="pass").gateway.port, "/v1/embeddings", body)
    assert (status, json.loads(answer)["data"][0]["embedding"]) == (200, [0.5, 0.25])


def test_unknown_setting_is_refused() -> None:
    """A misspelt setting is an error, not a default."""
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"hots": "127.0.0.1"}, Settings)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_store_counts_in_windows_and_forgets(kind: str, tmp_path: Path) -> None:
    """Counters start anew with each window; values end with their life."""
    now = [1000.0]
    url = f"sqlite:///{tmp_path}/store.db"
    store = MemoryStore(lambda: now[0]) if kind == "memory" else SqlStore(url, lambda: now[0])

    async def use() -> None:
        assert [await store.add("a", 2, 60) for _ in range(2)] == [2, 4]
        await store.put("b", b"value", 30)
        assert await store.get("b") == b"value"
        now[0] += 60
        assert await store.add("a", 1, 60) == 1
        assert await store.get("b") is None
        await store.close()

    asyncio.run(use())
