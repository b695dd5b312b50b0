"""Enforcement: keep the kernel's rules equal to the register, and never hand budget back.

Order matters for safety: what tightens is done first and logged after; what loosens is granted,
logged, and only then done.
"""

import contextlib
import datetime as dt
from collections.abc import Mapping, Sequence

import msgspec

from safehold.secure.egress.bounds.judge import (
    LEAST_SEGMENT,
    Look,
    acquitted,
    judge,
    strangers,
)
from safehold.secure.egress.bounds.odometer import FlowOdometer
from safehold.secure.egress.declare.box import Boxed, boxed
from safehold.secure.egress.declare.plan import EgressPlan
from safehold.secure.egress.declare.register import Flow, Register
from safehold.secure.egress.enforcement.compiled import (
    closed_in,
    in_force,
    meaning,
    plain,
    user_ids,
)
from safehold.secure.egress.enforcement.loosening import (
    FILES,
    Recorded,
    digest,
    documents,
    looser,
    recorded,
)
from safehold.secure.egress.enforcement.settle import quotas as new_quotas
from safehold.secure.egress.enforcement.settle import settle
from safehold.secure.egress.enforcement.snapshot import Snapshot, let_through, snapshot_of
from safehold.secure.egress.enforcement.state import BootClock, Clock, State, StateFile
from safehold.secure.egress.enforcement.step import EnforcementStep
from safehold.secure.egress.enforcement.surroundings import Surroundings
from safehold.secure.egress.interface import (
    AuditLog,
    Authorizer,
    KernelError,
    StateError,
    Window,
)
from safehold.secure.egress.kernel import netns
from safehold.secure.egress.kernel.cgroup import fill_cgroup_chains
from safehold.secure.egress.kernel.devices import (
    guarded,
    least_segment,
    read_devices,
    set_down,
    set_up,
)
from safehold.secure.egress.kernel.elsewhere import down_elsewhere
from safehold.secure.egress.kernel.inforce import (
    Rules,
    differences,
    foreign_chains,
    rules_compiled,
    rules_in_force,
)
from safehold.secure.egress.kernel.nft import CounterReading, NftKernel
from safehold.secure.egress.kernel.repeats import (
    RepeatedSocket,
    RepeatLedger,
    RepeatReader,
    repeated_by_flow,
)
from safehold.secure.egress.kernel.ruleset import (
    TOTAL,
    Desired,
    Quota,
    QuotaKey,
    accounts,
    budgets_of,
    first_drop,
    flow_closed,
    foreign_removal,
    quota_update,
    transaction,
)

