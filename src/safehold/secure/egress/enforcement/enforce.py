"""Enforcement: keep the kernel's rules equal to the register, and never hand budget back.

Order matters for safety: what tightens is done first and logged after; what loosens is granted,
logged, and only then done.
"""

import datetime as dt
import hashlib
import pwd
import secrets
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from safehold.secure.egress.bounds.budget import shaped
from safehold.secure.egress.bounds.odometer import Account
from safehold.secure.egress.declare.plan import EgressPlan
from safehold.secure.egress.declare.register import Flow, Register
from safehold.secure.egress.enforcement.state import BootClock, Clock, State, StateFile
from safehold.secure.egress.interface import (
    AuditLog,
    Authorizer,
    EgressMode,
    KernelError,
    StateError,
    Window,
)
from safehold.secure.egress.kernel import netns
from safehold.secure.egress.kernel.cgroup import fill_cgroup_chains
from safehold.secure.egress.kernel.nft import CounterReading, NftKernel
from safehold.secure.egress.kernel.ruleset import (
    Desired,
    Quota,
    QuotaKey,
    accounts,
    quota_name,
    quota_update,
    transaction,
    windows_of,
)
from safehold.secure.egress.kernel.shaping import Shaper

THROTTLE = 10
"""A throttled flow keeps this fraction (one tenth) of its budgets and its rate."""

_REFILL_BYTES = 65_536
"""A depleted quota is made anew once its window has this much again (or its whole budget)."""


class Snapshot(msgspec.Struct, frozen=True):
    """What one look at the kernel found."""

    at: float
    wall_s: float
    passed: dict[str, int]
    dropped: dict[str, int]
    remaining: dict[str, dict[str, int]]
    undeclared: int
    findings: tuple[str, ...]


