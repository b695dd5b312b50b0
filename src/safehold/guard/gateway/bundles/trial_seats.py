"""Which of two bundles decides one exchange, and what the other one would have said of it.

The other bundle never sees an exchange before its end and holds up nobody: it is played the same
text afterwards. A bundle that breaks on a text counts as one that refuses it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec

from safehold.exchange import Exchange, Lane
from safehold.guard.gateway.bundles.active_guard import Held, Session
from safehold.guard.interface import Block, Heard, ScoringFlow, Step, Verdict
from safehold.guard.session.drivers import run_flow
from safehold.guard.session.session import LaneCoverage, SessionPolicy, SessionReport


class Fed(msgspec.Struct, frozen=True):
    """Text that a session was fed, and what a probe heard of it."""

    lane: Lane
    text: str
    heard: Heard | None


class Played(msgspec.Struct, frozen=True):
    """An exchange that has ended, for the bundle that did not decide it."""

    decision_id: str
    exchange: Exchange
    policy: SessionPolicy
    fed: tuple[Fed, ...]
    exempt: frozenset[str]
    served: str
    blocked: bool
    other: Held

    @property
    def chars(self) -> int:
        """How much text of the reply it holds on to."""
        return sum(len(one.text) for one in self.fed)


class Listening:
    """A session whose reply is remembered for the other bundle."""

    def __init__(self, session: Session) -> None:
        """Take the session that decides."""
        self._session = session
        self.fed: list[Fed] = []

    @property
    def would_block(self) -> Block | None:
        """What the session would have blocked."""
        return self._session.would_block

    @property
    def delivers_whole(self) -> bool:
        """Whether nothing leaves before all of the reply was judged."""
        return self._session.delivers_whole

    def judge_prompt(self) -> ScoringFlow[Verdict]:
        """Score the prompt."""
        return self._session.judge_prompt()

    def feed(self, lane: Lane, text: str, heard: Heard | None = None) -> ScoringFlow[Step]:
        """Take the next characters of a lane."""
        self.fed.append(Fed(lane, text, heard))
        return self._session.feed(lane, text, heard)

    def close(self, lane: Lane) -> ScoringFlow[Step]:
        """Score and release the tail of one lane."""
        return self._session.close(lane)

    def finish(self) -> ScoringFlow[tuple[tuple[Lane, Step], ...]]:
        """Score and release every tail."""
        return self._session.finish()

    @property
    def coverage(self) -> LaneCoverage:
        """Characters received, scored and released."""
        return self._session.coverage

    def report(self) -> SessionReport:
        """Scores, escalations and bypasses."""
        return self._session.report()


class Seat:
    """One exchange's bundle; `other` is the one that is played the exchange afterwards."""

    def __init__(
        self,
        held: Held,
        other: Held | None = None,
        offer: Callable[[Played], None] | None = None,
    ) -> None:
        """Take the deciding bundle, the other one, and who plays it."""
        self.held = held
        self._other = other
        self._offer = offer
        self._heard: Listening | None = None

    def listen(self, session: Session) -> Session:
        """Return the session to use for the exchange."""
        if self._other is None:
            return session
        self._heard = Listening(session)
        return self._heard

    def ended(
        self,
        *,
        decision_id: str,
        exchange: Exchange,
        policy: SessionPolicy,
        exempt: frozenset[str],
        blocked: bool,
    ) -> None:
        """Offer an exchange whose prompt was judged, by nothing but the bundle.

        `exempt` are the clauses that a grant delivers; `blocked` says that something was stopped.
        """
        if self._heard is None or self._other is None or self._offer is None:
            return
        if any(one.acted for one in self._heard.report().hot):
            return  # a hot rule stops the same text under either bundle
        self._offer(
            Played(
                decision_id=decision_id,
                exchange=exchange,
                policy=policy,
                fed=tuple(self._heard.fed),
                exempt=exempt,
                served=self.held.digest,
                blocked=blocked or self._heard.would_block is not None,
                other=self._other,
            )
        )


class Seats(Protocol):
    """Gives each exchange its bundle."""

    @contextmanager
    def seat(self, champion: Held, account: str | None) -> Iterator[Seat]:
        """Hold the bundle that decides an account's exchange; None is never on trial."""
        ...


class NoTrial:
    """Where no trial is configured: the bundle in use decides everything."""

    @contextmanager
    def seat(self, champion: Held, account: str | None) -> Iterator[Seat]:
        """Hold the bundle in use."""
        del account
        yield Seat(champion)


async def play(played: Played) -> bool:
    """Say whether the other bundle would have stopped the exchange, at its prompt or later.

    Raises:
        SafeholdError: It broke in a way that no fail mode answers.
    """
    guard, stage2 = played.other.guard, played.other.stage2
    session = guard.session(played.exchange, played.policy, played.exempt.__contains__)
    verdict = await run_flow(session.judge_prompt(), stage2, offload=True)
    if isinstance(verdict, Block):
        return True
    for one in _joined(played.fed):
        step = await run_flow(session.feed(one.lane, one.text, one.heard), stage2, offload=True)
        if isinstance(step, Block):
            return True
    ends = await run_flow(session.finish(), stage2, offload=True)
    return any(isinstance(step, Block) for _, step in ends) or session.would_block is not None


def _joined(fed: tuple[Fed, ...]) -> Iterator[Fed]:
    """Join what one lane was fed without a pause: a session judges text, not deltas."""
    run: list[Fed] = []
    for one in fed:
        if run and (one.lane != run[0].lane or (one.heard is None) is not (run[0].heard is None)):
            yield _together(run)
            run = []
        run.append(one)
    if run:
        yield _together(run)


def _together(run: list[Fed]) -> Fed:
    heard = None
    if run[0].heard is not None:
        heard = tuple(logit for one in run for logit in one.heard or ())
    return Fed(run[0].lane, "".join(one.text for one in run), heard)
