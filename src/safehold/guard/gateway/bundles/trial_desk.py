"""A trial in one worker: loads the challenger, seats exchanges, plays the other bundle, goes back.

Whatever fails ends in the champion: a file that does not verify, a challenger that does not load,
a canary that it lets pass, a row that can't be kept, a memory that is lost. The challenger's way
forward is only ever a signed file.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from safehold.errors import BundleError, LedgerError, SafeholdError, TrustError
from safehold.guard.bundle.overlay_file import quorum_of
from safehold.guard.gateway.bundles.active_guard import Held
from safehold.guard.gateway.bundles.swap import Loader, Probe, blocks, self_test
from safehold.guard.gateway.bundles.trial_file import (
    TrialError,
    TrialPlan,
    opened_plan,
    read_draw,
)
from safehold.guard.gateway.bundles.trial_memory import (
    Kept,
    TrialMemory,
    Verdicts,
    followed,
    judged,
)
from safehold.guard.gateway.bundles.trial_seats import Played, Seat, play
from safehold.guard.gateway.bundles.trial_steps import TrialStep
from safehold.guard.gateway.trial_settings import TrialSettings
from safehold.guard.ledger.interface import Detail, EventKind, EventRow, RowSink

_MOST_WAITING = 256
_MOST_CHARS = 16_000_000
_PLAIN = "What a lovely morning it is."


class TrialCounts(Protocol):
    """Where a trial is counted (`Metrics`)."""

    def alarm(self, kind: str) -> None:
        """Count an alarm."""
        ...

    def trial_exchange(self, result: str) -> None:
        """Count an exchange that both bundles judged, by who alone refused."""
        ...

    def trial_at(self, step: str) -> None:
        """Say in which step the trial is; empty where there is none."""
        ...


class TrialDesk:
    """One worker's part in a trial."""

    def __init__(
        self,
        settings: TrialSettings,
        *,
        bundles: Path,
        loader: Loader,
        admit: Callable[[TrialPlan], object],
        ledger: RowSink,
        counts: TrialCounts,
        clock: Callable[[], float],
        canary_s: float,
    ) -> None:
        """Take what it works with; `admit` raises TrustError for a step that was not released.

        Raises:
            ConfigError: A key or the secret can't be read.
        """
        self._file = Path(settings.file)
        self._memory = TrialMemory(Path(settings.memory))
        self._quorum = quorum_of(settings.keys, settings.approvals)
        self._secret = read_draw(Path(settings.secret_file))
        self._reload_s = settings.reload_s
        self._bundles = bundles
        self._loader = loader
        self._admit = admit
        self._ledger = ledger
        self._counts = counts
        self._clock = clock
        self._canary_s = canary_s
        self._canary_at = time.monotonic()
        self._canaries = 0
        self._kept: Kept | None = None
        self._challenger: Held | None = None
        self._bad = ""
        self._told = ""
        self._waiting: deque[Played] = deque()
        self._chars = 0
        self._some = asyncio.Event()
        self._busy = asyncio.Lock()

    # -- exchanges ---------------------------------------------------------------------------

    @contextmanager
    def seat(self, champion: Held, account: str | None) -> Iterator[Seat]:
        """Hold the bundle that decides an account's exchange; None is never on trial."""
        challenger, kept = self._challenger, self._kept
        on = kept is not None and kept.open and kept.trial.champion == champion.digest
        if challenger is None or kept is None or account is None or not on:
            yield Seat(champion)
            return
        tried = kept.trial.serves(account, self._secret) == challenger.digest
        held, other = (challenger, champion) if tried else (champion, challenger)
        challenger.uses += 1
        try:
            yield Seat(held, other, self._offer)
        finally:
            challenger.release()

    def _offer(self, played: Played) -> None:
        if len(self._waiting) >= _MOST_WAITING or self._chars + played.chars > _MOST_CHARS:
            self._counts.trial_exchange("skipped")
            return
        played.other.uses += 1
        self._waiting.append(played)
        self._chars += played.chars
        self._some.set()

    async def judge(self) -> None:
        """Play the other bundle whatever ended, until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                await self._play(self._waiting.popleft())

    async def _play(self, played: Played) -> None:
        self._chars -= played.chars
        try:
            other = await play(played)
        except SafeholdError:
            other = True
        finally:
            played.other.release()
        kept = self._kept
        if (
            kept is None
            or not kept.open
            or {played.served, played.other.digest}
            != {
                kept.trial.champion,
                kept.trial.challenger,
            }
        ):
            return
        tried = played.served == kept.trial.challenger
        champion, challenger = (other, played.blocked) if tried else (played.blocked, other)
        found = Verdicts(played.decision_id, champion, challenger)
        kind = "same" if champion is challenger else "challenger" if challenger else "champion"
        self._counts.trial_exchange(kind)
        if kind != "same":
            detail: Detail = {
                "trial": kept.plan.id,
                "champion": champion,
                "challenger": challenger,
                "served": played.served,
            }
            if not await self._event(detail, decision_id=played.decision_id):
                await self._end("a row could not be kept")
        await self._changed(lambda now: judged(now, (found,)), of=kept.plan.id)

    # -- the file, the memory, the challenger ------------------------------------------------

    async def follow(self) -> None:
        """Follow the file and the memory until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._reload_s)

    async def look(self) -> None:
        """Look once; what does not verify changes nothing."""
        async with self._busy:
            refused = ""
            try:
                kept = await asyncio.to_thread(self._read)
            except (BundleError, TrustError) as error:
                refused = str(error)
                kept = await asyncio.to_thread(self._remembered)
            else:
                self._told = ""
            await self._take(kept)
            if refused:  # told once it holds
                await self._refused(refused)
        await self._canary()

    def _remembered(self) -> Kept | None:
        try:
            return self._memory.read()
        except TrialError:
            return None  # no memory, no trial

    def _read(self) -> Kept | None:
        try:
            data = self._file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TrialError(f"{self._file.name}: the trial's file can't be read") from error
        plan = opened_plan(data, self._quorum)
        now = self._memory.read()
        if now is not None and now.plan == plan:
            return now
        self._admit(plan)
        return self._memory.change(lambda kept: followed(kept, plan))

    async def _take(self, kept: Kept | None) -> None:
        before, self._kept = self._kept, kept
        if kept is None or not kept.open:
            self._let_go()
        elif self._challenger is None or self._challenger.digest != kept.trial.challenger:
            await self._load(kept)
        at = None if kept is None else (kept.plan.id, kept.trial.step)
        if at != (None if before is None else (before.plan.id, before.trial.step)):
            self._counts.trial_at("" if kept is None else str(kept.trial.step))
        if kept is None or at == (before and (before.plan.id, before.trial.step)):
            return
        if kept.trial.step is TrialStep.ROLLED_BACK:
            self._counts.alarm("trial_rolled_back")
        await self._event(_told(kept))

    async def _load(self, kept: Kept) -> None:
        """Load the challenger beside the champion; a bad one never seats anybody."""
        if kept.trial.challenger == self._bad:
            return
        self._let_go()
        try:
            loaded = await asyncio.to_thread(self._loader, self._bundles / kept.plan.folder)
            if loaded.held.digest != kept.trial.challenger:
                loaded.held.retire()
                raise TrialError(
                    f"{kept.plan.folder}: expected bundle {kept.trial.challenger[:12]}, "
                    f"came {loaded.held.digest[:12]}"
                )
            await self_test(loaded.held, loaded.golden)
        except BundleError as error:
            self._bad = kept.trial.challenger
            await self._refused(str(error))
            return
        self._challenger = loaded.held

    def _let_go(self) -> None:
        if self._challenger is not None:
            self._challenger.retire()
            self._challenger = None

    async def _canary(self) -> None:
        """Let the challenger judge one of its canaries now and then; one that passes ends it."""
        held = self._challenger
        if held is None or not held.canaries or not self._canary_s:
            return
        if time.monotonic() - self._canary_at < self._canary_s:
            return
        self._canary_at = time.monotonic()
        text = held.canaries[self._canaries % len(held.canaries)]
        self._canaries += 1
        try:
            caught = await blocks(held, Probe(text, _PLAIN, blocked=True))
        except SafeholdError:
            caught = False
        if not caught:
            await self._end("its canary passed")

    # -- changes -----------------------------------------------------------------------------

    async def _end(self, reason: str) -> None:
        kept = self._kept
        if kept is not None and kept.open:
            await self._changed(
                lambda now: Kept(now.plan, now.trial.ended(reason), now.alarms), of=kept.plan.id
            )

    async def _changed(self, change: Callable[[Kept], Kept], *, of: str) -> None:
        def same(now: Kept | None) -> Kept:
            if now is None:
                raise TrialError("the memory of the trial is lost")
            return change(now) if now.plan.id == of and now.open else now

        async with self._busy:
            try:
                await self._take(await asyncio.to_thread(self._memory.change, same))
            except TrialError as error:
                await self._take(None)
                await self._refused(str(error))

    async def _refused(self, reason: str) -> None:
        if reason == self._told:
            return
        self._told = reason
        self._counts.alarm("trial_refused")
        await self._event({"alarm": "trial-refused", "reason": reason[:200]})

    async def _event(self, detail: Detail, *, decision_id: str | None = None) -> bool:
        kind = EventKind.ALARM if "alarm" in detail else EventKind.TRIAL
        row = EventRow(at=self._clock(), kind=kind, detail=detail, decision_id=decision_id)
        try:
            await self._ledger.append(row)
        except LedgerError:
            self._counts.alarm("ledger")
            return False
        return True


def _told(kept: Kept) -> Detail:
    return {
        "trial": kept.plan.id,
        "step": str(kept.trial.step),
        "serial": kept.plan.serial,
        "plan": kept.plan.digest,
        "champion": kept.trial.champion,
        "challenger": kept.trial.challenger,
        "exchanges": kept.trial.evidence.exchanges,
        "own_alarms": kept.trial.evidence.own_alarms,
        "champions": kept.trial.evidence.champions,
        "reason": kept.trial.reason[:200],
    }
