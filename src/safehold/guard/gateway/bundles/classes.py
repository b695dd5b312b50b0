"""The classes that a gateway guards beside the first one: loaded, joined, watched, switched.

Every class is loaded by the same rules as the first bundle: it verifies, it is released where
releases are enforced, and it repeats its own golden set. Where one of them can't be, nothing is
served.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from safehold.errors import LedgerError, SafeholdError
from safehold.exchange import Exchange
from safehold.guard.gateway.bundles.active_guard import AnyGuard, Held, Session
from safehold.guard.gateway.bundles.class_switches import ClassSwitches
from safehold.guard.gateway.bundles.joined_session import Companion, JoinedSession
from safehold.guard.gateway.bundles.swap import Loader, Probe, blocks, self_test
from safehold.guard.gateway.class_settings import FIRST, GuardClass
from safehold.guard.gateway.interface import Surface
from safehold.guard.interface import (
    DeliveryMode,
    Escalation,
    Failed,
    FailMode,
    SessionPolicy,
)
from safehold.guard.ledger.interface import Detail, EventKind, EventRow, RowSink
from safehold.guard.overlay.live import HotSource
from safehold.guard.scorers.rules import Rule, RuleSet
from safehold.guard.session.cascade import Cascade, Thresholds
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import Answer, StageTwo
from safehold.guard.session.remembered import ScoreMemory
from safehold.guard.session.session import Guard
from safehold.guard.session.shared_views import SharedViews

_NEVER = Thresholds(escalate=100.0, weights=(1.0, 0.0, 0.0), block=100.0, alone=100.0)
_NO_RULE = RuleSet([Rule(id="off", clause="", pattern=r"\z.")])
"""A rule that no text can match: something after the end."""
_ANY = 1 << 60
"""What nobody can read is for the first class to count."""
_PLAIN = "What a lovely morning it is."


class ExchangeAsked(msgspec.Struct, frozen=True):
    """What an exchange's sessions are made of, whatever the class."""

    exchange: Exchange
    surface: Surface
    tenant: str | None
    policy: SessionPolicy
    hot: HotSource
    memory: ScoreMemory | None
    account: str
    exempt: Callable[[str, str | None], bool]
    """Whether a grant delivers what a clause of a class would stop."""


class ClassSessions(msgspec.Struct, frozen=True):
    """The sessions of one exchange: the first class's own, all of them, and who answers them."""

    first: Session
    session: Session
    stage2: StageTwo
    several: JoinedSession | None = None


class ClassCounts(Protocol):
    """Where classes are counted (`Metrics`)."""

    def alarm(self, kind: str) -> None:
        """Count an alarm."""
        ...

    def class_at(self, name: str, state: str) -> None:
        """Say in which state a class is."""
        ...


class Classes:
    """The classes of one worker."""

    def __init__(
        self,
        given: Mapping[str, GuardClass],
        held: Mapping[str, Held],
        *,
        first: str = FIRST,
        counts: ClassCounts,
        ledger: RowSink,
        clock: Callable[[], float],
        switches: ClassSwitches | None = None,
        closed: Callable[[Surface, str], None] = lambda _surface, _reason: None,
    ) -> None:
        """Take the settings and the loaded bundle of each class."""
        self._given = dict(given)
        self._held = dict(held)
        self.first = first
        self._counts = counts
        self._ledger = ledger
        self._clock = clock
        self._switches = switches
        self._closed = closed
        self._canaries = 0
        self._decoder = ViewDecoder()
        self._tell()

    # -- one exchange --------------------------------------------------------------------------

    def join(
        self, held: Held, asked: ExchangeAsked, listen: Callable[[Session], Session]
    ) -> ClassSessions:
        """Return the sessions of one exchange, around the bundle that decides it."""
        off = self.off(self.first)
        guard: AnyGuard = _silent(held.digest) if off else held.guard
        running = [name for name in self._held if not self.off(name)]
        shared = None
        if running and isinstance(guard, Guard) and not off:
            shared = SharedViews(guard.decoder, 1 + len(running))
        elif running:
            shared = SharedViews(self._decoder, 1 + len(running))
        # A class that is off is on no trial either.
        session = self._first(guard, asked, shared, _as_it_is if off else listen)
        if not running:
            return ClassSessions(session, session, held.stage2)
        companions = []
        stage2: dict[str, StageTwo] = {}
        for number, name in enumerate(running, start=1):
            one, loaded = self._given[name], self._held[name]
            acts = one.acts(asked.surface, asked.tenant)
            own = _session(loaded.guard, name, one, asked, shared, number, acts=acts)
            companions.append(Companion(name, loaded.digest, own, acts=acts))
            stage2[name] = loaded.stage2 if acts else _Hasty(loaded.stage2, one.wait_s)
        several = JoinedSession(session, companions)
        return ClassSessions(session, several, _Routed(held.stage2, stage2), several)

    def _first(
        self,
        guard: AnyGuard,
        asked: ExchangeAsked,
        shared: SharedViews | None,
        listen: Callable[[Session], Session],
    ) -> Session:
        def exempt(clause: str) -> bool:
            return asked.exempt(clause, None)

        made = (asked.exchange, asked.policy, exempt, asked.hot, asked.memory, asked.account)
        if shared is not None and isinstance(guard, Guard):
            return listen(guard.session(*made, decoder=shared.reader(0)))
        return listen(guard.session(*made))

    # -- what operators see and change -----------------------------------------------------------

    def off(self, name: str) -> bool:
        """Whether a grant has switched a class off."""
        return self._switches is not None and self._switches.off(name) is not None

    def configure(self, given: Mapping[str, GuardClass]) -> None:
        """Take other rollouts; which classes there are, and their bundles, stay."""
        self._given = dict(given)
        self._tell()

    def state(self, name: str) -> str:
        """Return `off`, `shadow` or `on`; the first class is on unless it is off."""
        if self.off(name):
            return "off"
        return "on" if name == self.first else self._given[name].rollout

    def states(self) -> dict[str, dict[str, str]]:
        """Return each further class's state and bundle, for operators."""
        return {
            name: {"state": self.state(name), "bundle": held.digest}
            for name, held in self._held.items()
        }

    def _tell(self) -> None:
        for name in (self.first, *self._held):
            self._counts.class_at(name, self.state(name))

    # -- canaries --------------------------------------------------------------------------------

    async def watch(self, every_s: Callable[[], float]) -> None:
        """Let every class judge one of its own canaries now and then, until cancelled."""
        while True:
            await asyncio.sleep(every_s() or 1.0)
            self._tell()
            if every_s():
                await self.run_canaries()

    async def run_canaries(self) -> dict[str, bool]:
        """Say of each class whether it stops one of its canaries; tell of those that do not."""
        self._canaries += 1
        found: dict[str, bool] = {}
        for name, held in self._held.items():
            if not held.canaries or self.off(name):
                continue
            text = held.canaries[self._canaries % len(held.canaries)]
            try:
                caught = await blocks(held, Probe(text, _PLAIN, blocked=True))
            except SafeholdError:
                caught = False
            found[name] = caught
            if not caught:
                await self._passed(name)
        return found

    async def _passed(self, name: str) -> None:
        acting = self._given[name].rollout == "on"
        for surface in self._given[name].surfaces or tuple(Surface) if acting else ():
            self._closed(surface, f"the canary of class {name} passed unblocked")
        self._counts.alarm("class_canary")
        detail: Detail = {"alarm": "class-canary", "class": name}
        try:
            await self._ledger.append(
                EventRow(at=self._clock(), kind=EventKind.ALARM, detail=detail)
            )
        except LedgerError:
            self._counts.alarm("ledger")


