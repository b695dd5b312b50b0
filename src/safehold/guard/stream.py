"""One guarded exchange: the prompt's verdict, then text in, cleared text out, lane by lane.

The session is a computation without I/O. Its methods are flows: they yield an `Escalation` when
they need a stage-2 score and are sent the answer. No character is released before it was scored,
on any lane, the tail included; text in escalated stretches also waits for stage 2.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from safehold.exchange import Channel, Exchange, Lane
from safehold.guard.cascade import Cascade, Thresholds, probability
from safehold.guard.escapes import Unescaping
from safehold.guard.flow import guarded
from safehold.guard.interface import (
    Allow,
    Block,
    Cleared,
    Escalation,
    Failed,
    FailMode,
    Flow,
    Mode,
    Stage,
    Step,
    Verdict,
)
from safehold.guard.scorers.interface import LaneScore
from safehold.guard.scorers.rules import RuleHit, RuleSet, RuleStream
from safehold.guard.scorers.tokens import TokenStream, tokens
from safehold.guard.segments import READ, last_answer, pieces, reading, segments

_BITE = 256
"""Characters of a delta that are scored at once, so that a huge delta is released in steps."""
_CANDIDATES = 3
"""Texts of a prompt that may be shown to stage 2: the hottest ones."""


class SessionPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one session delivers and what a broken scorer means, stage by stage.

    Rules have no fail mode: a regular expression (RE2) that was compiled can't fail.
    """

    mode: Mode = Mode.HOLD
    hold_tokens: int = 16
    fail_mode_stage1: FailMode = FailMode.BLOCK
    fail_mode_stage2: FailMode = FailMode.BLOCK


class Coverage(msgspec.Struct, frozen=True):
    """Characters of reply text fed, scored and released; released never exceeds scored."""

    received: int
    scored: int
    released: int


class Report(msgspec.Struct, frozen=True):
    """What the operator's row says about a session: scores in [0, 1], counts, failures."""

    prompt_score: float
    reply_score: float
    escalations: int
    bypasses: tuple[str, ...]
    coverage: Coverage


class GrowingViews(Protocol):
    """Decodes what becomes decodable in a growing text."""

    @property
    def pending(self) -> int:
        """Characters at the end that were not looked at yet."""
        ...

    def feed(self, text: str) -> Iterable[str]:
        """Return decoded texts that the new text made readable."""
        ...

    def finish(self) -> Iterable[str]:
        """Return decoded texts that only the end makes readable."""
        ...


class Decoder(Protocol):
    """Gives the texts that a text means beside itself."""

    def views(self, text: str) -> Sequence[str]:
        """Return the text and its decoded views."""
        ...

    def growing(self) -> GrowingViews:
        """Start decoding a lane of a reply."""
        ...