class Enforcer:
    """Holds one host (or one network namespace) to its register and plan."""

    def __init__(
        self,
        *,
        register: Register,
        plan: EgressPlan,
        store: StateFile,
        audit: AuditLog,
        authorizer: Authorizer,
        kernel: NftKernel | None = None,
        clock: Clock | None = None,
        today: dt.date | None = None,
    ) -> None:
        self.register = register
        self.plan = plan
        self._store = store
        self._audit = audit
        self._authorizer = authorizer
        self._kernel = kernel or NftKernel()
        self._clock = clock or BootClock()
        self._today = today
        self._shaper = Shaper(self._kernel.netns)

    @property
    def flows(self) -> tuple[Flow, ...]:
        """The rows in force today."""
        today = self._today or dt.datetime.fromtimestamp(self._clock.wall_s(), dt.UTC).date()
        return self.register.live(today)

    def apply(self, *, first: bool = False) -> Snapshot:
        """Make the kernel hold the register and plan; `used` budget is carried over.

        Raises:
            StateError: There is no state and `first` was not said, or it can't be believed.
            TrustError: Something is loosened and no two-party grant covers exactly that.
            KernelError: The kernel refused; what held before still holds.
        """
        with self._store.locked():
            state = self._state(first=first, applying=True)
            self._check_loosening(state)
            return self._enforce(state, rebuild=True, approve=True)

    def tick(self) -> Snapshot:
        """Read the counters, move every window's line, and repair what is missing."""
        with self._store.locked():
            state = self._state(first=False)
            self._refuse_loosened(state)
            return self._enforce(state)

    def block(self, flow: str, reason: str) -> Snapshot:
        """Drop everything of one flow, now.

        Raises:
            StateError: It is dropped, but that can't be made durable (a full disk): a restart
                would forget it.
        """
        self._known(flow)
        return self._tighten("block", flow, reason, blocked=frozenset({flow}))

    def throttle(self, flow: str, reason: str) -> Snapshot:
        """Leave a flow one tenth of its budgets and rate, now."""
        self._known(flow)
        return self._tighten("throttle", flow, reason, throttled=frozenset({flow}))

    def seal(self, reason: str) -> Snapshot:
        """Drop everything that leaves, now."""
        return self._tighten("seal", "*", reason, sealed=True)

    def release(self, flow: str, reason: str) -> Snapshot:
        """Undo a block, a throttle or (`*`) a seal; needs a two-party grant.

        Raises:
            TrustError: No live grant covers exactly this.
        """
        if flow != "*":
            self._known(flow)
        with self._store.locked():
            state = self._state(first=False)
            self._refuse_loosened(state)
            grant = self._authorizer.require("egress.release", flow)
            self._audit.append(
                "egress.release", {"flow": flow, "reason": reason, "grant": grant.grant_id}
            )
            loosened = msgspec.structs.replace(
                state,
                blocked=state.blocked - {flow},
                throttled=state.throttled - {flow},
                sealed=state.sealed and flow != "*",
            )
            return self._enforce(loosened, rebuild=True)

    def state(self) -> State | None:
        """The state as it was last made durable."""
        return self._store.load()

    def _known(self, flow: str) -> None:
        if flow not in {row.id for row in self.register.flows}:
            raise StateError(f"the register has no flow {flow[:40]!r}")

    def _tighten(
        self,
        action: str,
        flow: str,
        reason: str,
        *,
        blocked: frozenset[str] = frozenset(),
        throttled: frozenset[str] = frozenset(),
        sealed: bool = False,
    ) -> Snapshot:
        with self._store.locked():
            state = self._state(first=False)
            # A register that was loosened on disk must not ride in on a block: then all is sealed.
            tightened = msgspec.structs.replace(
                state,
                blocked=state.blocked | blocked,
                throttled=state.throttled | throttled,
                sealed=state.sealed or sealed or bool(self._loosened_now(state)),
            )
            try:
                self._store.save(tightened)
            except StateError as error:
                # A full disk must not keep a flow open: drop first, then say what is missing.
                self._enforce(tightened, rebuild=True, shape=bool(throttled), durable=False)
                raise StateError(
                    f"{action} of {flow} is in the kernel but not durable: {error}"
                ) from error
            snapshot = self._enforce(tightened, rebuild=True, shape=bool(throttled))
        self._audit.append(f"egress.{action}", {"flow": flow, "reason": reason})
        return snapshot

    def _state(self, *, first: bool, applying: bool = False) -> State:
        state = self._store.load()
        if state is not None:
            return state
        if self._kernel.read() is not None:
            # A state that vanished under live rules would forget what was approved and sent.
            if not applying:
                raise StateError("the enforcement state vanished; the kernel's rules still hold")
            resource = self.plan_digest()
            grant = self._authorizer.require("egress.reset", resource)
            self._audit.append("egress.reset", {"plan": resource, "grant": grant.grant_id})
        elif not first:
            raise StateError("no enforcement state: say --first on a host never enforced before")
        return State(
            boot_id=self._clock.boot_id(),
            uptime_s=self._clock.uptime_s(),
            mark=secrets.randbits(31) | 1 << 31,
        )

    def _check_loosening(self, state: State) -> None:
        loosened = self._loosened_now(state)
        if not loosened:
            return
        resource = self.plan_digest()
        grant = self._authorizer.require("egress.raise", resource)
        self._audit.append(
            "egress.raise", {"plan": resource, "changes": loosened, "grant": grant.grant_id}
        )

    def _loosened_now(self, state: State) -> list[str]:
        if not state.approved:
            return []
        return sorted(_loosened(state, self.budgets(), posture(self.plan)))

    def _refuse_loosened(self, state: State) -> None:
        """Only `apply` takes a looser register, with its grant; nothing else picks one up."""
        loosened = self._loosened_now(state)
        if loosened:
            raise StateError(
                f"the register or plan was loosened since it was applied ({', '.join(loosened)}); "
                "`apply` takes that, with a grant"
            )

    def plan_digest(self) -> str:
        """Name exactly the budgets and settings that a grant to raise must cover."""
        text = msgspec.json.encode(
            [self.budgets(), posture(self.plan), self.register], order="deterministic"
        )
        return hashlib.sha256(text).hexdigest()

    def budgets(self) -> dict[str, dict[str, int]]:
        """Every budget in force, by account and window."""
        flows = self.flows
        return {
            name: {w.value: b for w, b in windows_of(name, flows, self.plan).items()}
            for name in accounts(flows, self.plan)
        }

    def _enforce(
        self,
        state: State,
        *,
        rebuild: bool = False,
        approve: bool = False,
        shape: bool = True,
        durable: bool = True,
    ) -> Snapshot:
        flows = self.flows
        reading = self._kernel.read()
        state, findings = settle(state, reading, self._clock, flows, self.plan)
        # Durable before the lines move: a crash here costs nothing and refunds nothing.
        if durable:
            self._store.save(state)
        remaining = self._remaining(state, flows)
        quotas = dict(_quotas(remaining, reading, flows, self.plan))
        names = accounts(flows, self.plan)
        rules_gone = reading is None or any(f"c_{name}" not in reading.counters for name in names)
        gone = tuple(
            name
            for name in state.approved
            if reading is not None and name not in names and f"c_{name}" in reading.counters
        )
        if rebuild or rules_gone or gone or any(quota.fresh for quota in quotas.values()):
            self._replace(state, flows, quotas, gone, shape=shape and (rebuild or rules_gone))
        else:
            lines = {key: quota.limit for key, quota in quotas.items()}
            self._kernel.apply(quota_update(lines))
        if durable and (approve or gone):
            kept = {name: state.approved[name] for name in names if name in state.approved}
            state = msgspec.structs.replace(
                state,
                approved=self.budgets() if approve else kept,
                posture=posture(self.plan) if approve else state.posture,
            )
            self._store.save(state)
        if approve:
            self._audit.append(
                "egress.apply",
                {"plan": self.plan_digest(), "blocked": sorted(state.blocked)},
            )
        return _snapshot(state, reading, remaining, findings)

    def _remaining(self, state: State, flows: Sequence[Flow]) -> dict[str, dict[Window, int]]:
        result = {}
        for name in accounts(flows, self.plan):
            budget = windows_of(name, flows, self.plan)
            if name in state.throttled:
                budget = {window: limit // THROTTLE for window, limit in budget.items()}
            result[name] = state.accounts.get(name, Account()).remaining(budget, state.at)
        return result

    def _replace(
        self,
        state: State,
        flows: tuple[Flow, ...],
        quotas: Mapping[QuotaKey, Quota],
        gone: tuple[str, ...],
        *,
        shape: bool,
    ) -> None:
        desired = Desired(
            flows=flows,
            plan=self.plan,
            uids=_uids(flows),
            interfaces={
                flow.source.netns: netns.host_interface(flow.source.netns)
                for flow in flows
                if flow.source.netns
            },
            quotas=quotas,
            blocked=state.blocked,
            sealed=state.sealed,
            gone=gone,
            mark=state.mark,
        )
        self._kernel.apply(transaction(desired))
        fill_cgroup_chains(flows, self._kernel)
        if shape and self.plan.link.shape:
            self._shaper.apply(self.plan, flows, state.throttled)


def settle(
    state: State,
    reading: CounterReading | None,
    clock: Clock,
    flows: Sequence[Flow],
    plan: EgressPlan,
) -> tuple[State, tuple[str, ...]]:
    """Bring the state up to what the kernel says now.

    Where the kernel's memory was lost (a reboot, a deleted table, a reset counter), every account
    is charged the most it could have sent since the last durable reading.
    """
    uptime, boot = clock.uptime_s(), clock.boot_id()
    rebooted = boot != state.boot_id
    elapsed = 0.0 if rebooted else max(0.0, uptime - state.uptime_s)
    at = state.at + elapsed
    findings: list[str] = []
    lost = reading is None or rebooted
    if lost and state.accounts:
        findings.append("rebooted" if rebooted else "the kernel's table had disappeared")
    updated = dict(state.accounts)
    counters = reading.counters if reading else {}
    leaving = (name for name in state.approved if f"c_{name}" in counters)
    for name in dict.fromkeys((*accounts(flows, plan), *leaving)):
        account = state.accounts.get(name, Account())
        raw = counters.get(f"c_{name}", 0)
        expected = name in state.approved or name in state.accounts
        reset = lost or f"c_{name}" not in counters or raw < account.raw
        extra = 0
        if reset and expected and account.samples:
            if not lost and name in state.approved:
                findings.append(f"the counter of {name} went backwards or vanished")
            budget = {Window(w): b for w, b in state.approved.get(name, {}).items()}
            remaining = min(account.remaining(budget, state.at).values(), default=0)
            # How long the old boot went on after the last reading is not known.
            extra = remaining if rebooted else min(remaining, shaped(plan, elapsed))
        if reset:
            account = msgspec.structs.replace(account, raw=0)
        updated[name] = account.advance(raw, extra, at)
    fresh = msgspec.structs.replace(
        state,
        boot_id=boot,
        uptime_s=uptime,
        at=at,
        wall_s=clock.wall_s(),
        accounts=updated,
    )
    return fresh, tuple(findings)


def _quotas(
    remaining: Mapping[str, Mapping[Window, int]],
    reading: CounterReading | None,
    flows: Sequence[Flow],
    plan: EgressPlan,
) -> Iterator[tuple[QuotaKey, Quota]]:
    held = reading.quotas if reading else {}
    for name, windows in remaining.items():
        for window, left in windows.items():
            limit, used = held.get(quota_name(name, window), (0, -1))
            budget = windows_of(name, flows, plan)[window]
            if used < 0:
                yield (name, window), Quota(limit=left, fresh=True)
            elif used >= limit and left < min(_REFILL_BYTES, budget):
                yield (name, window), Quota(limit=limit, fresh=False)
            elif used >= limit:
                yield (name, window), Quota(limit=left, fresh=True)
            else:
                yield (name, window), Quota(limit=used + left, fresh=False)


def posture(plan: EgressPlan) -> dict[str, int]:
    """The settings of a plan as numbers of which a larger one is looser."""
    return {
        "map_mode": int(plan.mode is EgressMode.MAP),
        "loopback": int(plan.local.loopback),
        "link_local": int(plan.local.link_local),
        "neighbour_discovery": int(plan.local.neighbour_discovery),
        "raw_frames": int(not plan.local.raw_frame_guard),
        "unshaped": int(not plan.link.shape),
        "rate_bit_s": plan.link.rate_bit_s,
    }


def _loosened(
    state: State, budgets: Mapping[str, Mapping[str, int]], looks: Mapping[str, int]
) -> Iterator[str]:
    for name, windows in budgets.items():
        for window, limit in windows.items():
            if limit > state.approved.get(name, {}).get(window, 0):
                yield f"{name}.{window}"
    for name, windows_before in state.approved.items():
        if name == "total":
            yield from (f"{name}.{w}" for w in windows_before if w not in budgets.get(name, {}))
    yield from (key for key, value in looks.items() if value > state.posture.get(key, 0))


def _uids(flows: Sequence[Flow]) -> dict[str, int]:
    found = {}
    for flow in flows:
        if flow.source.user:
            try:
                found[flow.source.user] = pwd.getpwnam(flow.source.user).pw_uid
            except KeyError as error:
                raise KernelError(f"flow {flow.id}: this host has no such user") from error
    return found


def _snapshot(
    state: State,
    reading: CounterReading | None,
    remaining: Mapping[str, Mapping[Window, int]],
    findings: tuple[str, ...],
) -> Snapshot:
    counters = reading.counters if reading else {}
    return Snapshot(
        at=state.at,
        wall_s=state.wall_s,
        passed={name: state.accounts[name].passed for name in remaining},
        dropped={name: counters.get(f"d_{name}", 0) for name in remaining},
        remaining={
            name: {window.value: left for window, left in windows.items()}
            for name, windows in remaining.items()
        },
        undeclared=counters.get("undeclared", 0) + counters.get("raw", 0),
        findings=findings,
    )
