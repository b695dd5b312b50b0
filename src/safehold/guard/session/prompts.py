"""The verdict on a prompt: every segment and view by stage 1, some by stage 2.

Stage 2 reads the last request whatever stage 1 thinks of it, so that no list of words caps what is
found, and the hottest few of all other texts.
"""

import math
from collections.abc import Callable, Sequence

import msgspec

from safehold.exchange import Exchange
from safehold.guard.interface import Allow, Block, Escalation, Failed, ScoringFlow, Stage, Verdict
from safehold.guard.scorers.tokens import tokens
from safehold.guard.session.cascade import Cascade
from safehold.guard.session.decisions import Failures, InPrompt, block_at, rule_block
from safehold.guard.session.drivers import guarded
from safehold.guard.session.segments import pieces, request, segments, windows
from safehold.guard.session.written import WrittenRules

_CANDIDATES = 4
"""Texts of a prompt that may be shown to stage 2: the hottest ones."""
_KEPT_CHARS = 1 << 18
"""Characters of a prompt's views that are kept for rules that come while the reply is streamed."""

_PART = 2.0
"""What stage 2's logit of a part of a longer text, or of joined turns, counts less.

A long text has many parts, and each is one more chance to be wrong.
"""

Views = Callable[[str], Sequence[str]]


class _Found(msgspec.Struct, frozen=True):
    logit: float
    text: str
    turn: int
    part: bool


class PromptJudge:
    """Judges one prompt; keeps the scores that the report names."""

    def __init__(
        self, cascade: Cascade, views: Views, failures: Failures, written: WrittenRules
    ) -> None:
        """Take the cascade, the decoder's views of a text, the fail modes, the written rules."""
        self._cascade = cascade
        self._views = views
        self._written = written
        self._kept: list[tuple[str, int]] = []
        self._kept_chars = 0
        self._failures = failures
        self.stage1 = -math.inf
        self.final = -math.inf
        self.escalations = 0

    def judge(self, exchange: Exchange) -> ScoringFlow[Verdict]:
        """Score every segment and view of the prompt; the verdict is final for the prompt."""
        cascade = self._cascade
        found: list[_Found] = []
        for segment in segments(exchange):
            for view in self._views(segment.text):
                self._keep(view, segment.turn)
                hit = self._written.search(view)
                if hit is not None:
                    return rule_block(hit, InPrompt(segment.turn))
                for piece in pieces(view) if segment.scored else ():
                    part = piece != view or segment.turn < 0
                    logit = self._score(piece, segment.turn)
                    if isinstance(logit, Block):
                        return logit
                    found.append(_Found(logit, piece, segment.turn, part))
        if cascade.stage1 is None or not found:
            return Allow(score=0.0)
        found.sort(key=lambda one: -one.logit)
        self.stage1 = found[0].logit
        asked: list[_Found] = []
        if cascade.has_stage2:
            text, turn = request(exchange)
            plain = self._views(text)[0] if text.strip() else ""
            for window in windows(plain) if plain.strip() else ():
                logit = self._score(window, turn)
                if isinstance(logit, Block):
                    return logit
                asked.append(_Found(logit, window, turn, part=window != plain))
        return (yield from self._decide(found, asked))

    def _keep(self, view: str, turn: int) -> None:
        if self._kept_chars + len(view) <= _KEPT_CHARS:
            self._kept.append((view, turn))
            self._kept_chars += len(view)

    def again(self) -> Block | None:
        """Search the prompt for hot rules that came since it was judged.

        Of a prompt with more than 262,144 characters in all views, only so many are searched.
        """
        for view, turn in self._kept:
            hit = self._written.hot.search(view)
            if hit is not None:
                return rule_block(hit, InPrompt(turn))
        return None

    def _score(self, text: str, turn: int) -> float | Block:
        if self._cascade.stage1 is None:
            return -math.inf
        lane = self._cascade.stage1.open_prompt()
        logit = guarded(lane.feed, tokens(text))
        return self._failures.finite(logit, Stage.STAGE1, InPrompt(turn), empty_ok=True)

    def _decide(self, found: Sequence[_Found], asked: Sequence[_Found]) -> ScoringFlow[Verdict]:
        cascade, surface = self._cascade, self._cascade.prompt
        if not cascade.has_stage2:
            hottest = found[0]
            self.final = hottest.logit
            if hottest.logit >= surface.alone:
                return block_at(
                    "", hottest.logit, surface.alone, Stage.STAGE1, InPrompt(hottest.turn)
                )
            return Allow(score=cascade.score(surface, self.final))
        chosen = _hottest(found, surface.escalate)
        self.escalations = len(chosen)
        texts = {one.text: one for one in (*asked, *chosen)}
        order = dict.fromkeys([*(one.text for one in chosen), *texts])
        for one in (texts[text] for text in order):
            place = InPrompt(one.turn)
            answer = yield Escalation(prompt=one.text, reply="")
            if isinstance(answer, Failed):
                failed = self._failures.failed(answer, Stage.STAGE2, place)
                if failed is not None:
                    return failed
                continue
            seen = answer.logit - (_PART if one.part else 0.0)
            final = self._failures.finite(
                cascade.ensemble(surface, one.logit, seen), Stage.STAGE2, place
            )
            if isinstance(final, Block):
                return final
            self.final = max(self.final, final)
            if final >= surface.block:
                return block_at(answer.clause, final, surface.block, Stage.STAGE2, place)
        return Allow(score=cascade.score(surface, self.final))


def _hottest(found: Sequence[_Found], escalate: float) -> list[_Found]:
    """Return the hottest texts above a logit, of which none holds another; `found` is in order."""
    hot: dict[str, _Found] = {}
    for one in found:
        if one.logit < escalate or len(hot) == _CANDIDATES:
            break
        if not any(one.text in text or text in one.text for text in hot):
            hot[one.text] = one
    return list(hot.values())
