"""Requests for routing, fallbacks and keys, written from the documentation of LiteLLM's proxy.

Each row names the page of docs.litellm.ai that says what must come. What differs on purpose, and
what we leave out, is named in docs/gateway.md; its rows are in `LEFT_OUT`.
"""

import datetime as dt
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gateway_wire import Start, post

from safehold.guard.gateway.policy import Key, digest_key
from safehold.guard.gateway.routing_settings import NamedUpstream, Route, Target
from safehold.testing.ports import held_port
from safehold.testing.upstream import Fault, MockUpstream, Script, says

DOCS = Path(__file__).parents[3] / "docs" / "gateway.md"
MASTER = "sk-safehold-zyxwvutsrqponmlkjihgfedcba98"
OPS = Key(id="ops", sha256=digest_key(MASTER), admin=True)
FINE = says("fine")
BROKEN, LIMITED, REFUSES = (
    Script(fault=Fault.STATUS_500),
    Script(fault=Fault.STATUS_429),
    Script(fault=Fault.STATUS_400),
)
AWAY = None
"""A server that nobody listens for."""


class Asked(msgspec.Struct, frozen=True):
    """One documented request: what the servers do, the route, and what the client must get."""

    page: str
    says: str
    servers: dict[str, Script | None]
    route: Route
    model: str = "gpt"
    path: str = "/v1/chat/completions"
    more: dict[str, Any] = {}
    status: int = 200
    times: int = 1
    each: bool = False
    """Whether every server must have been asked."""
    asked: dict[str, int] = {}
    """How often each server was asked; a server that is not here may be asked or not."""
    sent: dict[str, Any] = {}
    """What the last request that reached a server said, field by field."""


def route(*to: str, models: tuple[str, ...] = ("gpt",), **changes: Any) -> Route:
    """Return a route to servers of equal shares, without retries unless it says so."""
    targets = tuple(Target(upstream=name) for name in to)
    return Route(models=models, to=targets, **({"retries": 0} | changes))


def spare(*names: str) -> tuple[Target, ...]:
    """Return fallbacks, in order."""
    return tuple(Target(upstream=name) for name in names)


