"""Several model servers behind one client: routes by model, shares, retries, circuit breakers.

An attempt ends when the upstream's status has come. Only before that, and only where the status
says that nothing was answered, another attempt is made: a prompt is never sent again once an answer
began, so never after text was released.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from safehold.errors import UpstreamError
from safehold.guard.gateway.model_names import matches
from safehold.guard.gateway.protocols.json_border import encode
from safehold.guard.gateway.routing_settings import Route, Target
from safehold.guard.gateway.upstreams.http import Answer, Client

FAILURES = 3
"""How many failures in a row open an upstream's circuit breaker."""
OPEN_S = 15.0
"""How long an open breaker keeps requests away before one is tried again."""
_PAUSE_S = 0.05
_AGAIN = frozenset({401, 404, 408, 429, 500, 502, 503, 504, 529})
"""401 is about our own key there. 404: it has no such model, or no such path."""
_NO_SUCH = 404
_PRIVATE = ("authorization", "x-api-key")
_OK = 200

_draw = secrets.SystemRandom()


class _Asked(msgspec.Struct):
    """The one field of a request that routes it."""

    model: str = ""


class Breaker:
    """Keeps requests from an upstream that failed again and again, for a while."""

    def __init__(self, ticks: Callable[[], float]) -> None:
        self._ticks = ticks
        self._failures = 0
        self._until = 0.0

    @property
    def closed(self) -> bool:
        """Whether requests may go there now; after its time one request tries."""
        return self._failures < FAILURES or self._ticks() >= self._until

    def succeeded(self) -> None:
        """Take note of an answer."""
        self._failures = 0

    def failed(self) -> None:
        """Take note of a failure."""
        self._failures += 1
        if self._failures >= FAILURES:
            self._until = self._ticks() + OPEN_S


class Router:
    """A `Client` that sends each request where its model's route says, else to the default."""

    def __init__(
        self,
        default: Client,
        named: Mapping[str, Client],
        routes: Sequence[Route],
        *,
        ticks: Callable[[], float],
        count: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        """Take the clients and the routes; `count` hears of each attempt and how it ended."""
        self._default = default
        self._named = dict(named)
        self._routes = [(model, route) for route in routes for model in route.models]
        # A name without a star comes before one with, a longer one before a shorter.
        self._routes.sort(key=lambda pair: ("*" in pair[0], -len(pair[0])))
        self._breakers = {name: Breaker(ticks) for name in named}
        self._count = count
        self._decoder = msgspec.json.Decoder(_Asked)

    @property
    def names(self) -> tuple[str, ...]:
        """The models that routes name without a star."""
        return tuple(name for name, _ in self._routes if "*" not in name)

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a body along its model's route and return once headers came.

        Raises:
            UpstreamError: No upstream of the route answered.
        """
        route = self._route(self._decoder.decode(body).model)
        if route is None:
            return await self._default.post(path, body, headers)
        own = {name: value for name, value in headers.items() if name not in _PRIVATE}
        targets = list(self._attempts(route))
        last: UpstreamError | None = None
        for number, target in enumerate(targets):
            if number and target == targets[number - 1]:
                await asyncio.sleep(_PAUSE_S * number)
            try:
                answer = await self._named[target.upstream].post(path, _for(target, body), own)
            except UpstreamError as error:
                last = error
                self._ended(target, "unreachable")
                continue
            if answer.status not in _AGAIN:
                self._ended(target, "answered")
                return answer
            self._ended(target, "lacking" if answer.status == _NO_SUCH else "failed")
            if number == len(targets) - 1:
                return answer
            answer.abort()
        raise last or UpstreamError("upstream: no server of this route answered")

    async def get(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Fetch a path of the default upstream."""
        return await self._default.get(path, headers)

    async def close(self) -> None:
        """Drop all connections."""
        for client in (self._default, *self._named.values()):
            await client.close()

    async def watch(self, every_s: float = OPEN_S / 3) -> None:
        """Ask upstreams whose breaker is open for their models; one that answers is let in."""
        while True:
            await asyncio.sleep(every_s)
            for name, breaker in self._breakers.items():
                if not breaker.closed and await self._healthy(name):
                    breaker.succeeded()

    async def _healthy(self, name: str) -> bool:
        try:
            answer = await self._named[name].get("/models", {})
        except UpstreamError:
            return False
        answer.abort()
        return answer.status == _OK

    def _route(self, model: str) -> Route | None:
        for name, route in self._routes:
            if matches(model, name):
                return route
        return None

    def _attempts(self, route: Route) -> Iterator[Target]:
        """Yield where to try: by share, then again, then the fallbacks; open breakers last."""
        first = [target for target in _shared(route.to) if target.share]
        again = [first[number % len(first)] for number in range(1 + route.retries)]
        wanted = [*again, *route.fallbacks]
        closed = [one for one in wanted if self._breakers[one.upstream].closed]
        yield from closed or wanted

    def _ended(self, target: Target, how: str) -> None:
        breaker = self._breakers[target.upstream]
        if how == "answered":
            breaker.succeeded()
        elif how != "lacking":  # a client that asks for nonsense keeps nobody from a server
            breaker.failed()
        self._count(target.upstream, how)


def _shared(targets: Sequence[Target]) -> list[Target]:
    """Return targets in an order drawn by their shares."""
    left: list[Target] = list(targets)
    order: list[Target] = []
    while left:
        weights = [target.share for target in left]
        if not any(weights):
            return [*order, *left]
        drawn = _draw.choices(range(len(left)), weights)[0]
        order.append(left.pop(drawn))
    return order


def _for(target: Target, body: bytes) -> bytes:
    """Return the body with the model's name at the target."""
    if target.model is None:
        return body
    return encode(msgspec.json.decode(body) | {"model": target.model})
