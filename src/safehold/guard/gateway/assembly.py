"""Building the gateway from its settings: nothing is served before every part of it is sound."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from safehold.errors import ConfigError, LedgerError
from safehold.guard.accounts.live import StateSource
from safehold.guard.gateway.access.account_states import open_states
from safehold.guard.gateway.access.admission import Gate
from safehold.guard.gateway.access.exemptions import ExemptionWatch, LogExemptions, open_exemptions
from safehold.guard.gateway.access.store import open_store
from safehold.guard.gateway.app import CODECS, Gateway
from safehold.guard.gateway.bundles.active_guard import GuardHolder, Held
from safehold.guard.gateway.bundles.class_switches import ClassSwitches
from safehold.guard.gateway.bundles.classes import Classes, load_classes
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
from safehold.guard.gateway.class_settings import GuardClass
from safehold.guard.gateway.interface import Exemptions, NoExemptions, Surface
from safehold.guard.gateway.operate.admin import Admin
from safehold.guard.gateway.operate.admin_keys import AdminAccess
from safehold.guard.gateway.operate.byte_accounting import OutgoingBytes
from safehold.guard.gateway.operate.canary import Canaries
from safehold.guard.gateway.operate.logs import gateway_log
from safehold.guard.gateway.operate.managed_access import (
    BLOCKED,
    FORMER,
    KEY,
    TENANT,
    blocked_tenants,
    former_keys,
    managed_keys,
    managed_tenants,
)
from safehold.guard.gateway.operate.metrics import Metrics
from safehold.guard.gateway.operate.shared_state import SharedState
from safehold.guard.gateway.operate.tracing import Both, watchers
from safehold.guard.gateway.policy import Settings
from safehold.guard.gateway.relaying.conversations import Histories
from safehold.guard.gateway.relaying.crash_journal import worker_journal
from safehold.guard.gateway.relaying.media_scoring import MediaJudge
from safehold.guard.gateway.relaying.relay import Relay
from safehold.guard.gateway.relaying.timed_ledger import TimedLedger
from safehold.guard.gateway.surfaces import Surfaces
from safehold.guard.gateway.upstreams.attempts import Router
from safehold.guard.gateway.upstreams.http import Client, HttpClient, read_key
from safehold.guard.ledger.interface import FinalRow, RowSink
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.writer import Ledger
from safehold.guard.overlay.live import HotSource
from safehold.guard.session.remembered import ScoreMemory

_SETTLE_S = 1.0


class Parts(msgspec.Struct, frozen=True):
    """What a gateway is made of beside its settings; tests give their own."""

    loader: Loader
    exemptions: Exemptions = NoExemptions()
    client: Client | None = None
    ledger: RowSink | None = None
    held: Held | None = None
    class_loader: Callable[[GuardClass], Loader] | None = None
    classes: Mapping[str, Held] = {}
    """Further classes that are loaded already, by name."""
    upstream_key: str | None = None
    metrics_folder: str | None = None
    outgoing: Callable[[], OutgoingBytes] | None = None
    clock: Callable[[], float] = time.time
    """What rows call now: a played history turns it; budgets, timeouts and TLS never read it."""
    declared: Settings | None = None
    """The settings as they were written, where the server filled in an address since."""


class GuardAdmission(msgspec.Struct, frozen=True):
    """The guard in use, how the next one is loaded, and what may be loaded at all."""

    holder: GuardHolder
    loader: Loader
    admit: Callable[[Held], None]
    admit_step: Callable[[TrialPlan], object]
    mode: str
    releases: Releases | None


class Followed(msgspec.Struct, frozen=True):
    """What is read again and again while the gateway serves: exemptions, hot rules, accounts."""

    exemptions: Exemptions
    granted: LogExemptions | None
    hot: HotSource
    states: StateSource
    background: tuple[Callable[[], Awaitable[None]], ...]


async def open_gateway(settings: Settings, parts: Parts) -> Gateway:
    """Open everything a worker needs; nothing is served before all of it is sound.

    Raises:
        SafeholdError: A part can't be opened; the message says which.
    """
    # 1. The bundle loads, verifies, is released and passes its own golden set.
    admitted = await _admitted(settings, parts)
    holder, mode = admitted.holder, admitted.mode
    # 2. The ledger takes rows.
    ledger = parts.ledger or await Ledger.open(settings.ledger)
    known = _no_finals if parts.ledger is not None else partial(_has_final, settings.ledger)
    journal = None
    if settings.journal is not None:
        journal = worker_journal(Path(settings.journal), settings.workers)
    # 3. The upstream and the store of budgets.
    store = open_store(settings.store)
    outgoing = parts.outgoing() if parts.outgoing is not None else None
    # 4. The relay and what watches it; exemptions from the log, where it is configured.
    metrics = Metrics(Path(parts.metrics_folder) if parts.metrics_folder else None)
    ledger = TimedLedger(ledger, metrics.ledger_took)
    metrics.enforced.set(0 if mode == UNRELEASED else 1)
    client = _routed(settings, parts.client or _upstream(settings, parts), metrics)
    followed = await _followed(settings, parts, ledger, metrics)
    desk = _trial_desk(settings, parts.clock, admitted, ledger=ledger, metrics=metrics)
    trial = () if desk is None else (desk.follow, desk.judge)
    surfaces = Surfaces(settings, lambda one, closed: metrics.surface_closed(one, closed=closed))
    classes, switches = await _classes(
        settings, parts, admitted, ledger=ledger, metrics=metrics, surfaces=surfaces
    )
    histories = Histories(store)
    relay = Relay(
        client=client,
        holder=holder,
        ledger=ledger,
        watcher=watchers(metrics, settings.otlp),
        exemptions=followed.exemptions,
        limits=settings.limits,
        clock=parts.clock,
        ticks=time.perf_counter,
        journal=journal,
        hot=followed.hot,
        trial=desk,
        media=MediaJudge(settings.media_scorer) if settings.media_scorer else None,
        keep=histories.keep,
        memory=ScoreMemory(),
        classes=classes,
    )
    # 5. What all workers and hosts have in common, before the first request.
    gate = Gate(settings.keys, store, followed.states)
    gate.use(settings.keys, settings.tenants)
    state = SharedState(store, time.monotonic)
    canaries = Canaries(
        relay=relay,
        codecs=tuple(make() for make in CODECS.values()),
        settings=settings,
        surfaces=surfaces,
        metrics=metrics,
        state=state,
    )
    swapper = Swapper(
        holder=holder,
        loader=admitted.loader,
        admit=admitted.admit,
        ledger=ledger,
        alarm=metrics.alarm,
        count=metrics.swapped,
        clock=parts.clock,
        state=Path(settings.state) if settings.state else None,
    )
    bundles = Path(settings.bundles) if settings.bundles else None
    follow_state(state, surfaces=surfaces, gate=gate, swapper=swapper, bundles=bundles)
    with contextlib.suppress(LedgerError):  # a store that is away: readyz and 503 say so
        await state.fresh()
    closers = [client.close, ledger.close, store.close]
    if relay.media is not None:
        closers.append(relay.media.close)
    if isinstance(relay.watcher, Both):
        closers.append(relay.watcher.close)

    async def close_all() -> None:
        for close in closers:
            await close()
        if followed.granted is not None:
            followed.granted.seats.close()
        if journal is not None:
            journal.shut()

    return Gateway(
        settings=settings,
        relay=relay,
        gate=gate,
        state=state,
        metrics=metrics,
        surfaces=surfaces,
        histories=histories,
        admin=Admin(
            holder=holder,
            swapper=swapper,
            canaries=canaries,
            surfaces=surfaces,
            ledger=ledger,
            clock=parts.clock,
            bundles=bundles,
            state=state,
            access=AdminAccess(
                gate=gate,
                state=state,
                ledger=ledger,
                clock=parts.clock,
                enforced=mode != UNRELEASED,
            ),
            settings=settings_digest(parts.declared or settings),
            classes=classes,
        ),
        classes=classes,
        log=gateway_log(settings.log),
        background=(
            canaries.watch,
            swapper.follow,
            state.follow,
            partial(_settle_budgets, gate),
            *followed.background,
            *trial,
            *(() if classes is None else (partial(classes.watch, canaries.every_s),)),
            *(() if switches is None else (switches.follow,)),
            *((client.watch,) if isinstance(client, Router) else ()),
        ),
        first=canaries.run_all,
        on_stop=(close_all,),
        known=known,
        outgoing=outgoing,
        release_mode=mode,
        swapper=swapper,
        canaries=canaries,
        declared=parts.declared,
        admit_settings=admitted.releases.admit_gateway if admitted.releases else None,
    )


async def _classes(
    settings: Settings,
    parts: Parts,
    admitted: GuardAdmission,
    *,
    ledger: RowSink,
    metrics: Metrics,
    surfaces: Surfaces,
) -> tuple[Classes | None, ClassSwitches | None]:
    """Return the further classes and what switches classes off; none where there are neither."""
    if not settings.classes and settings.class_switches is None:
        return None, None

    def loader(one: GuardClass) -> Loader:
        if parts.class_loader is None:
            raise ConfigError(f"classes: nothing loads {one.bundle}")
        found = parts.class_loader(one)
        return found if admitted.releases is None else ReleasedLoader(found, admitted.releases)

    held = await load_classes(settings.classes, loader, parts.classes, admitted.admit)
    switches = None
    if settings.class_switches is not None:
        switches = await asyncio.to_thread(
            partial(
                ClassSwitches,
                settings.class_switches,
                names=(settings.class_name, *settings.classes),
                ledger=ledger,
                alarm=metrics.alarm,
                clock=parts.clock,
            )
        )
    return Classes(
        settings.classes,
        held,
        first=settings.class_name,
        counts=metrics,
        ledger=ledger,
        clock=parts.clock,
        switches=switches,
        closed=surfaces.close,
    ), switches


async def _admitted(settings: Settings, parts: Parts) -> GuardAdmission:
    where, loader = enforced(settings), parts.loader
    admit: Callable[[Held], None] = _admit_all
    admit_step: Callable[[TrialPlan], object] = _admit_step
    mode, releases = UNRELEASED, None
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
    return GuardAdmission(GuardHolder(held), loader, admit, admit_step, mode, releases)


async def _followed(
    settings: Settings, parts: Parts, ledger: RowSink, metrics: Metrics
) -> Followed:
    exemptions = parts.exemptions
    granted: LogExemptions | None = None
    background: list[Callable[[], Awaitable[None]]] = []
    if settings.exemptions is not None:
        exemptions = granted = await asyncio.to_thread(
            open_exemptions,
            settings.exemptions,
            {
                name: one.constitution
                for name, one in settings.classes.items()
                if one.constitution is not None
            },
        )
        watch = ExemptionWatch(
            granted,
            ledger=ledger,
            alarm=metrics.alarm,
            days_left=metrics.exemption_days_left,
            clock=parts.clock,
        )
        background.append(watch.follow)
    rules, hot = await open_hot_rules(
        settings.hot_rules, ledger, alarm=metrics.alarm, count=metrics.hot_rules_now
    )
    states, ladder = await open_states(
        settings.account_states, ledger, alarm=metrics.alarm, count=metrics.account_states_now
    )
    return Followed(exemptions, granted, rules, states, (*background, *hot, *ladder))


def follow_state(
    state: SharedState, *, surfaces: Surfaces, gate: Gate, swapper: Swapper, bundles: Path | None
) -> None:
    """Have this worker do what another one, or another host, shared."""

    async def take_surface(name: str, reason: str | None) -> None:
        if name not in tuple(Surface):
            return
        if reason is None:
            surfaces.open(Surface(name))
        else:
            surfaces.close(Surface(name), reason)

    async def take_key(_name: str, _value: object) -> None:
        gate.ring.manage(managed_keys(state), former_keys(state))

    async def take_tenant(_name: str, _value: object) -> None:
        gate.ring.manage_tenants(managed_tenants(state), blocked_tenants(state))

    async def take_bundle(_name: str, folder: str | None) -> None:
        if bundles is not None and folder:
            swapper.name(bundles / folder)

    state.on("surface", take_surface)
    state.on(KEY, take_key)
    state.on(FORMER, take_key)
    state.on(TENANT, take_tenant)
    state.on(BLOCKED, take_tenant)
    state.on("bundle", take_bundle)


async def _settle_budgets(gate: Gate) -> None:
    while True:
        await asyncio.sleep(_SETTLE_S)
        await gate.counters.settle()


def _upstream(settings: Settings, parts: Parts) -> Client:
    """Return the client of the model server."""
    key = parts.upstream_key or read_key(settings.upstream.api_key_file)
    return HttpClient(settings.upstream.url, settings.limits, key)


def _routed(settings: Settings, default: Client, metrics: Metrics) -> Client:
    """Return the client of all upstreams, where there are routes."""
    if not settings.routes:
        return default
    named = {
        name: HttpClient(one.url, settings.limits, read_key(one.api_key_file))
        for name, one in settings.upstreams.items()
    }
    count = metrics.upstream_attempt
    return Router(default, named, settings.routes, ticks=time.monotonic, count=count)


def _trial_desk(
    settings: Settings,
    clock: Callable[[], float],
    admitted: GuardAdmission,
    *,
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
        loader=admitted.loader,
        admit=admitted.admit_step,
        ledger=ledger,
        counts=metrics,
        clock=clock,
        canary_s=settings.canary.every_s if settings.canary.enabled else 0.0,
    )


def _admit_step(plan: TrialPlan) -> None:
    """Admit any signed step: there is no log to ask."""
    del plan


def _admit_all(held: Held) -> None:
    """Admit any guard: there is no log to ask."""
    del held


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
