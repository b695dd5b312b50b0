"""Several upstreams: routes, shares, retries, fallbacks, breakers, and whose key goes where."""

import asyncio
import collections
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from gateway_wire import PATHS, Start, body_for, post

from safehold.errors import ConfigError, UpstreamError
from safehold.guard.gateway.interface import SilentUpstreamError
from safehold.guard.gateway.policy import Settings
from safehold.guard.gateway.routing_settings import NamedUpstream, Route, Target
from safehold.guard.gateway.upstreams.attempts import FAILURES, OPEN_S, Router
from safehold.testing.guards import MARKER
from safehold.testing.ports import held_port
from safehold.testing.upstream import Fault, MockUpstream, SaidRun, Script, says, split


class Heard:
    """An answer with a status and nothing else."""

    content_type = "application/json"
    headers: Mapping[str, str] = {}

    def __init__(self, status: int) -> None:
        self.status = status
        self.aborted = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield nothing."""
        return
        yield b""

    def abort(self) -> None:
        """Take note."""
        self.aborted = True


class Scripted:
    """A client that answers with statuses or raises, in turn; the last one for ever."""

    def __init__(self, *says: int | Exception) -> None:
        self.says = list(says)
        self.asked: list[tuple[str, dict, dict]] = []

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Heard:
        """Answer the next."""
        self.asked.append((path, json.loads(body), dict(headers)))
        return self._next()

    async def get(self, path: str, headers: Mapping[str, str]) -> Heard:
        """Answer the next."""
        del path, headers
        return self._next()

    def _next(self) -> Heard:
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, Exception):
            raise said
        return Heard(said)

    async def close(self) -> None:
        """Do nothing."""


AWAY = UpstreamError("upstream: can't be reached")
SILENT = SilentUpstreamError("upstream: did not answer in time")


def router(
    route: Route, ticks: Callable[[], float] = lambda: 0.0, **named: Scripted
) -> tuple[Router, Scripted]:
    """Return a router of one route, and its default."""
    default = Scripted(200)
    return Router(default, named, (route,), ticks=ticks), default


def asked(client: Router, model: str = "m", headers: Mapping[str, str] | None = None) -> int:
    """Send one request; return the status, 0 where nobody answered."""
    body = json.dumps({"model": model, "messages": ["x"]}).encode()
    try:
        return asyncio.run(client.post("/chat/completions", body, headers or {})).status
    except UpstreamError:
        return 0


def to(*names: str, **changes: Any) -> Route:
    """Return a route of one model to upstreams of equal shares."""
    return Route(models=("m",), to=tuple(Target(upstream=name) for name in names), **changes)


CASES: dict[str, tuple[list[int | Exception], int, list[int | Exception], int, int, int]] = {
    # what a says, retries, what the fallback says, the status, how often each was asked
    "answered": ([200], 2, [200], 200, 1, 0),
    "created": ([201], 2, [200], 201, 1, 0),
    "once away": ([AWAY, 200], 2, [200], 200, 2, 0),
    "once silent": ([SILENT, 200], 1, [200], 200, 2, 0),
    "once 500": ([500, 200], 1, [200], 200, 2, 0),
    "once 502": ([502, 200], 1, [200], 200, 2, 0),
    "once 503": ([503, 200], 1, [200], 200, 2, 0),
    "once 504": ([504, 200], 1, [200], 200, 2, 0),
    "once 408": ([408, 200], 1, [200], 200, 2, 0),
    "once 429": ([429, 200], 1, [200], 200, 2, 0),
    "once overloaded": ([529, 200], 1, [200], 200, 2, 0),
    "400 is the client's": ([400, 200], 2, [200], 400, 1, 0),
    "401 is about our key there": ([401], 1, [200], 200, 2, 1),
    "403 is an answer": ([403, 200], 2, [200], 403, 1, 0),
    "404 is a model it lacks": ([404], 0, [200], 200, 1, 1),
    "404 everywhere": ([404], 0, [404], 404, 1, 1),
    "413 is an answer": ([413, 200], 2, [200], 413, 1, 0),
    "422 is an answer": ([422, 200], 2, [200], 422, 1, 0),
    "no retry": ([500], 0, [200], 200, 1, 1),
    "retries end": ([500], 2, [200], 200, 3, 1),
    "away, then fallback": ([AWAY], 1, [200], 200, 2, 1),
    "fallback's error is told": ([500], 0, [429], 429, 1, 1),
    "nobody": ([AWAY], 1, [AWAY], 0, 2, 1),
    "last status wins": ([AWAY], 0, [503], 503, 1, 1),
    "five retries": ([500], 5, [200], 200, 6, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_attempts_end_as_the_status_says(case: str) -> None:
    """Only what says that nothing was answered is tried again, as often as the route allows."""
    says, retries, spare_says, status, first, second = CASES[case]
    a, spare = Scripted(*says), Scripted(*spare_says)
    route = to("a", retries=retries, fallbacks=(Target(upstream="spare", model="other"),))
    client, default = router(route, a=a, spare=spare)
    assert asked(client) == status
    assert (len(a.asked), len(spare.asked), len(default.asked)) == (first, second, 0)
    assert all(body["model"] == "other" for _, body, _ in spare.asked)


@pytest.mark.parametrize(
    ("models", "model", "routed"),
    [
        (("m",), "m", True),
        (("m",), "m2", False),
        (("m",), "M", False),
        (("gpt-*",), "gpt-5", True),
        (("gpt-*",), "gpt-", True),
        (("gpt-*",), "xgpt-5", False),
        (("*",), "anything/at-all", True),
        (("a*z",), "abcz", True),
        (("a*z",), "abc", False),
        (("a.b",), "axb", False),
        (("a", "b"), "b", True),
        (("openai/*",), "openai/gpt", True),
    ],
)
def test_models_are_routed_by_name_and_star(models: tuple, model: str, routed: bool) -> None:  # noqa: FBT001 - a parameter
    """A star stands for any letters, everything else for itself; the rest goes to the default."""
    a = Scripted(200)
    client, default = router(Route(models=models, to=(Target(upstream="a"),)), a=a)
    assert asked(client, model) == 200
    assert (len(a.asked), len(default.asked)) == ((1, 0) if routed else (0, 1))


def test_plain_name_comes_before_a_star_and_a_longer_star_before_a_shorter() -> None:
    """The most exact route wins, in whatever order they are written."""
    named = {name: Scripted(200) for name in "abc"}
    routes = [
        Route(models=(model,), to=(Target(upstream=name),))
        for model, name in (("*", "a"), ("gpt-*", "b"), ("gpt-5", "c"))
    ]
    client = Router(Scripted(200), named, routes, ticks=lambda: 0.0)
    for model in ("gpt-5", "gpt-6", "other"):
        assert asked(client, model) == 200
    assert [[body["model"] for _, body, _ in named[name].asked] for name in "abc"] == [
        ["other"],
        ["gpt-6"],
        ["gpt-5"],
    ]


def test_shares_divide_the_traffic() -> None:
    """Of 400 requests with shares 3 to 1 the larger gets most, and a share of 0 nothing."""
    named = {name: Scripted(200) for name in "abc"}
    shares = {"a": 3, "b": 1, "c": 0}
    route = Route(models=("m",), to=tuple(Target(upstream=n, share=s) for n, s in shares.items()))
    client, _ = router(route, **named)
    for _ in range(400):
        assert asked(client) == 200
    counts = {name: len(one.asked) for name, one in named.items()}
    assert counts["c"] == 0
    assert 240 <= counts["a"] <= 360  # a fair draw misses this in less than one run of 10^10


def test_model_that_a_server_lacks_opens_no_breaker() -> None:
    """A client that asks for nonsense again and again keeps nobody else from the server."""
    lacking, spare = Scripted(404), Scripted(404)
    route = to("a", retries=0, fallbacks=(Target(upstream="b"),))
    client, _ = router(route, a=lacking, b=spare)
    for _ in range(2 * FAILURES):
        assert asked(client) == 404
    assert len(lacking.asked) == 2 * FAILURES


def test_breaker_keeps_away_and_lets_one_try_again() -> None:
    """After three failures an upstream is left out; when its time is over it is tried again."""
    now = [0.0]
    a, b = Scripted(500), Scripted(200)
    route = to("a", retries=0, fallbacks=(Target(upstream="b"),))
    client, _ = router(route, lambda: now[0], a=a, b=b)
    for _ in range(FAILURES + 5):
        assert asked(client) == 200
    assert len(a.asked) == FAILURES
    now[0] = OPEN_S + 1
    a.says = [200]
    assert asked(client) == 200
    assert len(a.asked) == FAILURES + 1
    assert asked(client) == 200
    assert len(a.asked) == FAILURES + 2


def test_with_every_breaker_open_requests_still_try() -> None:
    """Nobody is refused because all failed a moment ago."""
    a = Scripted(*[500] * (FAILURES + 1), 200)
    client, _ = router(to("a", retries=0), a=a)
    assert [asked(client) for _ in range(FAILURES + 2)] == [500] * (FAILURES + 1) + [200]


def test_health_check_closes_a_breaker() -> None:
    """An upstream that answers its models again is let in before its time is over."""
    a, b = Scripted(*[500] * FAILURES, 200), Scripted(200)
    client, _ = router(to("a", retries=0, fallbacks=(Target(upstream="b"),)), a=a, b=b)
    for _ in range(FAILURES):
        assert asked(client) == 200

    async def once() -> None:
        task = asyncio.ensure_future(client.watch(0.001))
        await asyncio.sleep(0.1)
        task.cancel()

    asyncio.run(once())
    before = len(a.asked)
    assert asked(client) == 200
    assert len(a.asked) == before + 1


def test_clients_key_goes_to_the_default_only() -> None:
    """A named upstream never sees the key that a client sent for another."""
    a = Scripted(200)
    client, default = router(to("a"), a=a)
    headers = {"authorization": "Bearer x", "x-api-key": "y", "anthropic-version": "1"}
    asked(client, "m", headers)
    asked(client, "other", headers)
    assert a.asked[0][2] == {"anthropic-version": "1"}
    assert default.asked[0][2] == headers


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Settings(routes=(to("nobody"),)),
        lambda: Settings(upstreams={"a b": NamedUpstream(url="http://x")}),
        lambda: Settings(upstreams={"a": NamedUpstream(url="http://x")}, routes=(to("a"), to("a"))),
        lambda: Route(models=(), to=(Target(upstream="a"),)),
        lambda: Route(models=("m",), to=()),
        lambda: Target(upstream="a", share=-1),
        lambda: Route(models=("m",), to=(Target(upstream="a", share=0),)),
        lambda: to("a", retries=6),
    ],
)
def test_route_that_leads_nowhere_is_refused(wrong: Callable[[], object]) -> None:
    """What can't be meant is an error at the start."""
    with pytest.raises(ConfigError):
        wrong()


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