class GuardSession:
    """The guard around one exchange."""

    def __init__(
        self,
        cascade: Cascade,
        exchange: Exchange,
        policy: SessionPolicy,
        decoder: Decoder,
        exempt: Callable[[str], bool] | None = None,
    ) -> None:
        """Take the cascade, the prompt with its history, and how to deliver.

        `exempt` says whether a grant delivers what a clause would stop; scoring goes on the same.
        """
        self._cascade = cascade
        self._exchange = exchange
        self._policy = policy
        self._decoder = decoder
        self._exempt = exempt or _nobody
        self._lanes: dict[Lane, _LaneState] = {}
        self._prompt_logit = -math.inf
        self._prompt_stage1 = -math.inf
        self._reading = reading(exchange)
        self._before = last_answer(exchange)
        self._escalations = 0
        self._bypasses: list[str] = []
        self._blocked: Block | None = None
        self.would_block: Block | None = None

    # --- the prompt -----------------------------------------------------------------------------

    def judge_prompt(self) -> Flow[Verdict]:
        """Score every segment and view of the prompt; the verdict is final for the prompt."""
        cascade, surface = self._cascade, self._cascade.prompt
        found: list[tuple[float, str]] = []
        for segment in segments(self._exchange):
            for view in self._decoder.views(segment.text):
                hit = _search(cascade.rules, view)
                if hit is not None:
                    return _rule_block(hit, None)
                for piece in pieces(view):
                    logit = self._stage1_prompt(piece)
                    if isinstance(logit, Block):
                        return logit
                    found.append((logit, piece))
        if cascade.stage1 is None or not found:
            return Allow(score=0.0)
        found.sort(key=lambda pair: -pair[0])
        self._prompt_stage1 = found[0][0]
        return (yield from self._decide_prompt(surface, found))

    def _stage1_prompt(self, text: str) -> float | Block:
        if self._cascade.stage1 is None:
            return -math.inf
        lane = self._cascade.stage1.open_prompt()
        logit = guarded(lane.feed, tokens(text))
        return self._finite(logit, Stage.STAGE1, None, empty_ok=True)

    def _decide_prompt(self, surface: Thresholds, found: list[tuple[float, str]]) -> Flow[Verdict]:
        cascade = self._cascade
        if not cascade.has_stage2:
            self._prompt_logit = found[0][0]
            if found[0][0] >= surface.alone:
                return _block("", found[0][0], surface.alone, Stage.STAGE1, None)
            return Allow(score=probability(found[0][0], surface.alone))
        hot = [pair for pair in dict.fromkeys(found) if pair[0] >= surface.escalate]
        for stage1, text in hot[:_CANDIDATES]:
            self._escalations += 1
            answer = yield Escalation(prompt=text, reply="")
            if isinstance(answer, Failed):
                failed = self._failed(answer, Stage.STAGE2, None)
                if failed is not None:
                    return failed
                continue
            final = cascade.ensemble(surface, stage1, answer.logit)
            checked = self._finite(final, Stage.STAGE2, None)
            if isinstance(checked, Block):
                return checked
            self._prompt_logit = max(self._prompt_logit, final)
            if final >= surface.block:
                return _block(answer.clause, final, surface.block, Stage.STAGE2, None)
        return Allow(score=self._score(self._prompt_logit, surface))

    # --- the reply ------------------------------------------------------------------------------

    def feed(self, lane: Lane, text: str) -> Flow[Step]:
        """Take the next characters of a lane; return what may leave, or the block."""
        if self._blocked is not None:
            return self._blocked
        state = self._lanes.get(lane)
        if state is None:
            state = self._lanes[lane] = self._open(lane)
        state.received += len(text)
        released: list[str] = []
        for start in range(0, len(text), _BITE):
            bite = text[start : start + _BITE]
            state.waiting += bite
            words, chars = state.cutter.feed(bite)
            block = yield from self._advance(state, bite, words, chars, last=False)
            if block is None and state.meant is not None:
                block = yield from self._feed_meant(state.meant, bite)
            if block is not None:
                return block
            released.append(self._release(state, last=False))
        return Cleared(text="".join(released))

    def close(self, lane: Lane) -> Flow[Step]:
        """Score and release the tail of one lane that the upstream declared complete.

        Nothing may be fed to the lane after this. In `full` mode everything waits for `finish`.
        """
        if self._blocked is not None:
            return self._blocked
        state = self._lanes.get(lane)
        if state is None or self._policy.mode is Mode.FULL:
            return Cleared(text="")
        return (yield from self._end(state))

    def finish(self) -> Flow[tuple[tuple[Lane, Step], ...]]:
        """Score and release the tail of every lane; a block ends the list."""
        steps: list[tuple[Lane, Step]] = []
        for lane, state in self._lanes.items():
            if self._blocked is not None:
                break
            step = yield from self._end(state)
            steps.append((lane, step))
        return tuple(steps)

    def _end(self, state: "_LaneState") -> Flow[Step]:
        words, chars = state.cutter.finish()
        block = yield from self._advance(state, "", words, chars, last=True)
        if block is None and state.meant is not None:
            block = yield from self._end_meant(state.meant)
        return Cleared(text=self._release(state, last=True)) if block is None else block

    def _feed_meant(self, meant: "_Meant", bite: str) -> Flow[Block | None]:
        """Score what the wire's characters mean; count which of them that clears."""
        state, text = meant.state, meant.unescaping.feed(bite)
        state.received += len(text)
        state.waiting += text
        words, chars = state.cutter.feed(text)
        block = yield from self._advance(state, text, words, chars, last=False)
        if block is None:
            cleared = self._release(state, last=False)
            meant.cleared += meant.unescaping.spent(len(cleared))
        return block

    def _end_meant(self, meant: "_Meant") -> Flow[Block | None]:
        state, text = meant.state, meant.unescaping.finish()
        state.received += len(text)
        state.waiting += text
        words, chars = state.cutter.feed(text)
        block = yield from self._advance(state, text, words, chars, last=False)
        if block is None:
            words, chars = state.cutter.finish()
            block = yield from self._advance(state, "", words, chars, last=True)
        return block

    def _open(self, lane: Lane) -> "_LaneState":
        state = self._open_text(lane)
        if lane.channel is Channel.TOOL_ARGUMENTS:
            state.meant = _Meant(self._open_text(lane))
        return state

    def _open_text(self, lane: Lane) -> "_LaneState":
        stage1 = self._cascade.stage1
        score = stage1.open_reply() if stage1 is not None else None
        if score is not None and self._before:
            # What the assistant said before counts as context: a split answer adds up.
            guarded(score.feed, tokens(self._before)[-64:])
        rules = RuleStream(self._cascade.rules) if self._cascade.rules is not None else None
        return _LaneState(lane, score, rules, self._decoder.growing())

    def _advance(
        self, state: "_LaneState", fresh: str, words: list[str], chars: int, *, last: bool
    ) -> Flow[Block | None]:
        """Score what became whole; None means that nothing must be stopped."""
        if state.rules is not None and fresh:
            hit = state.rules.feed(fresh)
            if hit is not None and (stop := self._act(_rule_block(hit, state))) is not None:
                return stop
        block: Block | None = None
        if state.score is None:
            state.take(chars, len(words))
        else:
            block = yield from self._score_own(state, words, chars, last=last)
        if block is None:
            block = yield from self._score_views(state, fresh, last=last)
        if block is None:
            return None
        acted = self._act(block)
        if acted is None:
            state.checked()
        return acted

    def _score_own(
        self, state: "_LaneState", words: list[str], chars: int, *, last: bool
    ) -> Flow[Block | None]:
        if words and state.score is not None:
            logit = self._finite(guarded(state.score.feed, words), Stage.STAGE1, state)
            if isinstance(logit, Block):
                return logit
            state.recent = max(state.recent, logit)
            state.best = max(state.best, logit)
        state.take(chars, len(words))
        surface = self._cascade.reply
        if not self._cascade.has_stage2:
            if state.recent >= surface.alone:
                return _block(state.clause(), state.recent, surface.alone, Stage.STAGE1, state)
            state.checked()
            return None
        if state.recent < surface.escalate:
            state.checked()
            return None
        if state.unchecked < self._policy.hold_tokens and not last:
            return None
        block = yield from self._ask(state, state.recent, state.tail)
        state.checked()
        return block

    def _score_views(self, state: "_LaneState", fresh: str, *, last: bool) -> Flow[Block | None]:
        decoded = [*state.views.feed(fresh)] if fresh else []
        if last:
            decoded += state.views.finish()
        surface = self._cascade.reply
        for text in decoded:
            hit = _search(self._cascade.rules, text)
            if hit is not None:
                return _rule_block(hit, state)
            if self._cascade.stage1 is None:
                continue
            words = tokens(text)
            if not words:
                continue
            lane = self._cascade.stage1.open_reply()
            logit = self._finite(guarded(lane.feed, words), Stage.STAGE1, state)
            if isinstance(logit, Block):
                return logit
            if not self._cascade.has_stage2 and logit >= surface.alone:
                return _block(lane.attribution(), logit, surface.alone, Stage.STAGE1, state)
            if self._cascade.has_stage2 and logit >= surface.escalate:
                block = yield from self._ask(state, logit, text[-READ:])
                if block is not None:
                    return block
        return None

    def _ask(self, state: "_LaneState", stage1: float, reply: str) -> Flow[Block | None]:
        """Ask stage 2 about a lane and decide by the ensemble."""
        self._escalations += 1
        surface = self._cascade.reply
        answer = yield Escalation(prompt=self._reading, reply=reply)
        if isinstance(answer, Failed):
            return self._failed(answer, Stage.STAGE2, state)
        final = self._finite(
            self._cascade.ensemble(surface, stage1, answer.logit), Stage.STAGE2, state
        )
        if isinstance(final, Block):
            return final
        state.final = max(state.final, final)
        if final >= surface.block:
            return _block(answer.clause, final, surface.block, Stage.STAGE2, state)
        return None

    def _release(self, state: "_LaneState", *, last: bool) -> str:
        """Take what may leave now out of the lane: all but the last K tokens, whole chunks only."""
        mode = self._policy.mode
        if last:
            hold = 0
        elif mode is Mode.FULL:
            return ""
        else:
            hold = self._policy.hold_tokens if mode is Mode.HOLD else 0
        return state.give(hold, everything=last)

    # --- decisions and failures -----------------------------------------------------------------

    def _act(self, block: Block) -> Block | None:
        """Make a block final, or only note it where the mode or a grant delivers all the same.

        What a broken scorer never saw is not released in any mode: that takes the `bypass`.
        """
        noted = self._policy.mode is Mode.AUDIT or self._exempt(block.clause)
        if noted and block.stage is not Stage.FAIL_MODE:
            self.would_block = self.would_block or block
            return None
        self._blocked = block
        return block

    def _failed(self, failure: Failed, stage: Stage, state: "_LaneState | None") -> Block | None:
        """Apply the fail mode of the stage whose scorer broke."""
        policy = self._policy
        mode = policy.fail_mode_stage1 if stage is Stage.STAGE1 else policy.fail_mode_stage2
        if mode is FailMode.BYPASS:
            self._bypasses.append(f"{stage}: {failure.reason}")
            return None
        return _block("", math.inf, 0.0, Stage.FAIL_MODE, state)

    def _finite(
        self,
        logit: float | Failed,
        stage: Stage,
        state: "_LaneState | None",
        *,
        empty_ok: bool = False,
    ) -> float | Block:
        """Return a usable logit; a failure or nonsense goes to the fail mode."""
        if isinstance(logit, Failed):
            failure = logit
        elif math.isfinite(logit) or (empty_ok and logit == -math.inf):
            return logit
        else:
            failure = Failed(reason="NotFinite")
        block = self._failed(failure, stage, state)
        return -math.inf if block is None else block

    # --- what the operator is told --------------------------------------------------------------

    @property
    def coverage(self) -> Coverage:
        """Characters fed, scored and released over all lanes."""
        lanes = self._lanes.values()
        return Coverage(
            received=sum(state.received for state in lanes),
            scored=sum(state.scored for state in lanes),
            released=sum(state.released for state in lanes),
        )

    def _every_text(self) -> Iterator["_LaneState"]:
        for state in self._lanes.values():
            yield state
            if state.meant is not None:
                yield state.meant.state

    @property
    def stage1_logits(self) -> tuple[float, float]:
        """The highest stage-1 logits of the prompt and of any reply lane so far."""
        replies = (state.best for state in self._every_text())
        return self._prompt_stage1, max(replies, default=-math.inf)

    def report(self) -> Report:
        """Return the scores, escalations and bypasses so far."""
        surface = self._cascade.reply
        has_stage2 = self._cascade.has_stage2
        best = max(
            (state.final if has_stage2 else state.best for state in self._every_text()),
            default=-math.inf,
        )
        return Report(
            prompt_score=self._score(self._prompt_logit, self._cascade.prompt),
            reply_score=self._score(best, surface),
            escalations=self._escalations,
            bypasses=tuple(self._bypasses),
            coverage=self.coverage,
        )

    def _score(self, logit: float, surface: Thresholds) -> float:
        if logit == -math.inf:
            return 0.0
        return probability(logit, surface.block if self._cascade.has_stage2 else surface.alone)