DAY_S = 86_400.0
THROTTLE = 10
"""A throttled flow keeps this fraction (one tenth) of its budgets and its rate."""


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
        files: Mapping[str, str] | None = None,
        repeats: RepeatReader | None = None,
    ) -> None:
        self.repeats = repeats
        self._repeat_ledger = RepeatLedger()
        self.register = register
        self.plan = plan
        self._store = store
        self._audit = audit
        self._authorizer = authorizer
        self._kernel = kernel or NftKernel()
        self._clock = clock or BootClock()
        self._today = today
        self._files = dict(files or {})
        self._around = Surroundings(self._kernel.netns, plan)
        self._wanted: tuple[str, Rules] = ("", {})
        self._box_rows: tuple[tuple[Flow, ...], Boxed] | None = None

    @property
    def flows(self) -> tuple[Flow, ...]:
        """The accounts in force today: the live rows, or on a box what it can tell apart."""
        return self._boxed.flows if self.plan.box.inside else self._live

    @property
    def _live(self) -> tuple[Flow, ...]:
        today = self._today or dt.datetime.fromtimestamp(self._clock.wall_s(), dt.UTC).date()
        return self.register.live(today)

    @property
    def _boxed(self) -> Boxed:
        live = self._live
        if self._box_rows is None or self._box_rows[0] != live:
            self._box_rows = (live, boxed(live, self.plan.box))
        return self._box_rows[1]

    def groups(self) -> Mapping[str, str]:
        """Which account of a box each row of the host pays from, the same on both."""
        return self._boxed.account

    def account_of(self, flow: str) -> str:
        """The account that a row pays from: its own, or on a box that of its group.

        Raises:
            StateError: The register has no such row.
        """
        if flow not in {row.id for row in self.register.flows}:
            raise StateError(f"the register has no flow {flow[:40]!r}")
        return self._boxed.account.get(flow, flow) if self.plan.box.inside else flow

    def apply(self, *, first: bool = False) -> Snapshot:
        """Make the kernel hold the register and plan; `used` budget is carried over.

        The dead man gets more time from the first `apply` and from a granted one only: else one
        administrator could put `apply` in the place of the watch.

        Raises:
            StateError: There is no state and `first` was not said, or it can't be believed.
            TrustError: Something is loosened and no two-party grant covers exactly that.
            KernelError: The kernel refused; what held before still holds.
        """
        with self._store.locked():
            state = self._state(first=first, applying=True)
            granted = self._check_loosening(state)
            least_segment(self._kernel.netns, LEAST_SEGMENT)
            return self._approve(state, renew=granted or not state.approved)

    def tick(self, *, renew: bool = True) -> Snapshot:
        """Read the counters, move every window's line, and repair what is missing.

        `renew=False` is for a look that nobody detects or reconciles by: the dead man's time runs
        on.
        """
        with self._store.locked():
            state = self._state(first=False)
            self._refuse_loosened(state)
            return self._look(state, renew=renew)

    def block(self, flow: str, reason: str) -> Snapshot:
        """Drop everything of one flow, now.

        Raises:
            StateError: It is dropped, but that can't be made durable (a full disk): a restart
                would forget it.
        """
        flow = self.account_of(flow)
        return self._tighten("block", flow, reason, blocked=frozenset({flow}))

    def throttle(self, flow: str, reason: str) -> Snapshot:
        """Leave a flow one tenth of its budgets and rate, now."""
        flow = self.account_of(flow)
        return self._tighten("throttle", flow, reason, throttled=frozenset({flow}))

    def close_all(self, reason: str) -> Snapshot:
        """Drop everything that leaves, now."""
        return self._tighten("seal", "*", reason, sealed=True)

    def cut(self, reason: str) -> Snapshot:
        """Take every device down and drop everything: nothing leaves, whoever hands it over."""
        found = read_devices(self._kernel.netns)
        names = tuple(device.name for device in self._around.outer(found) if device.up)
        set_down(self._kernel.netns, names)
        moved = self._around.moved(self._store.load(), found)
        down_elsewhere(*moved)
        return self._tighten("cut", "*", reason, sealed=True, cut=names)

    def unblock(self, flow: str, reason: str) -> Snapshot:
        """Undo a block, a throttle or (`*`) a seal; needs a two-party grant.

        Raises:
            TrustError: No live grant covers exactly this.
        """
        if flow != "*":
            flow = self.account_of(flow)
        with self._store.locked():
            state = self._state(first=False)
            self._refuse_loosened(state)
            grant = self._authorizer.require("egress.release", flow)
            self._audit.append(
                "egress.release", {"flow": flow, "reason": reason, "grant": grant.grant_id}
            )
            opened = msgspec.structs.replace(
                state,
                blocked=state.blocked - {flow},
                throttled=state.throttled - {flow},
                sealed=state.sealed and flow != "*",
                cut=() if flow == "*" else state.cut,
                bench=acquitted(state.bench) if flow == "*" else state.bench,
            )
            snapshot = self._rebuild(opened, shape=True)
            if flow == "*":
                set_up(self._kernel.netns, state.cut)
            return snapshot

    def state(self) -> State | None:
        """The state as it was last made durable."""
        return self._store.load()

    def _tighten(
        self,
        action: str,
        flow: str,
        reason: str,
        *,
        blocked: frozenset[str] = frozenset(),
        throttled: frozenset[str] = frozenset(),
        sealed: bool = False,
        cut: tuple[str, ...] = (),
    ) -> Snapshot:
        with self._store.locked():
            if blocked or sealed:
                self._strike(None if sealed else flow)
            state = self._state(first=False)
            # A register that was loosened on disk must not ride in on a block: then all is sealed.
            tightened = msgspec.structs.replace(
                state,
                blocked=state.blocked | blocked,
                throttled=state.throttled | throttled,
                sealed=state.sealed or sealed or bool(self._loosened_now(state)),
                cut=tuple(dict.fromkeys((*state.cut, *cut))),
            )
            try:
                self._store.save(tightened)
            except StateError as error:
                # A full disk must not keep a flow open: drop first, then say what is missing.
                self._rebuild(tightened, shape=bool(throttled), durable=False, compare=False)
                raise StateError(
                    f"{action} of {flow} is in the kernel but not durable: {error}"
                ) from error
            if blocked and tightened.sealed == state.sealed:
                snapshot = self._close(tightened, flow, closed_in(state, flow))
            else:
                snapshot = self._rebuild(tightened, shape=bool(throttled), compare=False)
        self._audit.append(f"egress.{action}", {"flow": flow, "reason": reason})
        return snapshot

    def _strike(self, account: str | None) -> None:
        """Drop before anything is read or written; the rules are made whole right after.

        Under the lock, so that no look meets the one rule that nobody compiled.
        """
        with contextlib.suppress(KernelError):  # no rules of ours yet: the whole ones come next
            self._kernel.apply(first_drop(account, self.plan))

    def _state(self, *, first: bool, applying: bool = False) -> State:
        state = self._store.load()
        if state is not None:
            return self._believed(state, applying=applying)
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
        )

    def _believed(self, state: State, *, applying: bool) -> State:
        """Hold the state against the audit log: a file that says less is closed is not believed."""
        said: Recorded = recorded(self._audit.events())
        if said.approved and said.approved != _approval(state):
            if not applying:
                raise StateError(
                    "the approved budgets and settings in the state are not those in the audit "
                    "log: the state was edited; `apply` takes it, with a grant of egress.raise"
                )
            state = msgspec.structs.replace(state, documents={})
        return msgspec.structs.replace(
            state,
            blocked=state.blocked | said.blocked,
            throttled=state.throttled | said.throttled,
            sealed=state.sealed or said.sealed,
        )

    def _check_loosening(self, state: State) -> bool:
        """Whether something is looser, which then has its grant."""
        loose = self._loosened_now(state)
        if not loose:
            return False
        resource = self.plan_digest()
        grant = self._authorizer.require("egress.raise", resource)
        self._audit.append(
            "egress.raise", {"plan": resource, "changes": loose, "grant": grant.grant_id}
        )
        return True

    def _loosened_now(self, state: State) -> list[str]:
        if not state.approved:
            return []
        now = self._documents(state)
        return sorted(looser(state.documents, now))

    def _documents(self, state: State) -> dict[str, object]:
        """What is asked for now; a command that names no file asks for the approved one."""
        kept = {
            kind.removeprefix("egress-"): value
            for kind, value in state.documents.items()
            if isinstance(value, str)
        }
        return documents(self.register, self.plan, {**kept, **self._files})

    def _refuse_loosened(self, state: State) -> None:
        """Only `apply` takes a looser register, with its grant; nothing else picks one up."""
        loose = self._loosened_now(state)
        if loose:
            raise StateError(
                f"the register or plan was loosened since it was applied ({', '.join(loose[:5])}); "
                "`apply` takes that, with a grant"
            )

    def refuse_missing_files(self) -> None:
        """Refuse a watch that lacks a file which `apply` approved: it would look less.

        Raises:
            StateError: A file was approved and is not given.
        """
        state = self._store.load()
        approved = {} if state is None else state.documents
        missing = [name for name in FILES if approved.get(f"egress-{name}")]
        for name in missing:
            if name not in self._files:
                raise StateError(
                    f"`apply` approved a {name} file and this watch has none; give --{name}"
                )

    def plan_digest(self) -> str:
        """Name exactly the budgets and settings that a grant to raise must cover."""
        return digest(self._documents(self._store.load() or State(boot_id="", uptime_s=0.0)))

    def budgets(self) -> dict[str, dict[str, int]]:
        """Every budget in force, by account and window."""
        return {
            name: {window.value: size for window, size in windows.items()}
            for name, windows in budgets_of(self.flows, self.plan).items()
        }

    # -- three ways to make the kernel hold a state ----------------------------------------------

    def _look(self, state: State, *, renew: bool) -> Snapshot:
        """Move the lines; make the rules anew only where they are not those they should be."""
        step = self._step(state)
        drift = self._drift(step)
        rebuild = drift is None or bool(drift)
        if rebuild or step.stale:
            came = bool(set(step.new) & set(self.plan.link.interfaces))
            self._replace(step, shape=rebuild or step.rules_gone or came, renew=renew)
        else:
            lines = {key: quota.limit for key, quota in step.quotas.items()}
            self._kernel.apply(quota_update(lines, self.plan, renew=renew))
        return self._told(step, self._kept(step), (*step.mended, *(drift or ())))

    def _approve(self, state: State, *, renew: bool) -> Snapshot:
        """Make all rules anew, and what is asked for the approved state.

        Raises:
            KernelError: A way out of the plan is not there.
        """
        step = self._step(state)
        missing = set(self.plan.link.interfaces) - set(guarded(step.devices))
        if missing:
            raise KernelError(f"interface {min(missing)} does not exist, or others send through it")
        drift = self._drift(step)
        self._replace(step, shape=True, renew=renew)
        approved = msgspec.structs.replace(
            self._remembered(step), approved=self.budgets(), documents=self._documents(step.state)
        )
        self._store.save(approved)
        self._audit.append(
            "egress.apply",
            {
                "plan": self.plan_digest(),
                "approved": _approval(approved),
                "blocked": sorted(approved.blocked),
            },
        )
        return self._told(step, approved, drift or ())

    def _rebuild(
        self, state: State, *, shape: bool, durable: bool = True, compare: bool = True
    ) -> Snapshot:
        """Make all rules anew for what is closed or opened.

        `shape` sets traffic control too; `durable=False` is for a disk that takes nothing;
        `compare=False` is for rules with one of our own at their head.
        """
        step = self._step(state, durable=durable)
        drift = self._drift(step) if compare else ()
        self._replace(step, shape=shape, renew=False)
        kept = self._kept(step) if durable else step.state
        return self._told(step, kept, (*step.mended, *(drift or ())))

    def _close(self, state: State, flow: str, compiled: str) -> Snapshot:
        """Make the chain of one blocked flow whole; the next look compares it with all others.

        `compiled` names the rules then in force. Where the rules are not those of before, all are
        made anew.
        """
        step = self._step(state, compiled=compiled)
        closed = None if step.stale else flow_closed(flow, step.desired)
        if closed is None:
            step = msgspec.structs.replace(step, compiled=meaning(step.desired))
            self._replace(step, shape=False, renew=False)
        else:
            self._kernel.apply(closed)
        return self._told(step, self._kept(step), step.mended)

    def _step(
        self, state: State, *, durable: bool = True, compiled: str | None = None
    ) -> EnforcementStep:
        """Look at the host, settle what is remembered, and say what the rules should be.

        `compiled` is their name where it is known without compiling them.
        """
        flows = self.flows
        if state.cut:
            set_down(self._kernel.netns, state.cut)
        before = self._around.outer(read_devices(self._kernel.netns))
        again = self._again()
        reading = self._kernel.read()
        devices = self._around.outer(read_devices(self._kernel.netns, late=True))
        look = Look(before, devices, *let_through(reading, self.plan))
        state, findings = settle(state, reading, self._clock, flows, self.plan)
        state = self._repeated(state, again, reading, flows)
        new = strangers(state.bench, devices)
        state = self._judged(state, look, ruled=reading is not None)
        # Durable before the lines move: a crash here costs nothing and refunds nothing.
        if durable:
            self._store.save(state)
        remaining = self._remaining(state, flows)
        quotas = dict(new_quotas(remaining, reading, flows, self.plan))
        names = accounts(flows, self.plan)
        counters = reading.counters if reading is not None else {}
        gone = tuple(n for n in state.approved if n not in names and f"c_{n}" in counters)
        mended = self._around.mended(state, devices, flows)
        desired = self._desired(state, flows, quotas, gone, guarded(devices))
        return EnforcementStep(
            state=state,
            reading=reading,
            devices=devices,
            new=new,
            rules_gone=reading is None or any(f"c_{name}" not in counters for name in names),
            gone=gone,
            remaining=remaining,
            quotas=quotas,
            desired=desired,
            compiled=meaning(desired) if compiled is None else compiled,
            findings=findings,
            mended=mended,
        )

    def _drift(self, step: EnforcementStep) -> tuple[str, ...] | None:
        """Say how the rules in force differ; None where others are wanted than were compiled."""
        if step.reading is None or not in_force(step.state.compiled, step.desired, step.compiled):
            return None
        return self._compare(step.desired, step.compiled)

    def _remembered(self, step: EnforcementStep) -> State:
        """Keep what is in force now."""
        now = self._around.remembered(step.state, step.devices, step.compiled)
        if now != step.state:
            self._store.save(now)
        return now

    def _kept(self, step: EnforcementStep) -> State:
        """Keep what is in force now, and of what was approved the accounts that are left."""
        state = self._remembered(step)
        if step.gone:
            names = accounts(self.flows, self.plan)
            left = {name: state.approved[name] for name in names if name in state.approved}
            state = msgspec.structs.replace(state, approved=left)
            self._store.save(state)
        return state

    def _told(self, step: EnforcementStep, state: State, more: tuple[str, ...]) -> Snapshot:
        away = tuple(sorted(self._around.moved(state, step.devices)[0]))
        found = (*step.findings, *more)
        flows = step.desired.flows
        seen = (step.new, away)
        return snapshot_of(state, step.reading, step.remaining, found, self.plan, flows, seen)

    def _again(self) -> list[RepeatedSocket]:
        """What TCP sent again; a kernel that does not answer gives no credit."""
        if self.repeats is None:
            return []
        try:
            return self.repeats.look()
        except KernelError:
            return []

    def _repeated(
        self,
        state: State,
        again: Sequence[RepeatedSocket],
        reading: CounterReading | None,
        flows: Sequence[Flow],
    ) -> State:
        """Add what TCP sent again of flows of which the rules dropped nothing."""
        if self.repeats is None or reading is None:
            return state
        shared = {f"d_{TOTAL}", "invalid"}
        dropped = {
            name: size
            for name, size in reading.counters.items()
            if name.startswith("d_") or name in shared
        }
        found = repeated_by_flow(again, flows, user_ids(flows)) if again else {}
        self._repeat_ledger, credit = self._repeat_ledger.credited(found, dropped, shared)
        total = {flow: state.repeated.get(flow, 0) + size for flow, size in credit.items()}
        return msgspec.structs.replace(state, repeated={**state.repeated, **total})

    def _judged(self, state: State, look: Look, *, ruled: bool) -> State:
        now = self._clock.uptime_s()
        since = min(max(0.0, now - state.bench.at), DAY_S) if state.bench.at else 0.0
        control = int(self.plan.judge.control_bytes_a_day * since / DAY_S)
        bench = msgspec.structs.replace(judge(state.bench, look, control), at=now)
        if not ruled:
            # Until the rules are there, nothing counts what leaves: the next look only remembers.
            bench = msgspec.structs.replace(bench, started=False)
        return msgspec.structs.replace(state, bench=bench)

    def _remaining(self, state: State, flows: Sequence[Flow]) -> dict[str, dict[Window, int]]:
        result = {}
        for name, budget in budgets_of(flows, self.plan).items():
            if name in state.throttled:
                left = {window: limit // THROTTLE for window, limit in budget.items()}
            else:
                left = dict(budget)
            result[name] = state.accounts.get(name, FlowOdometer()).remaining(left, state.at)
        return result

    def _compare(self, desired: Desired, compiled: str) -> tuple[str, ...]:
        """Compare the rules in force with those compiled; take foreign chains out."""
        if self._wanted[0] != compiled:
            listed = rules_compiled(transaction(plain(desired)), desired.devices, desired.flows)
            self._wanted = (compiled, listed)
        force = rules_in_force(self._kernel)
        changed = differences(self._wanted[1], force)
        foreign = foreign_chains(self._wanted[1], force)
        if changed and foreign:
            self._kernel.apply(foreign_removal(foreign))
        return tuple(f"rules in force are not those compiled: {what}" for what in changed[:5])

    def _desired(
        self,
        state: State,
        flows: tuple[Flow, ...],
        quotas: Mapping[QuotaKey, Quota],
        gone: tuple[str, ...],
        devices: tuple[str, ...],
    ) -> Desired:
        return Desired(
            flows=flows,
            rows=self._boxed.rows if self.plan.box.inside else (),
            plan=self.plan,
            uids=user_ids(flows),
            interfaces={
                flow.source.netns: netns.host_interface(flow.source.netns)
                for flow in flows
                if flow.source.netns
            },
            quotas=quotas,
            blocked=state.blocked,
            sealed=state.sealed,
            gone=gone,
            devices=devices,
        )

    def _replace(self, step: EnforcementStep, *, shape: bool, renew: bool) -> None:
        self._kernel.apply(transaction(step.desired, renew=renew))
        fill_cgroup_chains(step.desired.flows, self._kernel)
        if shape and self.plan.link.shape:
            self._around.shaper.apply(self.plan, step.desired.flows, step.state.throttled)


def _approval(state: State) -> str:
    """Name what a state says was approved."""
    return digest({"documents": state.documents})
