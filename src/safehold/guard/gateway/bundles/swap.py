"""Hot swap of bundles: load, self-test on the golden set, swap atomically, drain, roll back.

A bundle that does not load, verify or pass its own golden set never takes over. Several workers
follow one small file that names the bundle in use.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from safehold.errors import BundleError, LedgerError
from safehold.exchange import Lane, user_says
from safehold.guard.gateway.bundles.active_guard import GuardHolder, Held
from safehold.guard.interface import Block, Heard
from safehold.guard.ledger.interface import EventKind, EventRow, RowSink
from safehold.guard.session.drivers import run_flow
from safehold.guard.session.session import SessionPolicy

_FOLLOW_S = 0.25


class Probe(msgspec.Struct, frozen=True):
    """One exchange of a golden set and whether a sound guard blocks it.

    `heard` is what the bundle's probe heard while the served model read the reply.
    """

    prompt: str
    reply: str
    blocked: bool
    heard: Heard | None = None


class LoadedBundle(msgspec.Struct, frozen=True):
    """A loaded bundle and the exchanges it must judge rightly before it may serve."""

    held: Held
    golden: tuple[Probe, ...]


class Loader(Protocol):
    """Loads and verifies a bundle (called in a thread)."""

    def __call__(self, path: Path) -> LoadedBundle:
        """Return the loaded bundle.

        Raises:
            BundleError: It does not verify.
        """
        ...


async def blocks(held: Held, probe: Probe) -> bool:
    """Say whether a guard stops a golden exchange, at its prompt or within its reply."""
    session = held.guard.session(user_says(probe.prompt), SessionPolicy())
    if isinstance(await run_flow(session.judge_prompt(), held.stage2, offload=True), Block):
        return True
    lane = Lane()
    fed = session.feed(lane, probe.reply, probe.heard)
    if isinstance(await run_flow(fed, held.stage2), Block):
        return True
    ends = await run_flow(session.finish(), held.stage2)
    return any(isinstance(step, Block) for _, step in ends)


async def self_test(held: Held, golden: Sequence[Probe]) -> None:
    """Judge the golden set; this also warms the scorers.

    Raises:
        BundleError: There is none, or an exchange is judged otherwise than recorded.
    """
    if not golden:
        raise BundleError("self-test: the bundle has no golden set")
    wrong = [probe for probe in golden if await blocks(held, probe) is not probe.blocked]
    if wrong:
        raise BundleError(f"self-test: {len(wrong)} of {len(golden)} golden exchanges judged wrong")


class Swapper:
    """Exchanges the bundle in use of one worker, and tells the other workers."""

    def __init__(
        self,
        *,
        holder: GuardHolder,
        loader: Loader,
        ledger: RowSink,
        alarm: Callable[[str], None],
        count: Callable[[str], None],
        clock: Callable[[], float],
        state: Path | None = None,
        admit: Callable[[Held], None] = lambda _: None,
    ) -> None:
        """Take what it exchanges; `admit` raises BundleError for a guard that may not serve.

        `alarm` hears of what a person must look at, by kind, `count` of each swap's result.
        """
        self._holder = holder
        self._loader = loader
        self._ledger = ledger
        self._alarm = alarm
        self._count = count
        self._clock = clock
        self._state = state
        self._admit = admit
        self._seen: str | None = None
        self._busy = asyncio.Lock()
        self._elsewhere: str | None = None

    def name(self, path: Path) -> None:
        """Say which bundle another host put to use; `follow` swaps to it."""
        self._elsewhere = str(path)

    async def swap(self, path: Path, *, tell: bool = True) -> Held:
        """Load, test and put to use the bundle at `path`; the one in use serves meanwhile.

        Raises:
            BundleError: It is bad; nothing changed.
        """
        async with self._busy:
            try:
                loaded = await asyncio.to_thread(self._loader, path)
                await self_test(loaded.held, loaded.golden)
            except BundleError as error:
                self._count("refused")
                self._alarm("bundle_refused")
                await self._event(
                    EventKind.BUNDLE_REFUSED, {"bundle": path.name, "reason": str(error)[:200]}
                )
                raise
            await self._use(loaded.held, "swapped")
            if tell:
                self._tell(path)
            return loaded.held

    async def roll_back(self, *, tell: bool = True) -> Held:
        """Put the bundle before this one back to use; it is still loaded.

        Raises:
            BundleError: There is none, or it is not released any more.
        """
        async with self._busy:
            before = self._holder.current.digest
            if self._holder.previous is not None:
                await asyncio.to_thread(self._admit, self._holder.previous)
            held = self._holder.roll_back()
            self._count("rolled_back")
            if tell and held.name:
                self._tell(Path(held.name))
            await self._event(
                EventKind.BUNDLE_SWAP, {"from": before, "to": held.digest, "how": "rollback"}
            )
            return held

    async def _use(self, held: Held, how: str) -> None:
        before = self._holder.current.digest
        self._holder.swap(held)
        self._count(how)
        await self._event(EventKind.BUNDLE_SWAP, {"from": before, "to": held.digest, "how": how})

    async def _event(
        self, kind: EventKind, detail: dict[str, str | int | float | bool | None]
    ) -> None:
        try:
            await self._ledger.append(EventRow(at=self._clock(), kind=kind, detail=detail))
        except LedgerError:
            self._alarm("ledger")

    def _tell(self, path: Path) -> None:
        """Name the bundle in use for the other workers, atomically."""
        self._seen = str(path)
        if self._state is None:
            return
        fresh = self._state.with_suffix(f".{os.getpid()}")
        fresh.write_text(str(path), encoding="utf-8")
        fresh.replace(self._state)

    async def follow(self) -> None:
        """Swap whenever another worker names another bundle; a bad one is refused each time."""
        while True:
            await asyncio.sleep(_FOLLOW_S)
            elsewhere, self._elsewhere = self._elsewhere, None
            named = elsewhere or self._named()
            if named is None or named in (self._seen, self._holder.current.name):
                continue
            self._seen = named
            try:
                previous = self._holder.previous
                if previous is not None and previous.name == named:
                    await self.roll_back(tell=False)
                else:
                    await self.swap(Path(named), tell=False)
            except BundleError:
                continue

    def _named(self) -> str | None:
        try:
            return self._state.read_text(encoding="utf-8").strip() if self._state else None
        except (OSError, UnicodeDecodeError):
            return None
