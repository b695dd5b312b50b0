"""Several classes around one exchange: each judges for itself, and what leaves all have cleared.

The first class is the gateway's own bundle. With every other class in shadow its session is given
exactly what it would be given alone, and what it says is passed on unchanged. A class that acts
holds text back too: only what every acting class has cleared is released.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from safehold.exchange import Lane
from safehold.guard.gateway.bundles.active_guard import Session
from safehold.guard.interface import (
    Block,
    Cleared,
    Escalation,
    Failed,
    Heard,
    LaneCoverage,
    Scored,
    ScoringFlow,
    SessionReport,
    Step,
    Verdict,
)
from safehold.guard.session.drivers import sheltered
from safehold.guard.session.steps import Steps

T = TypeVar("T")
_NOTHING = SessionReport(0.0, 0.0, 0, (), LaneCoverage(0, 0, 0))
"""What a class that broke reports."""


class Companion:
    """A class beside the first one, in one exchange."""

    def __init__(self, name: str, digest: str, session: Session, *, acts: bool) -> None:
        """Take its name, its bundle's digest, its session, and whether its blocks count."""
        self.name = name
        self.digest = digest
        self.session = session
        self.acts = acts
        self.prompt: Verdict | None = None
        self.block: Block | None = None
        """What it stopped, or would have."""
        self.failed = ""
        """The name of what broke it, where it only watches."""

    def named(self, block: Block) -> Block:
        """Return a block that names the class."""
        return msgspec.structs.replace(block, guard_class=self.name)


class CompanionResult(msgspec.Struct, frozen=True):
    """What a class said of one exchange, for its row."""

    name: str
    digest: str
    acts: bool
    prompt: Verdict | None
    block: Block | None
    failed: str
    report: SessionReport

    @property
    def verdict(self) -> str:
        """Return `unscored`, `block` or `allow`, in shadow what it would have been."""
        if self.block is not None:
            return "block"
        return "unscored" if self.failed or self.prompt is None else "allow"


class _WaitingLane:
    """Text of one lane that waits for all acting classes."""

    def __init__(self, classes: int) -> None:
        self._steps = Steps()
        self._behind = 0
        self._text = ""
        self.cleared = [0] * classes

    def cut(self, text: str) -> Iterator[str]:
        """Take new text; yield it in pieces that end where steps end."""
        self._text += text
        at = 0
        for step in self._steps.feed(text):
            end = at + len(step) - self._behind
            self._behind = 0
            if end > at:
                yield text[at:end]
            at = end
        if at < len(text):
            self._behind += len(text) - at
            yield text[at:]

    def whole(self, text: str) -> Iterator[str]:
        """Take new text; yield it as it came."""
        self._text += text
        yield text

    def release(self) -> str:
        """Take out what all of them have cleared."""
        chars = min(self.cleared)
        given, self._text = self._text[:chars], self._text[chars:]
        self.cleared = [one - chars for one in self.cleared]
        return given