def _nobody(clause: str) -> bool:
    """Exempt nobody."""
    del clause
    return False


def _search(rules: RuleSet | None, text: str) -> RuleHit | None:
    return None if rules is None else rules.search(text)


def _block(
    clause: str, logit: float, threshold: float, stage: Stage, state: "_LaneState | None"
) -> Block:
    return Block(
        clause=clause,
        score=probability(logit, threshold),
        stage=stage,
        lane=None if state is None else state.lane,
        offset=0 if state is None else state.scored,
    )


def _rule_block(hit: RuleHit, state: "_LaneState | None") -> Block:
    return _block(hit.rule.clause, math.inf, 0.0, Stage.RULE, state)


class _LaneState:
    """One lane: its scorers, the text that waits, and how much was scored and released."""

    __slots__ = (
        "_chunks",
        "_held",
        "best",
        "cutter",
        "final",
        "lane",
        "meant",
        "received",
        "recent",
        "released",
        "rules",
        "score",
        "scored",
        "tail",
        "unchecked",
        "views",
        "waiting",
    )

    def __init__(
        self,
        lane: Lane,
        score: LaneScore | None,
        rules: RuleStream | None,
        views: GrowingViews,
    ) -> None:
        self.lane = lane
        self.score = score
        self.rules = rules
        self.views = views
        self.meant: _Meant | None = None
        self.cutter = TokenStream()
        self.waiting = ""
        self.tail = ""
        self.received = self.scored = self.released = 0
        self.recent = self.best = self.final = -math.inf
        self.unchecked = 1 << 30  # the first escalation asks at once
        self._chunks: deque[tuple[int, int]] = deque()
        self._held = 0

    def clause(self) -> str:
        """Name the clause that stage 1 sees."""
        return "" if self.score is None else self.score.attribution()

    def take(self, chars: int, count: int) -> None:
        """Note that the next characters, holding `count` tokens, were scored."""
        if not chars:
            return
        start = self.scored - self.released
        self.tail = (self.tail + self.waiting[start : start + chars])[-READ:]
        self.scored += chars
        self.unchecked += count
        self._chunks.append((chars, count))
        self._held += count

    def checked(self) -> None:
        """Note that everything scored so far was decided."""
        self.recent = -math.inf
        self.unchecked = 0

    def give(self, hold: int, *, everything: bool) -> str:
        """Remove and return the scored text that is followed by at least `hold` scored tokens.

        What the decoder has not looked at yet stays too, and while the lane waits for stage 2
        nothing leaves.
        """
        if self.recent > -math.inf and not everything:
            return ""
        chars = 0
        most = len(self.waiting) - (0 if everything or not hold else self.views.pending)
        if self.meant is not None and not everything:
            most = min(most, self.meant.cleared - self.released)
        while self._chunks and self._held - self._chunks[0][1] >= hold:
            if chars + self._chunks[0][0] > most:
                break
            size, count = self._chunks.popleft()
            chars += size
            self._held -= count
        text, self.waiting = self.waiting[:chars], self.waiting[chars:]
        self.released += chars
        return text


class _Meant:
    """What a lane of JSON means: the unescaped text as a lane of its own beside the wire's."""

    __slots__ = ("cleared", "state", "unescaping")

    def __init__(self, state: _LaneState) -> None:
        self.state = state
        self.unescaping = Unescaping()
        self.cleared = 0


class Guard:
    """A loaded guard: makes sessions. Immutable, shared by all of them."""

    def __init__(self, cascade: Cascade, decoder: Decoder) -> None:
        """Take the cascade and the decoder of obfuscated text."""
        self.cascade = cascade
        self._decoder = decoder

    @property
    def digest(self) -> str:
        """The digest of the bundle that every score of this guard came from."""
        return self.cascade.digest

    def session(
        self,
        exchange: Exchange,
        policy: SessionPolicy,
        exempt: Callable[[str], bool] | None = None,
    ) -> GuardSession:
        """Start guarding one exchange."""
        return GuardSession(self.cascade, exchange, policy, self._decoder, exempt)
