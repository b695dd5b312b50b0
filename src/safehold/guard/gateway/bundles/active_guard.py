"""The guard in use: exchanged atomically, the one before it kept warm, streams never dropped."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeVar

from safehold.errors import BundleError
from safehold.exchange import Exchange, Lane
from safehold.guard.interface import Block, Heard, ScoringFlow, Step, Verdict
from safehold.guard.overlay.live import HotSource, no_hot_rules
from safehold.guard.session.drivers import StageTwo, no_stage2
from safehold.guard.session.remembered import ScoreMemory
from safehold.guard.session.session import LaneCoverage, SessionPolicy, SessionReport

T = TypeVar("T")


class Session(Protocol):
    """The guard around one exchange, as the gateway uses it (`stream.GuardSession`)."""

    @property
    def would_block(self) -> Block | None:
        """What the policy would have stopped, were it not only noted."""
        ...

    @property
    def delivers_whole(self) -> bool:
        """Whether nothing leaves before all of the reply was judged; known once the prompt is."""
        ...

    def judge_prompt(self) -> ScoringFlow[Verdict]:
        """Score the prompt."""
        ...

    def feed(self, lane: Lane, text: str, heard: Heard | None = None) -> ScoringFlow[Step]:
        """Take the next characters of a lane, and what a probe heard while they were written."""
        ...

    def close(self, lane: Lane) -> ScoringFlow[Step]:
        """Score and release the tail of one lane."""
        ...

    def finish(self) -> ScoringFlow[tuple[tuple[Lane, Step], ...]]:
        """Score and release every tail."""
        ...

    @property
    def coverage(self) -> LaneCoverage:
        """Characters received, scored and released."""
        ...

    def report(self) -> SessionReport:
        """Scores, escalations and bypasses."""
        ...


class AnyGuard(Protocol):
    """Makes sessions (`stream.Guard`)."""

    @property
    def digest(self) -> str:
        """The digest of the bundle."""
        ...

    def session(
        self,
        exchange: Exchange,
        policy: SessionPolicy,
        exempt: Callable[[str], bool] | None = None,
        hot: HotSource = no_hot_rules,
        memory: ScoreMemory | None = None,
        account: str = "",
    ) -> Session:
        """Start guarding one exchange; `memory` holds what an account's earlier turns scored."""
        ...


class Held:
    """A loaded guard with its stage 2, and how many exchanges use it."""

    def __init__(
        self,
        guard: AnyGuard,
        stage2: StageTwo = no_stage2,
        *,
        name: str = "",
        canaries: tuple[str, ...] = (),
        close: Callable[[], None] | None = None,
        asks: Mapping[str, str] | None = None,
    ) -> None:
        """Take the guard and its stage 2; `asks` are headers that its probe wants upstream."""
        self.guard = guard
        self.asks = dict(asks or {})
        self.stage2 = stage2
        self.name = name
        self.canaries = canaries
        self.uses = 0
        self._close = close
        self._retired = False

    @property
    def digest(self) -> str:
        """The bundle's digest."""
        return self.guard.digest

    def retire(self) -> None:
        """Let go of the scorers once the last exchange has ended."""
        self._retired = True
        self._maybe_close()

    def release(self) -> None:
        """End one use."""
        self.uses -= 1
        self._maybe_close()

    def _maybe_close(self) -> None:
        if self._retired and self.uses == 0 and self._close is not None:
            close, self._close = self._close, None
            close()


class GuardHolder:
    """Which guard new exchanges get."""

    def __init__(self, first: Held) -> None:
        self._current = first
        self._previous: Held | None = None

    @property
    def current(self) -> Held:
        """The guard that new exchanges get."""
        return self._current

    @property
    def previous(self) -> Held | None:
        """The guard before it, still loaded."""
        return self._previous

    @contextlib.contextmanager
    def use(self) -> Iterator[Held]:
        """Hold the current guard for one exchange, whatever is swapped meanwhile."""
        held = self._current
        held.uses += 1
        try:
            yield held
        finally:
            held.release()

    def swap(self, fresh: Held) -> None:
        """Give new exchanges `fresh`; running ones keep what they began with."""
        if self._previous is not None and self._previous is not fresh:
            self._previous.retire()
        self._previous, self._current = self._current, fresh

    def roll_back(self) -> Held:
        """Give new exchanges the guard before this one; nothing is loaded, so it is immediate.

        Raises:
            BundleError: There was no other guard.
        """
        if self._previous is None:
            raise BundleError("nothing to roll back to: no other bundle was loaded")
        self._previous, self._current = self._current, self._previous
        return self._current