@pytest.mark.parametrize("path", PATHS)
def test_whole_gateway_falls_back_and_guards_all_the_same(
    stage: Start, mocks: Callable[[Script], MockUpstream], silent: int, path: str
) -> None:
    """A dead and a failing server are passed over; the spare's reply is guarded like any other."""
    nobody = f"http://127.0.0.1:{silent}/v1"
    failing = mocks(Script(fault=Fault.STATUS_500))
    spare = mocks(says(f"So. The {MARKER} then."))
    upstreams = {
        "dead": NamedUpstream(url=nobody),
        "failing": NamedUpstream(url=failing.url),
        "spare": NamedUpstream(url=spare.url),
    }
    spares = (Target(upstream="failing"), Target(upstream="spare", model="real"))
    at = stage(upstreams=upstreams, routes=(to("dead", retries=0, fallbacks=spares),))
    body = json.dumps(body_for(path, "hi", stream=False)).encode()
    status, _, answer = post(at.gateway.port, path, body)
    assert status == 200
    assert MARKER.encode() not in answer
    assert spare.requests[0]["model"] == "real"
    assert (len(failing.requests), len(at.upstream.requests)) == (1, 0)
    assert len(at.prompts()) == 1


def test_prompt_is_never_sent_again_once_an_answer_began(
    stage: Start, mocks: Callable[[Script], MockUpstream]
) -> None:
    """A stream that breaks after its first text ends with an error; nobody else is asked."""
    long = Script(said=(SaidRun(split("Hello there, friend. " * 9, 4)),), fault=Fault.HALF_CLOSE)
    broken, spare = mocks(long), mocks(says("fine"))
    upstreams = {"a": NamedUpstream(url=broken.url), "b": NamedUpstream(url=spare.url)}
    route = to("a", retries=3, fallbacks=(Target(upstream="b"),))
    at = stage(upstreams=upstreams, routes=(route,))
    answer = post(at.gateway.port, PATHS[0], json.dumps(body_for(PATHS[0], "hi")).encode())[2]
    assert b'"error"' in answer
    assert (len(broken.requests), len(spare.requests)) == (1, 0)


def test_blocked_prompt_is_sent_nowhere_twice(
    stage: Start, mocks: Callable[[Script], MockUpstream]
) -> None:
    """A blocked prompt is answered by us; the routes' metrics count attempts by name."""
    a = mocks(says("fine"))
    at = stage(upstreams={"a": NamedUpstream(url=a.url)}, routes=(to("a"),))
    body = json.dumps(body_for(PATHS[0], MARKER, stream=False)).encode()
    assert b"content_filter" in post(at.gateway.port, PATHS[0], body)[2]
    body = json.dumps(body_for(PATHS[0], "hi", stream=False)).encode()
    assert post(at.gateway.port, PATHS[0], body)[0] == 200
    text = at.gateway.gateway.metrics.text().decode()
    assert 'safehold_upstream_attempts_total{result="answered",upstream="a"}' in text
    status, _, listed = post(at.gateway.port, "/v1/models", b"", method="GET")
    assert status == 200
    assert collections.Counter(one["id"] for one in json.loads(listed)["data"]) == {
        "mock": 1,
        "m": 1,
    }
    status, _, one = post(at.gateway.port, "/v1/models/m", b"", method="GET")
    assert (status, json.loads(one)["id"]) == (200, "m")