BALANCE, RELIABLE, ROUTER, STAR = (
    "proxy/load_balancing",
    "proxy/reliability",
    "routing",
    "wildcard_routing",
)
TWO: dict[str, Script | None] = {"a": FINE, "b": FINE}
ALIAS = Route(models=("gpt",), to=(Target(upstream="a", model="azure-1"),), retries=0)
ROUTING = {
    "name of a group": Asked(
        BALANCE,
        "a model_name is sent to its deployment under the deployment's own name",
        {"a": FINE},
        ALIAS,
        asked={"a": 1},
        sent={"model": "azure-1"},
    ),
    "alias": Asked(
        BALANCE,
        "model_group_alias sends one name to another's deployments",
        {"a": FINE},
        Route(models=("gpt", "gpt-4"), to=ALIAS.to),
        model="gpt-4",
        sent={"model": "azure-1"},
    ),
    "several deployments": Asked(
        BALANCE, "each of several deployments serves", TWO, route("a", "b"), times=22, each=True
    ),
    "weight": Asked(
        ROUTER,
        "a deployment of weight 0 is left out while another has some",
        TWO,
        Route(models=("gpt",), to=(Target(upstream="a"), Target(upstream="b", share=0))),
        times=6,
        asked={"a": 6, "b": 0},
    ),
    "order": Asked(
        ROUTER,
        "order 2 is not used while order 1 is there",
        TWO,
        route("a", fallbacks=spare("b")),
        times=4,
        asked={"a": 4, "b": 0},
    ),
    "order, first is gone": Asked(
        ROUTER,
        "order 2 is tried when order 1 fails",
        {"a": AWAY, "b": FINE},
        route("a", fallbacks=spare("b")),
        asked={"b": 1},
    ),
    "retry": Asked(
        RELIABLE,
        "a call is made num_retries times more before a fallback",
        {"a": BROKEN, "b": FINE},
        route("a", retries=2, fallbacks=spare("b")),
        asked={"a": 3, "b": 1},
    ),
    "retry elsewhere": Asked(
        BALANCE,
        "a rate limit of one deployment is retried on the group's next",
        {"a": LIMITED, "b": FINE},
        Route(
            models=("gpt",),
            to=(Target(upstream="a", share=1000), Target(upstream="b", share=1)),
            retries=1,
        ),
        asked={"b": 1},
    ),
    "fallback of 500": Asked(
        RELIABLE,
        "fallbacks cover 500",
        {"a": BROKEN, "b": FINE},
        route("a", fallbacks=spare("b")),
        asked={"a": 1, "b": 1},
    ),
    "fallback of 429": Asked(
        RELIABLE,
        "fallbacks cover 429",
        {"a": LIMITED, "b": FINE},
        route("a", fallbacks=spare("b")),
        asked={"a": 1, "b": 1},
    ),
    "fallback of silence": Asked(
        RELIABLE,
        "fallbacks cover a server that is away",
        {"a": AWAY, "b": FINE},
        route("a", fallbacks=spare("b")),
        asked={"b": 1},
    ),
    "fallbacks in order": Asked(
        RELIABLE,
        "fallbacks are done in order",
        {"a": BROKEN, "b": LIMITED, "c": FINE, "d": FINE},
        route("a", fallbacks=spare("b", "c", "d")),
        asked={"a": 1, "b": 1, "c": 1, "d": 0},
    ),
    "fallback to another model": Asked(
        RELIABLE,
        "a fallback is another model's group",
        {"a": BROKEN, "b": FINE},
        route("a", fallbacks=(Target(upstream="b", model="claude"),)),
        sent={"model": "claude"},
    ),
    "all fail": Asked(
        RELIABLE,
        "the last error is told when every fallback failed",
        {"a": BROKEN, "b": LIMITED},
        route("a", fallbacks=spare("b")),
        status=429,
        asked={"a": 1, "b": 1},
    ),
    "bad request": Asked(
        ROUTER,
        "a retry policy makes no retry of a bad request",
        {"a": REFUSES, "b": FINE},
        route("a", retries=2, fallbacks=spare("b")),
        status=400,
        asked={"a": 1, "b": 0},
    ),
    "cooldown": Asked(
        ROUTER,
        "a deployment that failed more often than allowed_fails is left out",
        {"a": BROKEN, "b": FINE},
        route("a", fallbacks=spare("b")),
        times=6,
        asked={"a": 3, "b": 6},
    ),
    "fallback of a stream": Asked(
        RELIABLE,
        "a stream falls back before its first text",
        {"a": BROKEN, "b": FINE},
        route("a", fallbacks=spare("b")),
        more={"stream": True},
        asked={"b": 1},
    ),
    "star": Asked(
        STAR,
        "provider/* takes every model of a provider, under its name",
        {"a": FINE},
        route("a", models=("anthropic/*",)),
        model="anthropic/claude-3",
        sent={"model": "anthropic/claude-3"},
    ),
    "stars in the middle": Asked(
        STAR,
        "fo::*:static::* takes fo::hi::static::hi",
        {"a": FINE},
        route("a", models=("fo::*:static::*",)),
        model="fo::hi::static::hi",
        asked={"a": 1},
    ),
    "catch-all": Asked(
        RELIABLE,
        "default_fallbacks: `*` takes what no other route names",
        {"a": FINE},
        route("a", models=("*",)),
        model="whatever",
        asked={"a": 1},
    ),
    "completions": Asked(
        BALANCE,
        "routes hold for /v1/completions",
        {"a": FINE},
        ALIAS,
        path="/v1/completions",
        more={"prompt": "hi"},
        sent={"model": "azure-1"},
    ),
    "responses": Asked(
        "response_api",
        "routes hold for /v1/responses",
        {"a": BROKEN, "b": FINE},
        route("a", fallbacks=spare("b")),
        path="/v1/responses",
        more={"input": "hi"},
        asked={"a": 1, "b": 1},
    ),
    "messages": Asked(
        "anthropic_unified",
        "routes hold for /v1/messages",
        {"a": BROKEN, "b": FINE},
        route("a", fallbacks=spare("b")),
        path="/v1/messages",
        more={"max_tokens": 9},
        asked={"a": 1, "b": 1},
    ),
}


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where nobody listens."""
    with held_port() as port:
        yield port


@pytest.fixture
def mocks() -> Iterator[Callable[[Script], MockUpstream]]:
    """Return a function that starts a further mock upstream."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(MockUpstream(script))


def body_of(one: Asked) -> bytes:
    """Return the request's body."""
    given: dict[str, Any] = {"model": one.model} | one.more
    if one.path in ("/v1/chat/completions", "/v1/messages"):
        given["messages"] = [{"role": "user", "content": "hi"}]
    return json.dumps(given).encode()


