"""Building the gateway from its settings, and running it: sockets, workers, drain."""

import asyncio
import signal
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from uvicorn.supervisors import Multiprocess

from safehold.errors import ConfigError, LedgerError, SafeholdError
from safehold.guard.gateway.access.account_states import open_states
from safehold.guard.gateway.access.admission import Gate
from safehold.guard.gateway.access.exemptions import ExemptionWatch, LogExemptions, open_exemptions
from safehold.guard.gateway.access.store import open_store
from safehold.guard.gateway.app import CODECS, Gateway
from safehold.guard.gateway.bundles.active_guard import Held, Holder
from safehold.guard.gateway.bundles.hot_rules import open_hot_rules
from safehold.guard.gateway.bundles.released import (
    UNRELEASED,
    ReleasedLoader,
    Releases,
    enforced,
    settings_digest,
)
from safehold.guard.gateway.bundles.swap import Loader, Swapper, self_test
from safehold.guard.gateway.bundles.trial_desk import TrialDesk
from safehold.guard.gateway.bundles.trial_file import TrialPlan
from safehold.guard.gateway.interface import Exemptions, NoExemptions
from safehold.guard.gateway.operate.admin import Admin
from safehold.guard.gateway.operate.byte_accounting import OutgoingBytes
from safehold.guard.gateway.operate.canary import Canaries
from safehold.guard.gateway.operate.logs import gateway_log
from safehold.guard.gateway.operate.metrics import Metrics
from safehold.guard.gateway.operate.tracing import watchers
from safehold.guard.gateway.policy import Settings
from safehold.guard.gateway.relaying.client_response import Receive, Send
from safehold.guard.gateway.relaying.conversations import Histories
from safehold.guard.gateway.relaying.journal import worker_journal
from safehold.guard.gateway.relaying.relay import Relay
from safehold.guard.gateway.surfaces import Surfaces
from safehold.guard.gateway.upstreams.http import Client, HttpClient, read_key
from safehold.guard.ledger import Ledger, RowSink
from safehold.guard.ledger.interface import FinalRow
from safehold.guard.ledger.reader import LedgerReader

_BACKLOG = 4096
_WORKER_STARTS_S = 60


class Parts(msgspec.Struct, frozen=True):
    """What a gateway is made of beside its settings; tests give their own."""

    loader: Loader
    exemptions: Exemptions = NoExemptions()
    client: Client | None = None
    ledger: RowSink | None = None
    held: Held | None = None
    upstream_key: str | None = None
    metrics_folder: str | None = None
    outgoing: Callable[[], OutgoingBytes] | None = None
    clock: Callable[[], float] = time.time
    """What rows call now: a played history turns it; budgets, timeouts and TLS never read it."""
    declared: Settings | None = None
    """The settings as they were written, where the server filled in an address since."""