def _session(
    guard: AnyGuard,
    name: str,
    one: GuardClass,
    asked: ExchangeAsked,
    shared: SharedViews | None,
    number: int,
    *,
    acts: bool,
) -> Session:
    """Return a further class's session: in shadow it notes, and what breaks in it is let pass."""
    policy = msgspec.structs.replace(
        asked.policy, unreadable_chars=_ANY, reads_request=one.reads == "every-request"
    )
    if not acts:
        policy = msgspec.structs.replace(
            policy,
            mode=DeliveryMode.AUDIT,
            fail_mode_stage1=FailMode.BYPASS,
            fail_mode_stage2=FailMode.BYPASS,
        )

    def exempt(clause: str) -> bool:
        return acts and asked.exempt(clause, name)

    if shared is not None and isinstance(guard, Guard):
        return guard.session(
            asked.exchange,
            policy,
            exempt,
            memory=asked.memory,
            account=asked.account,
            decoder=shared.reader(number),
        )
    return guard.session(asked.exchange, policy, exempt, memory=asked.memory, account=asked.account)


def _as_it_is(session: Session) -> Session:
    return session


def _silent(digest: str) -> Guard:
    """Return what stands in for a first class that is off: no scorer, but hot rules and counts."""
    cascade = Cascade(
        digest=digest, stage1=None, has_stage2=False, prompt=_NEVER, reply=_NEVER, rules=_NO_RULE
    )
    return Guard(cascade, ViewDecoder())


class _Routed:
    """Gives each escalation to the stage 2 of its class."""

    def __init__(self, first: StageTwo, others: Mapping[str, StageTwo]) -> None:
        self._first = first
        self._others = others

    async def __call__(self, request: Escalation) -> Answer:
        if request.guard_class is None:
            return await self._first(request)
        return await self._others[request.guard_class](request)


class _Hasty:
    """A stage 2 that an exchange does not wait for long: its class only watches."""

    def __init__(self, stage2: StageTwo, wait_s: float) -> None:
        self._stage2 = stage2
        self._wait_s = wait_s

    async def __call__(self, request: Escalation) -> Answer:
        try:
            return await asyncio.wait_for(self._stage2(request), self._wait_s)
        except TimeoutError:
            return Failed(reason="NotAwaited")


async def load_classes(
    given: Mapping[str, GuardClass],
    loader: Callable[[GuardClass], Loader],
    loaded: Mapping[str, Held],
    admit: Callable[[Held], None],
) -> dict[str, Held]:
    """Load every class and have each repeat its golden set; `loaded` are there already.

    `admit` raises BundleError for a guard that may not serve.

    Raises:
        BundleError: One of them is bad; the message names the class.
    """
    found: dict[str, Held] = {}
    for name, one in given.items():
        try:
            if name in loaded:
                admit(loaded[name])
                found[name] = loaded[name]
                continue
            fresh = await asyncio.to_thread(loader(one), Path(one.bundle))
            await self_test(fresh.held, fresh.golden)
        except SafeholdError as error:
            raise type(error)(f"class {name}: {error}") from error
        found[name] = fresh.held
    return found