@pytest.mark.parametrize("name", ROUTING)
def test_routing_is_answered_as_documented(
    stage: Start, mocks: Callable[[Script], MockUpstream], silent: int, name: str
) -> None:
    """Each documented request reaches the server that it must, and its client gets that answer."""
    one = ROUTING[name]
    nobody = f"http://127.0.0.1:{silent}/v1"
    servers = {key: mocks(script) for key, script in one.servers.items() if script is not None}
    urls = {key: servers[key].url if key in servers else nobody for key in one.servers}
    at = stage(
        upstreams={key: NamedUpstream(url=url) for key, url in urls.items()}, routes=(one.route,)
    )
    for _ in range(one.times):
        assert post(at.gateway.port, one.path, body_of(one))[0] == one.status, one.says
    for key, count in one.asked.items():
        assert len(servers[key].requests) == count, one.says
    assert not one.each or all(server.requests for server in servers.values()), one.says
    assert sum(len(server.requests) for server in servers.values()) >= one.times
    last = [server.requests[-1] for server in servers.values() if server.requests][-1]
    assert {field: last.get(field) for field in one.sent} == one.sent, one.says
    assert at.upstream.requests == []


# -- keys ----------------------------------------------------------------------------------------


class Desk:
    """A gateway with an administrator, as a client of its admin API sees it."""

    def __init__(self, start: Start) -> None:
        self.now = 1_900_000_000.0
        self.at = start(keys=(OPS, CLIENT))
        self.ring = self.at.gateway.gateway.gate.ring
        self.ring._clock = lambda: self.now
        self.at.gateway.gateway.admin._access._clock = lambda: self.now

    def admin(self, method: str, path: str, **given: Any) -> tuple[int, dict[str, Any]]:
        """Ask the admin API."""
        extra = f"authorization: Bearer {MASTER}\r\n"
        body = json.dumps(given).encode()
        status, _, answer = post(
            self.at.gateway.port, f"/admin{path}", body, extra=extra, method=method
        )
        return status, json.loads(answer)

    def key(self, name: str = "k", **given: Any) -> str:
        """Make a key."""
        status, made = self.admin("POST", "/keys", id=name, **given)
        assert status == 200, made
        return made["key"]

    def chat(self, key: str | None, model: str = "gpt-4", header: str = "authorization") -> int:
        """Ask for a chat completion; return the status."""
        given = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        return self._post("/v1/chat/completions", given, key, header)

    def _post(self, path: str, given: dict[str, Any], key: str | None, header: str) -> int:
        word = f"Bearer {key}" if header == "authorization" else key
        extra = f"{header}: {word}\r\n" if key else ""
        return post(self.at.gateway.port, path, json.dumps(given).encode(), extra=extra)[0]

    def completions(self, key: str) -> int:
        """Ask for an old completion; return the status."""
        given = {"model": "gpt-4", "prompt": "hi"}
        return self._post("/v1/completions", given, key, "authorization")

    def models(self, key: str) -> set[str]:
        """Return the models that a key is told of."""
        extra = f"authorization: Bearer {key}\r\n"
        answer = post(self.at.gateway.port, "/v1/models", b"", extra=extra, method="GET")[2]
        return {one["id"] for one in json.loads(answer)["data"]}

    def after(self, seconds: float) -> str:
        """Return the time that many seconds from the desk's now."""
        return dt.datetime.fromtimestamp(self.now + seconds, dt.UTC).isoformat()


CLIENT_KEY = "sk-safehold-0123456789abcdefghijklmnop"
CLIENT = Key(id="configured", sha256=digest_key(CLIENT_KEY))
Check = Callable[[Desk], bool]
KEYS, USERS, ACCESS, GENERATE = (
    "proxy/virtual_keys",
    "proxy/users",
    "proxy/model_access",
    "api/key-management",
)


def _rotated(d: Desk) -> bool:
    old = d.key()
    new = d.admin("POST", "/keys/k/rotate", grace_s=60)[1]["key"]
    during = (d.chat(old), d.chat(new))
    d.now += 61
    return during == (200, 200) and (d.chat(old), d.chat(new)) == (401, 200)


def _team(d: Desk, **given: Any) -> tuple[str, str]:
    assert d.admin("PUT", "/tenants/team", **given)[0] == 200
    return d.key("one", tenant="team"), d.key("two", tenant="team")


def _blocked_team(d: Desk) -> bool:
    one, two = _team(d)
    d.admin("POST", "/tenants/team/block")
    shut = (d.chat(one), d.chat(two), d.chat(CLIENT_KEY)) == (403, 403, 200)
    d.admin("POST", "/tenants/team/unblock")
    return shut and d.chat(one) == 200