async def open_gateway(settings: Settings, parts: Parts) -> Gateway:
    """Open everything a worker needs; nothing is served before all of it is sound.

    Raises:
        SafeholdError: A part can't be opened; the message says which.
    """
    # 1. The bundle loads, verifies, is released and passes its own golden set.
    where, loader, admit, mode = enforced(settings), parts.loader, _admit_all, UNRELEASED
    admit_step: Callable[[TrialPlan], object] = _admit_step
    if where is not None:
        releases = await asyncio.to_thread(Releases, where, time.time)
        await asyncio.to_thread(releases.admit_gateway, parts.declared or settings)
        loader, admit, mode = ReleasedLoader(loader, releases), releases.admit_guard, "enforcing"
        admit_step = releases.admit_trial
    if parts.held is not None:
        held = parts.held
        admit(held)
    else:
        loaded = await asyncio.to_thread(loader, _bundle_path(settings))
        await self_test(loaded.held, loaded.golden)
        held = loaded.held
    holder = Holder(held)
    # 2. The ledger takes rows.
    ledger = parts.ledger or await Ledger.open(settings.ledger)
    known = _no_finals if parts.ledger is not None else partial(_has_final, settings.ledger)
    journal = None
    if settings.journal is not None:
        journal = worker_journal(Path(settings.journal), settings.workers)
    # 3. The upstream and the store of budgets.
    client = parts.client or _upstream(settings, parts)
    store = open_store(settings.store)
    outgoing = parts.outgoing() if parts.outgoing is not None else None
    # 4. The relay and what watches it; exemptions from the log, where it is configured.
    metrics = Metrics(Path(parts.metrics_folder) if parts.metrics_folder else None)
    metrics.enforced.set(0 if mode == UNRELEASED else 1)
    exemptions = parts.exemptions
    granted: LogExemptions | None = None
    background: tuple[Callable[[], Awaitable[None]], ...] = ()
    if settings.exemptions is not None:
        exemptions = granted = await asyncio.to_thread(open_exemptions, settings.exemptions)
        watch = ExemptionWatch(granted, ledger=ledger, metrics=metrics, clock=parts.clock)
        background = (watch.follow,)
    rules, hot = await open_hot_rules(
        settings.hot_rules, ledger, alarm=metrics.alarm, count=metrics.hot_rules_now
    )
    states, ladder = await open_states(
        settings.account_states, ledger, alarm=metrics.alarm, count=metrics.account_states_now
    )
    desk = _trial_desk(
        settings, parts.clock, loader=loader, admit=admit_step, ledger=ledger, metrics=metrics
    )
    trial = () if desk is None else (desk.follow, desk.judge)
    background = (*background, *hot, *ladder, *trial)
    relay = Relay(
        client=client,
        holder=holder,
        ledger=ledger,
        watcher=watchers(metrics, settings.otlp),
        exemptions=exemptions,
        limits=settings.limits,
        clock=parts.clock,
        ticks=time.perf_counter,
        journal=journal,
        hot=rules,
        trial=desk,
    )
    surfaces = Surfaces(settings)
    canaries = Canaries(
        relay=relay,
        codecs=tuple(make() for make in CODECS.values()),
        settings=settings,
        surfaces=surfaces,
        metrics=metrics,
    )
    swapper = Swapper(
        holder=holder,
        loader=loader,
        admit=admit,
        ledger=ledger,
        metrics=metrics,
        clock=parts.clock,
        state=Path(settings.state) if settings.state else None,
    )

    async def close_all() -> None:
        await client.close()
        await ledger.close()
        await store.close()
        if granted is not None:
            granted.seats.close()
        if journal is not None:
            journal.shut()

    return Gateway(
        settings=settings,
        relay=relay,
        gate=Gate(settings.keys, store, states),
        metrics=metrics,
        surfaces=surfaces,
        histories=Histories(store),
        admin=Admin(
            holder=holder,
            swapper=swapper,
            canaries=canaries,
            surfaces=surfaces,
            metrics=metrics,
            ledger=ledger,
            clock=parts.clock,
            bundles=Path(settings.bundles) if settings.bundles else None,
            settings=settings_digest(parts.declared or settings),
        ),
        log=gateway_log(settings.log),
        background=(canaries.watch, swapper.follow, *background),
        first=canaries.run_all,
        on_stop=(close_all,),
        known=known,
        outgoing=outgoing,
        release_mode=mode,
    )


def _upstream(settings: Settings, parts: Parts) -> Client:
    """Return the client of the model server."""
    key = parts.upstream_key or read_key(settings.upstream.api_key_file)
    return HttpClient(settings.upstream.url, settings.limits, key)


def _trial_desk(
    settings: Settings,
    clock: Callable[[], float],
    *,
    loader: Loader,
    admit: Callable[[TrialPlan], object],
    ledger: RowSink,
    metrics: Metrics,
) -> TrialDesk | None:
    """Return this worker's part in a trial, where one may come."""
    if settings.trial is None:
        return None
    if settings.bundles is None:
        raise ConfigError("trial: a challenger is loaded from `bundles`, which is not set")
    return TrialDesk(
        settings.trial,
        bundles=Path(settings.bundles),
        loader=loader,
        admit=admit,
        ledger=ledger,
        counts=metrics,
        clock=clock,
        canary_s=settings.canary.every_s if settings.canary.enabled else 0.0,
    )


def _admit_all(held: Held) -> None:
    """Admit any guard: there is no log to ask."""
    del held


def _admit_step(plan: TrialPlan) -> None:
    """Admit any signed step: there is no log to ask."""
    del plan


def _bundle_path(settings: Settings) -> Path:
    """Return the bundle that the state file names, else the configured one."""
    state = Path(settings.state) if settings.state else None
    if state is not None and state.is_file():
        return Path(state.read_text(encoding="utf-8").strip())
    if settings.bundle is None:
        raise ConfigError("bundle: expected the folder of a bundle")
    return Path(settings.bundle)


def _has_final(url: str, decision_id: str) -> bool:
    entries = LedgerReader.open(url).decision(decision_id)
    return any(isinstance(entry.row, FinalRow) for entry in entries)


def _no_finals(decision_id: str) -> bool:
    del decision_id
    return False


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
