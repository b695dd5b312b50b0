"""Running the gateway: sockets, workers, drain. `assembly` builds what is run."""

import gc
import multiprocessing
import os
import signal
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import uvicorn

from safehold.errors import ConfigError, LedgerError, SafeholdError
from safehold.guard.gateway.app import Gateway
from safehold.guard.gateway.assembly import Parts, open_gateway
from safehold.guard.gateway.operate.logs import gateway_log
from safehold.guard.gateway.operate.reloading import changed
from safehold.guard.gateway.operate.supervisor import Supervisor
from safehold.guard.gateway.operate.systemd import handed_socket
from safehold.guard.gateway.operate.worker_life import (
    StartError,
    WorkerLife,
    ignore_unknown_signals,
)
from safehold.guard.gateway.policy import LOOPBACK, Settings
from safehold.guard.gateway.relaying.client_response import Receive, Send

__all__ = [
    "GatewayApplication",
    "Parts",
    "build_app",
    "listen",
    "open_gateway",
    "run",
    "server_config",
]

_BACKLOG = 4096
_WORKER_STARTS_S = 60
_GC_THRESHOLD = (10_000, 20, 10)


class GatewayApplication:
    """The ASGI application that opens its gateway when the server starts."""

    def __init__(
        self, opener: Callable[[], Awaitable[Gateway]], life: WorkerLife | None = None
    ) -> None:
        self._opener = opener
        self._worker = life
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
            if self._worker is not None:
                self._worker.failed(error)
            told = str(error) if self._worker is None else ""  # else whoever started it tells
            await send({"type": "lifespan.startup.failed", "message": told})
            return
        await send({"type": "lifespan.startup.complete"})
        if self._worker is not None:
            self._worker.started(self.gateway)
        await receive()
        if self._worker is not None:
            self._worker.stopping()
        try:
            await self.gateway.stop()
        except LedgerError as error:
            await send({"type": "lifespan.shutdown.failed", "message": str(error)})
            return
        await send({"type": "lifespan.shutdown.complete"})


def build_app(
    settings: Settings, parts: Parts, life: WorkerLife | None = None
) -> GatewayApplication:
    """Return the application of one worker."""
    return GatewayApplication(partial(open_gateway, settings, parts), life)


def server_config(
    settings: Settings, parts: Parts, life: WorkerLife | None = None
) -> uvicorn.Config:
    """Return how uvicorn runs the gateway: strict parser, no access log, bounded drain."""
    return uvicorn.Config(
        partial(build_app, settings, parts, life),
        factory=True,
        host=settings.host,
        port=settings.port,
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
    """Bind the gateway's socket, or take the one that systemd hands over; port 0 is a free one.

    Raises:
        ConfigError: The address can't be bound, or a handed socket lies open without a key.
    """
    handed = handed_socket()
    if handed is not None:
        return _checked(handed, settings)
    last: OSError | None = None
    try:
        places = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ConfigError(f"{settings.host}: no address has this name") from error
    for family, kind, protocol, _, address in places:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # a machine without IPv6 still has names for it
            last = error
            continue
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            last = error
            continue
        sock.set_inheritable(True)
        return sock
    why = last.strerror if last is not None else "the name has no address"
    raise ConfigError(f"{settings.host}:{settings.port}: can't listen there: {why}") from last


def _checked(sock: socket.socket, settings: Settings) -> socket.socket:
    """Return a handed socket that is no wider open than the settings allow."""
    local = sock.family == socket.AF_UNIX or sock.getsockname()[0] in LOOPBACK
    if not local and not any(not key.admin for key in settings.keys):
        sock.close()
        raise ConfigError("socket activation: an address beyond loopback needs a client key")
    sock.set_inheritable(True)
    return sock


def run(
    settings: Settings,
    parts: Parts,
    sock: socket.socket,
    reread: Callable[[], Settings] | None = None,
    announce: Callable[[], None] | None = None,
) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; return whether the gateway ever started.

    SIGHUP takes the settings that `reread` returns, without dropping a stream. `announce` is
    called once, when requests are taken.

    Raises:
        StartError: The gateway could not start.
    """
    if settings.workers > 1:
        supervisor = Supervisor(
            partial(_spawn, settings, parts, sock),
            count=settings.workers,
            drain_s=settings.limits.drain_timeout_s,
            reread=reread,
            check=partial(changed, parts.declared or settings),
            announce=announce,
        )
        return supervisor.run()
    return _serve(settings, parts, sock, WorkerLife(reread=reread, announce=announce))


def _spawn(settings: Settings, parts: Parts, sock: socket.socket) -> tuple[BaseProcess, Connection]:
    """Start one worker, which ends when this process does."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(settings, parts, sock, theirs), name="safehold-worker"
    )
    process.start()
    theirs.close()
    return process, ours


def _work(settings: Settings, parts: Parts, sock: socket.socket, pipe: Connection) -> None:
    """Be a worker; its status is 1 if it never took requests."""
    os.environ.pop("NOTIFY_SOCKET", None)  # the supervisor speaks for all
    try:
        started = _serve(settings, parts, sock, WorkerLife(pipe))
    except StartError as error:  # the supervisor tells it
        raise SystemExit(error.exit_status) from None
    if not started:
        raise SystemExit(1)


def _serve(settings: Settings, parts: Parts, sock: socket.socket, life: WorkerLife) -> bool:
    ignore_unknown_signals()
    gateway_log(settings.log)  # before uvicorn's own words reach stderr bare
    # An exchange leaves no cycles of note: to look for them after every 700 objects costs a tenth.
    gc.set_threshold(*_GC_THRESHOLD)
    server = uvicorn.Server(server_config(settings, parts, life))
    # uvicorn raises the signal anew when it has drained; what is open above must still be closed.
    # A reload that comes before the gateway is ready has nothing to reload.
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        server.run(sockets=[sock])
    except SystemExit:  # uvicorn's word for a start that failed
        if life.failure is None:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if life.failure is not None:
        raise life.failure
    return server.started
