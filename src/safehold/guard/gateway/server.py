"""Running the gateway: sockets, workers, drain. `assembly` builds what is run."""

import signal
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from safehold.errors import ConfigError, LedgerError, SafeholdError
from safehold.guard.gateway.app import Gateway
from safehold.guard.gateway.assembly import Parts, open_gateway
from safehold.guard.gateway.policy import Settings
from safehold.guard.gateway.relaying.client_response import Receive, Send

__all__ = ["Application", "Parts", "build_app", "listen", "open_gateway", "run", "server_config"]

_BACKLOG = 4096
_WORKER_STARTS_S = 60


class Application:
    """The ASGI application that opens its gateway when the server starts."""

    def __init__(self, opener: Callable[[], Awaitable[Gateway]]) -> None:
        self._opener = opener
        self.gateway: Gateway | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass requests to the gateway; open and close it with the server."""
        if scope["type"] == "lifespan":
            await self._life(receive, send)
        elif self.gateway is not None:
            await self.gateway(scope, receive, send)

    async def _life(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            self.gateway = await self._opener()
            await self.gateway.start()
        except SafeholdError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await self.gateway.stop()
        except LedgerError as error:
            await send({"type": "lifespan.shutdown.failed", "message": str(error)})
            return
        await send({"type": "lifespan.shutdown.complete"})


def build_app(settings: Settings, parts: Parts) -> Application:
    """Return the application of one worker."""
    return Application(partial(open_gateway, settings, parts))


def server_config(settings: Settings, parts: Parts) -> uvicorn.Config:
    """Return how uvicorn runs the gateway: strict parser, no access log, bounded drain."""
    return uvicorn.Config(
        partial(build_app, settings, parts),
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=int(settings.limits.drain_timeout_s),
        # A worker imports and loads before it answers its supervisor, slowly on a busy machine;
        # the default of 5 s kills it there again and again.
        timeout_worker_healthcheck=_WORKER_STARTS_S,
        h11_max_incomplete_event_size=settings.limits.max_header_bytes,
    )


def listen(settings: Settings) -> socket.socket:
    """Bind the gateway's socket; port 0 takes a free one.

    Raises:
        ConfigError: The address can't be bound.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(f"{settings.host}:{settings.port}: can't listen there") from error
    sock.set_inheritable(True)
    return sock


def run(settings: Settings, parts: Parts, sock: socket.socket) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; return whether the gateway ever started."""
    config = server_config(settings, parts)
    server = uvicorn.Server(config)
    if settings.workers > 1:
        Multiprocess(config, sockets=[sock]).run()
        return True
    # uvicorn raises the signal anew when it has drained; what is open above must still be closed.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        server.run(sockets=[sock])
    finally:
        signal.signal(signal.SIGTERM, before)
    return server.started