def _shared_limit(d: Desk) -> bool:
    one, two = _team(d, budget={"requests_per_minute": 2})
    return [d.chat(one), d.chat(two), d.chat(one), d.chat(two)] == [200, 200, 429, 429]


def _changed(d: Desk) -> bool:
    key = d.key(models=["gpt-4"])
    before = (d.chat(key), d.chat(key, "claude"))
    d.admin("PUT", "/keys/k", id="k", models=["claude"])
    return before == (200, 403) and (d.chat(key), d.chat(key, "claude")) == (403, 200)


def _used(d: Desk) -> bool:
    key = d.key(budget={"tokens_per_day": 1000, "requests_per_minute": 9})
    d.chat(key)
    told = d.admin("GET", "/keys/k")[1]
    return told["used"]["requests_per_minute"] == 1 and told["used"]["tokens_per_day"] > 0


def _twice(d: Desk) -> bool:
    d.key()
    return d.admin("POST", "/keys", id="k")[0] == 409


def _put_back(d: Desk) -> bool:
    d.admin("POST", "/keys/configured/revoke")
    out = d.chat(CLIENT_KEY)
    d.admin("POST", "/keys/configured/restore")
    return (out, d.chat(CLIENT_KEY)) == (401, 200)


def _gone(d: Desk) -> bool:
    key = d.key()
    d.admin("POST", "/keys/k/revoke")
    return d.chat(key) == 401


def _runs_out(d: Desk) -> bool:
    key = d.key(expires_at=d.after(1200))
    before = d.chat(key)
    d.now += 1200
    return (before, d.chat(key)) == (200, 401)


def _limited(d: Desk, name: str, least: int) -> bool:
    key = d.key(budget={name: least})
    statuses = [d.chat(key) for _ in range(3)]
    return statuses[0] == 200 and statuses[-1] == 429


def _team_models(d: Desk) -> bool:
    one, _ = _team(d, models=["gpt-4"])
    return (d.chat(one), d.chat(one, "claude")) == (200, 403)


def _hidden(d: Desk) -> bool:
    key = d.key()
    told = json.dumps(d.admin("GET", "/keys")[1])
    return key not in told and digest_key(key) not in told


def _narrowest(d: Desk) -> bool:
    d.admin("PUT", "/tenants/team", models=["gpt-*"])
    key = d.key(tenant="team", models=["gpt-4", "claude"])
    return (d.chat(key), d.chat(key, "claude"), d.chat(key, "gpt-5")) == (200, 403, 403)


