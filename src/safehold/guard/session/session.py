"""One guarded exchange: the prompt's verdict, then text in, cleared text out, lane by lane.

The session is a computation without I/O. Its methods are flows: they yield an `Escalation` when
they need a stage-2 score and are sent the answer. No character is released before it was scored,
on any lane, the tail included; text in escalated stretches also waits for stage 2.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from safehold.exchange import Channel, Exchange, Lane
from safehold.guard.interface import (
    Block,
    Cleared,
    DeliveryMode,
    Escalation,
    Failed,
    Heard,
    LaneCoverage,
    ScoringFlow,
    SessionPolicy,
    SessionReport,
    Stage,
    Step,
    Verdict,
)
from safehold.guard.overlay.live import HotSearch, HotSource, no_hot_rules
from safehold.guard.scorers.rules import RuleHit
from safehold.guard.scorers.tokens import tokens
from safehold.guard.session.cascade import Cascade, TextKind
from safehold.guard.session.coded import whole_windows
from safehold.guard.session.decisions import Failures, block_at, rule_block
from safehold.guard.session.drivers import guarded
from safehold.guard.session.lanes import GrowingViews, LaneState, ProbeState
from safehold.guard.session.prompts import PromptJudge
from safehold.guard.session.remembered import AccountMemory, ScoreMemory
from safehold.guard.session.segments import READ, answered, joined_answer, reading
from safehold.guard.session.written import WrittenRules

__all__ = [
    "GrowingViews",
    "Guard",
    "GuardSession",
    "LaneCoverage",
    "SessionPolicy",
    "SessionReport",
    "TextDecoder",
]


class TextDecoder(Protocol):
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
        decoder: TextDecoder,
        exempt: Callable[[str], bool] | None = None,
        hot: HotSource = no_hot_rules,
        memory: AccountMemory | None = None,
    ) -> None:
        """Take the cascade, the prompt with its history, and how to deliver.

        `exempt` says whether a grant delivers what a clause would stop; scoring goes on the same.
        `hot` gives the hot rules in force at each step, `memory` what earlier turns scored.
        """
        self._cascade = cascade
        self._exchange = exchange
        self._policy = policy
        self._decoder = decoder
        self._exempt = exempt or _nobody
        self._lanes: dict[Lane, LaneState] = {}
        self._reading = reading(exchange)
        self._before = answered(exchange)
        self._escalations = 0
        self._failures = Failures(policy)
        self._written = WrittenRules(cascade.rules, HotSearch(hot))
        self._prompt = PromptJudge(
            cascade,
            decoder.views,
            self._failures,
            self._written,
            memory,
            reads_request=policy.reads_request,
        )
        self._blocked: Block | None = None
        self._untold: tuple[Lane, Block] | None = None
        self._excused = False
        self._rules_alone = (
            cascade.stage1 is None
            and cascade.probe is None
            and not cascade.has_stage2
            and policy.mode is not DeliveryMode.FULL
        )
        self.would_block: Block | None = None

    @property
    def delivers_whole(self) -> bool:
        """Whether nothing of the reply leaves before all of it was judged.

        So in `full` mode, and in `hold` mode once the prompt asked for an answer in a code.
        """
        mode = self._policy.mode
        return mode is DeliveryMode.FULL or (mode is DeliveryMode.HOLD and self._prompt.coded)

    # --- the prompt -----------------------------------------------------------------------------

    def judge_prompt(self) -> ScoringFlow[Verdict]:
        """Score every segment and view of the prompt; the verdict is final for the prompt."""
        return self._prompt.judge(self._exchange)

    # --- the reply ------------------------------------------------------------------------------

    def feed(self, lane: Lane, text: str, heard: Heard | None = None) -> ScoringFlow[Step]:
        """Take the next characters of a lane; return what may leave, or the block.

        `heard` are the probe's logits of the tokens that made the text, for a cascade with one.
        Where some of the text was cleared before the place that blocks, that text is returned and
        the next call tells of the block: what leaves does not depend on the deltas.
        """
        if self._blocked is not None:
            self._untold = None
            return self._blocked
        state = self._lanes.get(lane)
        if state is None:
            state = self._lanes[lane] = self._open(lane)
        steps = state.arrive(text)
        if state.probe is not None and (text or heard):
            block = self._listen(state, state.probe, heard)
            if block is not None:
                return block
        if self._rules_alone and steps and not self._prompt.coded:
            whole = steps[0] if len(steps) == 1 else "".join(steps)
            if state.is_quiet(steps, whole):
                return Cleared(text=state.pass_quiet(steps, whole, self._hold(state)))
        released: list[str] = []
        for step in steps:
            block = yield from self._step(state, step)
            if block is not None:
                cleared = "".join(released)
                if cleared:
                    self._untold = (lane, block)
                return Cleared(text=cleared) if cleared else block
            released.append(self._release(state, last=False))
        return Cleared(text="".join(released))

    def close(self, lane: Lane) -> ScoringFlow[Step]:
        """Score and release the tail of one lane that the upstream declared complete.

        Nothing may be fed to the lane after this. What is delivered whole waits for `finish`.
        """
        if self._blocked is not None:
            self._untold = None
            return self._blocked
        state = self._lanes.get(lane)
        if state is None or self.delivers_whole:
            return Cleared(text="")
        stop = yield from self._end(state)
        return stop or Cleared(text=self._release(state, last=True))

    def finish(self) -> ScoringFlow[tuple[tuple[Lane, Step], ...]]:
        """Score and release the tail of every lane; a block ends the list."""
        steps: list[tuple[Lane, Step]] = []
        if self._untold is not None:
            steps.append(self._untold)
            self._untold = None
        if self._prompt.coded and self._blocked is None:
            for lane, state in self._lanes.items():
                stop = (yield from self._end(state)) or (yield from self._judge_whole(state))
                if stop is not None:
                    return (*steps, (lane, stop))
        for lane, state in self._lanes.items():
            if self._blocked is not None:
                break
            stop = None if self._prompt.coded else (yield from self._end(state))
            steps.append((lane, stop or Cleared(text=self._release(state, last=True))))
        return tuple(steps)

    def _judge_whole(self, state: LaneState) -> ScoringFlow[Block | None]:
        """Show stage 2 every view of all that a lane said, whatever stage 1 says of it."""
        stage1 = self._cascade.stage1
        if stage1 is None or not self._cascade.has_stage2:
            return None
        for said in (state.said, "" if state.meaning is None else state.meaning.said):
            for view in self._decoder.views(said) if said.strip() else ():
                for window, heard in whole_windows(view, stage1):
                    found = self._failures.finite(heard, Stage.STAGE1, state, empty_ok=True)
                    if isinstance(found, Block):
                        stop: Block | None = found
                    else:  # without a logit of stage 1 stage 2 decides alone
                        logit = found if found > -math.inf else 0.0
                        stop = yield from self._ask(state, logit, window)
                    if stop is not None and (stop := self._act(stop)) is not None:
                        return stop
        return None

    def _listen(self, state: LaneState, probe: ProbeState, heard: Heard | None) -> Block | None:
        """Let the probe judge what comes with a text; text that comes without is unscored."""
        logit = probe.score(heard) if heard else Failed(reason="NoActivations")
        found = self._failures.finite(logit, Stage.STAGE1, state)
        if isinstance(found, Block):
            return self._act(found)
        probe.hear(found)
        return None

    def _step(self, state: LaneState, step: str) -> ScoringFlow[Block | None]:
        """Score one step of a lane: the wire's text, then what it means where the lane is JSON."""
        if self._written.hot.changed() and (late := self._prompt.again()) is not None:
            # A rule that came meanwhile knows this prompt: the next text is not released.
            late = msgspec.structs.replace(late, lane=state.lane, offset=state.scored)
            if (stop := self._act(late)) is not None:
                return stop
        for text, fresh in state.texts(step):
            words, chars = text.grow(fresh)
            block = yield from self._advance(text, fresh, words, chars, last=False)
            if block is not None:
                return block
            if text is not state:
                state.note_meaning(len(self._release(text, last=False)))
        return None

    def _end(self, state: LaneState) -> ScoringFlow[Block | None]:
        """Score what is left of a lane, of both its texts; None means that all of it may leave."""
        if left := state.left():
            block = yield from self._step(state, left)
            if block is not None:
                return block
        for text, fresh in state.ends():
            if fresh:
                words, chars = text.grow(fresh)
                block = yield from self._advance(text, fresh, words, chars, last=False)
                if block is not None:
                    return block
            words, chars = text.rest()
            block = yield from self._advance(text, "", words, chars, last=True)
            if block is not None:
                return block
        return None

    def _open(self, lane: Lane) -> LaneState:
        probe = self._cascade.probe
        return self._open_text(
            lane,
            probe=None if probe is None else ProbeState(probe.scorer.open_reply()),
            meaning=self._open_text(lane) if lane.channel is Channel.TOOL_ARGUMENTS else None,
        )

    def _open_text(
        self, lane: Lane, *, probe: ProbeState | None = None, meaning: LaneState | None = None
    ) -> LaneState:
        stage1 = self._cascade.stage1
        score = stage1.open_reply() if stage1 is not None else None
        if score is not None and self._before:
            # What the assistant said before counts as context: a split answer adds up.
            guarded(score.feed, tokens(self._before)[-64:])
        rules, views = self._written.stream(), self._decoder.growing()
        whole = self._prompt.coded
        return LaneState(lane, score, rules, views, probe=probe, meaning=meaning, whole=whole)

    def _advance(
        self, state: LaneState, fresh: str, words: list[str], chars: int, *, last: bool
    ) -> ScoringFlow[Block | None]:
        """Score what became whole; None means that nothing must be stopped."""
        if fresh or last:
            hit = state.rules.finish() if last else state.rules.feed(fresh)
            if hit is not None and (stop := self._act(rule_block(hit, state))) is not None:
                return stop
        block: Block | None = None
        if state.score is None:
            state.take(chars, len(words))
        else:
            block = yield from self._score_own(state, words, chars, last=last)
        if block is None:
            block = yield from self._score_seen(state, fresh, last=last)
        if block is None:
            block = yield from self._score_views(state, fresh, last=last)
        if block is None:
            return self._unread(state)
        acted = self._act(block)
        if acted is None:
            state.checked()
        return acted

    def _unread(self, state: LaneState) -> Block | None:
        """Stop what nobody can read, over all lanes, before more of it leaves than is allowed.

        What the prompt said itself tells nothing by being said again.
        """
        most = self._policy.unreadable_chars
        if self._excused or not state.views.unreadable:
            return None
        if self._count_unreadable() <= most:
            return None
        lanes = [lane.meaning or lane for lane in self._lanes.values()]
        said = "\n".join(part.text for part in self._exchange.texts())
        if sum(lane.views.unknown(said) for lane in lanes) <= most:
            return None
        acted = self._act(block_at("", math.inf, 0.0, Stage.UNREADABLE, state))
        self._excused = acted is None
        return acted

    def _score_own(
        self, state: LaneState, words: list[str], chars: int, *, last: bool
    ) -> ScoringFlow[Block | None]:
        if words and state.score is not None:
            logit = self._failures.finite(guarded(state.score.feed, words), Stage.STAGE1, state)
            if isinstance(logit, Block):
                return logit
            state.note_stage1(logit)
        state.take(chars, len(words))
        cascade, surface = self._cascade, self._cascade.reply
        if not cascade.has_stage2:
            if state.recent >= surface.alone:
                return block_at(state.clause(), state.recent, surface.alone, Stage.STAGE1, state)
            state.checked()
            return None
        if state.recent < surface.escalate and not self._heard(state):
            state.checked()
            return None
        if state.unchecked < self._policy.hold_tokens and not last:
            return None
        block = yield from self._ask(state, state.known(), state.tail)
        state.checked()
        return block

    def _score_seen(self, state: LaneState, fresh: str, *, last: bool) -> ScoringFlow[Block | None]:
        """Score the text as a reader sees it, where that is not what stands on the wire."""
        seen, cascade, surface = state.seen, self._cascade, self._cascade.reply
        found = seen.look(fresh, cascade, self._written)
        if isinstance(found, RuleHit):
            return rule_block(found, state)
        if found is None:
            return None
        logit = self._failures.finite(found, Stage.STAGE1, state, empty_ok=True)
        if isinstance(logit, Block):
            return logit
        seen.recent = max(seen.recent, logit)
        if not cascade.has_stage2:
            level, seen.recent = seen.recent, -math.inf
            if level >= surface.alone:
                return block_at(state.clause(), level, surface.alone, Stage.STAGE1, state)
        elif seen.recent < surface.escalate:
            seen.recent = -math.inf
        elif seen.unchecked >= self._policy.hold_tokens or last:
            block = yield from self._ask(state, seen.recent, seen.tail)
            seen.checked()
            return block
        return None

    def _heard(self, state: LaneState) -> bool:
        """Whether the probe asks for stage 2 by itself."""
        weights, probe = self._cascade.probe, state.probe
        if weights is None or probe is None:
            return False
        return probe.fresh and probe.level >= weights.escalate

    def _score_views(
        self, state: LaneState, fresh: str, *, last: bool
    ) -> ScoringFlow[Block | None]:
        decoded = [*state.views.feed(fresh)] if fresh else []
        if last:
            decoded += state.views.finish()
        state.note_decoded(len(decoded))
        surface = self._cascade.reply
        for text in decoded:
            hit = self._written.search(text)
            if hit is not None:
                return rule_block(hit, state)
            if self._cascade.stage1 is None:
                continue
            words = tokens(text)
            if not words:
                continue
            lane = self._cascade.stage1.open_reply()
            logit = self._failures.finite(guarded(lane.feed, words), Stage.STAGE1, state)
            if isinstance(logit, Block):
                return logit
            if not self._cascade.has_stage2 and logit >= surface.alone:
                return block_at(lane.attribution(), logit, surface.alone, Stage.STAGE1, state)
            if self._cascade.has_stage2 and logit >= surface.escalate:
                block = yield from self._ask(state, logit, text[-READ:])
                if block is not None:
                    return block
        return None

    def _ask(self, state: LaneState, stage1: float, reply: str) -> ScoringFlow[Block | None]:
        """Ask stage 2 about a lane, then about it behind what was answered before."""
        state.note_doubt()
        block = yield from self._read(state, stage1, reply, TextKind.REQUEST)
        together = joined_answer(self._before, reply)
        if block is None and together:
            block = yield from self._read(state, stage1, together, TextKind.JOINED)
        return block

    def _read(
        self, state: LaneState, stage1: float, reply: str, kind: TextKind
    ) -> ScoringFlow[Block | None]:
        """Have stage 2 read a text of a kind and decide by the ensemble."""
        self._escalations += 1
        surface = self._cascade.reply
        answer = yield Escalation(prompt=self._reading, reply=reply)
        if isinstance(answer, Failed):
            return self._failures.failed(answer, Stage.STAGE2, state)
        probe = None if state.probe is None else state.probe.logit()
        logit = self._cascade.ensemble(surface, stage1, answer.logit, probe, kind)
        final = self._failures.finite(logit, Stage.STAGE2, state)
        if isinstance(final, Block):
            return final
        state.note_final(final)
        if final >= surface.block:
            return block_at(answer.clause, final, surface.block, Stage.STAGE2, state)
        return None

    def _release(self, state: LaneState, *, last: bool) -> str:
        """Take what may leave now out of the lane: all but the last tokens, whole chunks only."""
        if self.delivers_whole and not last:
            return ""
        return state.give(0 if last else self._hold(state), everything=last)

    def _hold(self, state: LaneState) -> int:
        """Return how many of the last tokens stay behind."""
        policy = self._policy
        if policy.mode is not DeliveryMode.HOLD:
            return 0
        if self._rules_alone and not state.views.decodes:
            return policy.hold_tokens
        doubt = state.doubted or self._prompt.escalations > 0
        return max(
            policy.hold_tokens,
            policy.doubt_tokens if doubt else 0,
            policy.decoded_tokens if state.obscured else 0,
        )

    # --- decisions and failures -----------------------------------------------------------------

    def _act(self, block: Block) -> Block | None:
        """Make a block final, or only note it where the mode or a grant delivers all the same.

        What a broken scorer never saw is not released in any mode: that takes the `bypass`.
        """
        noted = self._policy.mode is DeliveryMode.AUDIT or self._exempt(block.clause)
        if noted and block.stage is not Stage.FAIL_MODE:
            self.would_block = self.would_block or block
            return None
        self._blocked = block
        return block

    # --- what the operator is told --------------------------------------------------------------

    @property
    def coverage(self) -> LaneCoverage:
        """Characters fed, scored and released over all lanes."""
        lanes = self._lanes.values()
        return LaneCoverage(
            received=sum(state.received for state in lanes),
            scored=sum(state.scored for state in lanes),
            released=sum(state.released for state in lanes),
        )

    def _every_text(self) -> Iterator[LaneState]:
        for state in self._lanes.values():
            yield state
            if state.meaning is not None:
                yield state.meaning

    @property
    def stage1_logits(self) -> tuple[float, float]:
        """The highest stage-1 logits of the prompt and of any reply lane so far."""
        replies = (state.best for state in self._every_text())
        return self._prompt.stage1, max(replies, default=-math.inf)

    def report(self) -> SessionReport:
        """Return the scores, escalations and bypasses so far."""
        cascade = self._cascade
        best = max(
            (state.final if cascade.has_stage2 else state.best for state in self._every_text()),
            default=-math.inf,
        )
        return SessionReport(
            prompt_score=cascade.score(cascade.prompt, self._prompt.final),
            reply_score=cascade.score(cascade.reply, best),
            escalations=self._prompt.escalations + self._escalations,
            bypasses=tuple(self._failures.bypasses),
            coverage=self.coverage,
            hot=tuple(self._written.hot.hit.values()),
            unreadable=self._count_unreadable(),
        )

    def _count_unreadable(self) -> int:
        lanes = (lane.meaning or lane for lane in self._lanes.values())
        return sum(lane.views.unreadable for lane in lanes)


def _nobody(clause: str) -> bool:
    """Exempt nobody."""
    del clause
    return False


class Guard:
    """A loaded guard: makes sessions. Immutable, shared by all of them."""

    def __init__(self, cascade: Cascade, decoder: TextDecoder) -> None:
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
        hot: HotSource = no_hot_rules,
        memory: ScoreMemory | None = None,
        account: str = "",
        decoder: TextDecoder | None = None,
    ) -> GuardSession:
        """Start guarding one exchange; `memory` holds what an account's earlier turns scored.

        `decoder` is one that several classes share in one exchange, in place of the guard's own.
        """
        own = memory.of(self.digest, policy, account) if memory is not None and account else None
        shown = decoder or self._decoder
        return GuardSession(self.cascade, exchange, policy, shown, exempt, hot, own)

    @property
    def decoder(self) -> TextDecoder:
        """What shows its sessions the texts that a text means."""
        return self._decoder