class JoinedSession:
    """The classes around one exchange, as the gateway uses a session."""

    def __init__(self, first: Session, companions: Sequence[Companion]) -> None:
        """Take the first class's session and the others."""
        self._first = first
        self._shadows = [one for one in companions if not one.acts]
        self._acting = [one for one in companions if one.acts]
        self._companions = tuple(companions)
        self._lanes: dict[Lane, _WaitingLane] = {}
        self._blocked: Block | None = None
        self._untold: tuple[Lane, Block] | None = None
        self.prompt_blocks: tuple[Block, ...] = ()
        """What the first class and the acting ones found in the prompt."""

    # -- the prompt ----------------------------------------------------------------------------

    def judge_prompt(self) -> ScoringFlow[Verdict]:
        """Have every class score the prompt; the first class's block is told before others'."""
        verdict = yield from self._first.judge_prompt()
        found = [verdict] if isinstance(verdict, Block) else []
        for one in self._acting:
            one.prompt = yield from _asked(one.session.judge_prompt, one.name)
            if isinstance(one.prompt, Block):
                one.block = one.named(one.prompt)
                found.append(one.block)
        for one in self._shadows:
            judged = yield from sheltered(_asked(one.session.judge_prompt, one.name))
            if isinstance(judged, Failed):
                one.failed = judged.reason
                continue
            one.prompt = judged
            if isinstance(judged, Block):
                one.block = one.named(judged)
        self.prompt_blocks = tuple(found)
        return found[0] if found else verdict

    # -- the reply -----------------------------------------------------------------------------

    def feed(self, lane: Lane, text: str, heard: Heard | None = None) -> ScoringFlow[Step]:
        """Take the next characters of a lane; return what may leave, or the block."""
        if not self._acting:
            step = yield from self._first.feed(lane, text, heard)
            yield from self._overhear(lane, text)
            return step
        if self._blocked is not None:
            self._untold = None
            return self._blocked
        state = self._lanes.get(lane)
        if state is None:
            state = self._lanes[lane] = _WaitingLane(1 + len(self._acting))
        # What a probe heard belongs to the whole of the text, which is not cut then.
        for piece in state.cut(text) if heard is None else state.whole(text):
            steps = [self._first.feed(lane, piece, heard)]
            steps += [
                _asked(partial(one.session.feed, lane, piece), one.name) for one in self._acting
            ]
            yield from self._together(state, steps)
            if self._blocked is not None:
                break
        if self._blocked is None:
            yield from self._overhear(lane, text)
        return self._told(lane, state.release())

    def close(self, lane: Lane) -> ScoringFlow[Step]:
        """Score and release the tail of one lane."""
        if not self._acting:
            step = yield from self._first.close(lane)
            yield from self._watch(lambda one: one.session.close(lane))
            return step
        if self._blocked is not None:
            self._untold = None
            return self._blocked
        state = self._lanes.get(lane)
        if state is None:
            return Cleared(text="")
        steps = [self._first.close(lane)]
        steps += [_asked(partial(one.session.close, lane), one.name) for one in self._acting]
        yield from self._together(state, steps)
        if self._blocked is None:
            yield from self._watch(lambda one: one.session.close(lane))
        return self._told(lane, state.release())

    def finish(self) -> ScoringFlow[tuple[tuple[Lane, Step], ...]]:
        """Score and release every tail; a block ends the list."""
        if not self._acting:
            ends = yield from self._first.finish()
            yield from self._watch_finish()
            return ends
        untold, self._untold = self._untold, None
        if untold is not None:
            return (untold,)
        if self._blocked is not None:
            return ()
        stop: tuple[Lane, Block] | None = None
        flows: list[tuple[Companion | None, ScoringFlow[tuple[tuple[Lane, Step], ...]]]] = [
            (None, self._first.finish()),
            *((one, _asked(one.session.finish, one.name)) for one in self._acting),
        ]
        for number, (one, flow) in enumerate(flows):
            for lane, step in (yield from flow):
                if isinstance(step, Block):
                    stop = lane, self._stopped(one, step)
                    break
                self._lanes[lane].cleared[number] += len(step.text)
            if stop is not None:
                break
        else:
            yield from self._watch_finish()
        found: list[tuple[Lane, Step]] = []
        for lane, state in self._lanes.items():
            found.append((lane, Cleared(text=state.release())))
        return (*found, stop) if stop is not None else tuple(found)

    def _together(
        self, state: _WaitingLane, flows: Sequence[ScoringFlow[Step]]
    ) -> ScoringFlow[None]:
        """Let every acting class judge one piece; the first that stops it is told."""
        for number, (one, flow) in enumerate(zip((None, *self._acting), flows, strict=True)):
            step = yield from flow
            if isinstance(step, Block):
                self._stopped(one, step)
                return
            state.cleared[number] += len(step.text)

    def _stopped(self, one: Companion | None, block: Block) -> Block:
        self._blocked = block if one is None else one.named(block)
        if one is not None:
            one.block = self._blocked
        return self._blocked

    def _told(self, lane: Lane, text: str) -> Step:
        if self._blocked is None:
            return Cleared(text=text)
        if not text:
            return self._blocked
        self._untold = lane, self._blocked
        return Cleared(text=text)

    # -- those that only watch -----------------------------------------------------------------

    def _overhear(self, lane: Lane, text: str) -> ScoringFlow[None]:
        yield from self._watch(lambda one: one.session.feed(lane, text))

    def _watch(self, step: "Callable[[Companion], ScoringFlow[Step]]") -> ScoringFlow[None]:
        for one in self._shadows:
            if not one.failed:
                self._note(one, (yield from sheltered(_asked(partial(step, one), one.name))))

    def _watch_finish(self) -> ScoringFlow[None]:
        for one in self._shadows:
            if one.failed:
                continue
            ends = yield from sheltered(_asked(one.session.finish, one.name))
            for step in (ends,) if isinstance(ends, Failed) else (step for _, step in ends):
                self._note(one, step)

    def _note(self, one: Companion, step: Step | Failed) -> None:
        if isinstance(step, Failed):
            one.failed = step.reason
        elif isinstance(step, Block):
            one.block = one.block or one.named(step)

    # -- what is told at the end ---------------------------------------------------------------

    @property
    def stopped_by(self) -> str | None:
        """The acting class beside the first that ended the exchange, if one did."""
        return None if self._blocked is None else self._blocked.guard_class

    @property
    def delivers_whole(self) -> bool:
        """Whether the first class or an acting one holds the reply until its end."""
        return self._first.delivers_whole or any(one.session.delivers_whole for one in self._acting)

    @property
    def would_block(self) -> Block | None:
        """What the first class or an acting one would have stopped, were it not only noted."""
        if self._first.would_block is not None:
            return self._first.would_block
        noted = ((one, one.session.would_block) for one in self._acting)
        return next((one.named(block) for one, block in noted if block is not None), None)

    @property
    def coverage(self) -> LaneCoverage:
        """Characters fed to, scored by and released by the first class."""
        return self._first.coverage

    def report(self) -> SessionReport:
        """Return what the first class reports; the others have rows of their own."""
        return self._first.report()

    def results(self) -> tuple[CompanionResult, ...]:
        """Return what each other class said of the exchange."""
        return tuple(
            CompanionResult(
                name=one.name,
                digest=one.digest,
                acts=one.acts,
                prompt=one.prompt,
                block=one.block if one.failed else one.block or _noted(one),
                failed=one.failed,
                report=_NOTHING if one.failed else one.session.report(),
            )
            for one in self._companions
        )


def _noted(one: Companion) -> Block | None:
    block = one.session.would_block
    return None if block is None else one.named(block)


def _asked(begin: Callable[[], ScoringFlow[T]], name: str) -> ScoringFlow[T]:
    """Begin and run a class's flow, its escalations addressed to its own stage 2."""
    flow = begin()
    try:
        request = next(flow)
        while True:
            answer: Scored | Failed = yield _to(request, name)
            request = flow.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _to(request: Escalation, name: str) -> Escalation:
    return msgspec.structs.replace(request, guard_class=name)