KEY_ROWS: dict[str, tuple[str, str, Check]] = {
    "generated key opens": (KEYS, "a generated key calls models", lambda d: d.chat(d.key()) == 200),
    "generated key is a secret": (KEYS, "it begins with sk-", lambda d: d.key().startswith("sk-")),
    "no key": (KEYS, "a call without a key is 401", lambda d: d.chat(None) == 401),
    "wrong key": (KEYS, "an unknown key is 401", lambda d: d.chat("sk-1234" * 6) == 401),
    "x-api-key": (
        "anthropic_unified",
        "the key may come as x-api-key",
        lambda d: d.chat(d.key(), header="x-api-key") == 200,
    ),
    "models": (
        ACCESS,
        "a model of the list is allowed",
        lambda d: d.chat(d.key(models=["gpt-4"])) == 200,
    ),
    "other model": (
        ACCESS,
        "a model that is not in the list is refused",
        lambda d: d.chat(d.key(models=["gpt-4"]), "gpt-4o") == 403,
    ),
    "empty list": (KEYS, "an empty list allows all", lambda d: d.chat(d.key(), "any") == 200),
    "star": (
        ACCESS,
        "openai/* allows every model of a provider",
        lambda d: d.chat(d.key(models=["openai/*"]), "openai/gpt-4") == 200,
    ),
    "star refuses others": (
        ACCESS,
        "and none of another",
        lambda d: d.chat(d.key(models=["openai/*"]), "groq/llama") == 403,
    ),
    "listed models": (
        "proxy/model_discovery",
        "/v1/models tells a key of its own models",
        lambda d: (
            (d.models(d.key("a", models=["mock"])), d.models(d.key("b", models=["x"])))
            == ({"mock"}, set())
        ),
    ),
    "duration": (KEYS, "a key ends after its duration", _runs_out),
    "rpm_limit": (USERS, "rpm_limit is 429", lambda d: _limited(d, "requests_per_minute", 1)),
    "tpm_limit": (USERS, "tpm_limit is 429", lambda d: _limited(d, "tokens_per_minute", 1)),
    "budget": (USERS, "a spent budget refuses", lambda d: _limited(d, "tokens_per_day", 1)),
    "key info": (KEYS, "/key/info tells what a key may do and used", _used),
    "no such key": (
        KEYS,
        "/key/info of none is 404",
        lambda d: d.admin("GET", "/keys/x")[0] == 404,
    ),
    "key list": (
        GENERATE,
        "/key/list lists keys",
        lambda d: d.key() and {"k", "ops"} <= {k["id"] for k in d.admin("GET", "/keys")[1]["keys"]},
    ),
    "key update": (KEYS, "/key/update changes the models", _changed),
    "key delete": (KEYS, "a deleted key is 401", _gone),
    "key block": (GENERATE, "/key/block and /key/unblock", _put_back),
    "key regenerate": (KEYS, "the key before works for grace_period, then no more", _rotated),
    "key alias is its own": (KEYS, "an alias is used once", _twice),
    "allowed_routes": (
        KEYS,
        "a key may be bound to routes",
        lambda d: (
            (
                d.chat(k := d.key(surfaces=["openai.chat"])),
                d.completions(k),
            )
            == (200, 403)
        ),
    ),
    "hashed": (KEYS, "keys are kept as hashes, and not told again", _hidden),
    "not an admin": (
        "proxy/access_control",
        "a virtual key can't manage keys",
        lambda d: d._post("/admin/keys", {"id": "x"}, d.key(), "authorization") == 401,
    ),
    "team models": (ACCESS, "a team's models bind its keys", _team_models),
    "team and key models": (ACCESS, "a key may what both allow", _narrowest),
    "team rpm_limit": (USERS, "a team's keys share its rpm_limit", _shared_limit),
    "team block": ("proxy/team_budgets", "/team/block shuts out all its keys", _blocked_team),
    "team info": (
        "proxy/team_budgets",
        "/team/info tells bounds, keys and use",
        lambda d: (
            _team(d, budget={"requests_per_minute": 5}) != ()
            and d.admin("GET", "/tenants/team")[1]["keys"] == ["one", "two"]
        ),
    ),
    "team list": (
        "proxy/team_budgets",
        "/team/list lists teams",
        lambda d: (
            _team(d) != ()
            and "team" in {one["id"] for one in d.admin("GET", "/tenants")[1]["tenants"]}
        ),
    ),
    "team delete": (
        "proxy/team_budgets",
        "a team without bounds binds nobody",
        lambda d: (
            d.chat(_team(d, models=["x"])[0]) == 403
            and d.admin("POST", "/tenants/team/remove")[0] == 200
            and d.chat(d.key("three", tenant="team")) == 200
        ),
    ),
}


@pytest.mark.parametrize("name", KEY_ROWS)
def test_keys_and_teams_do_as_documented(stage: Start, name: str) -> None:
    """Each documented request about keys, teams and budgets is answered as it says."""
    _, told, check = KEY_ROWS[name]
    assert check(Desk(stage)), told


def test_there_are_forty_requests_or_more() -> None:
    """The table does not shrink unseen."""
    assert len(ROUTING) + len(KEY_ROWS) >= 40


LEFT_OUT: dict[str, tuple[dict[str, Any], str]] = {
    "client's fallbacks": ({"fallbacks": ["gpt-3.5"]}, "fallbacks that a client names"),
    "testing": ({"mock_testing_fallbacks": True}, "mocked failures"),
    "client's retries": ({"num_retries": 3}, "retries that a client names"),
    "tags": ({"tags": ["free"]}, "routing by tag"),
    "mocked answers": ({"mock_response": "hello"}, "mocked answers"),
    "guardrails by name": ({"guardrails": ["off"]}, "guardrails that a client names"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_reaches_no_server_and_is_named(stage: Start, name: str) -> None:
    """A field of a feature that we leave out changes nothing, and the page names the feature."""
    field, told = LEFT_OUT[name]
    at = stage()
    given = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | field
    status, _, answer = post(at.gateway.port, "/v1/chat/completions", json.dumps(given).encode())
    assert status == 200
    assert b"Hello from the mock." in answer
    assert not set(field) & set(at.upstream.requests[0])
    assert told in DOCS.read_text(encoding="utf-8")
