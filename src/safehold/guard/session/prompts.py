"""The verdict on a prompt: every segment and view by stage 1, some by stage 2.

Stage 2 reads the last request whatever stage 1 thinks of it, so that no list of words caps what is
found, and the hottest few of all other texts.
"""

import math
import re
from collections.abc import Callable, Container, Mapping, Sequence

import msgspec

from safehold.exchange import Exchange, Role, TextPart, Turn
from safehold.exchange.views import normalise, readable, slotted, spread_over
from safehold.guard.interface import (
    Allow,
    Block,
    Escalation,
    Failed,
    Scored,
    ScoringFlow,
    Stage,
    Verdict,
)
from safehold.guard.scorers.rules import RuleHit
from safehold.guard.scorers.tokens import tokens
from safehold.guard.session.cascade import Cascade, TextKind
from safehold.guard.session.coded import asks_for_code
from safehold.guard.session.decisions import Failures, InPrompt, block_at, rule_block
from safehold.guard.session.drivers import guarded
from safehold.guard.session.remembered import AccountMemory, PastScores, TextScores
from safehold.guard.session.segments import (
    LONGEST,
    Segment,
    around,
    joined_texts,
    led,
    own_texts,
    pieces,
    request,
    requests,
    windows,
)
from safehold.guard.session.written import WrittenRules

_CANDIDATES = {TextKind.PART: 4, TextKind.JOINED: 4, TextKind.ANSWER: 2}
"""Texts of a prompt that may be shown to stage 2, the hottest ones above the escalation threshold:
of what was said in a turn, of joined turns, of answers. None takes another's place: a client writes
the assistant's turns itself.
"""
_INSIDE = 4
"""Windows of a long last request that stage 2 reads whatever stage 1 thinks of them."""
_TOGETHER = 2
"""Texts of joined turns that stage 2 reads whatever stage 1 thinks of them."""
_KEPT_CHARS = 1 << 18
"""Characters of a prompt's views that are kept for rules that come while the reply is streamed."""

_KINDS = {True: b"t", False: b"r"}
_STAGE2, _PIECE, _CODED = b"2", b"p", b"c"
"""What a text is remembered as."""
_EVERY_VIEW = -1
_MOST_HOT = 64
"""Earlier turns worth a second look up to which a conversation is remembered as a whole."""

_READER = 3_000
"""Characters at each end of a long last request that are read in the reader's form too."""

_WORD = re.compile(r"\w+")

Views = Callable[[str], Sequence[str]]


class _Found(msgspec.Struct, frozen=True):
    logit: float
    text: str
    turn: int
    kind: TextKind
    around: str = ""
    around_logit: float = -math.inf
    """What stands around it, of a sentence inside the last request."""


class _Past(msgspec.Struct, frozen=True):
    """The turns that are known to hold nothing of interest, and the hottest logit of them."""

    passed: frozenset[int] = frozenset()
    hottest: tuple[float, ...] = ()


class PromptJudge:
    """Judges one prompt; keeps the scores that the report names."""

    def __init__(
        self,
        cascade: Cascade,
        views: Views,
        failures: Failures,
        written: WrittenRules,
        memory: AccountMemory | None = None,
        *,
        reads_request: bool = True,
    ) -> None:
        """Take the cascade, the decoder's views of a text, the fail modes, the written rules.

        `memory` holds what texts of earlier turns scored; `reads_request` lets stage 2 read the
        last request whatever stage 1 thinks of it.
        """
        self._reads_request = reads_request
        self._cascade = cascade
        self._memory = memory
        self._views = views
        self._written = written
        self._kept: list[tuple[str, int | None, int]] = []
        """A text, which of its views (None: it is a view itself, -1: all), and its turn."""
        self._logits: dict[str, float] = {}
        """What the pieces of this prompt scored: joined turns hold those of the last one again."""
        self._kept_chars = 0
        self._passed: Sequence[tuple[int, Turn]] = ()
        """Turns that were not looked at again."""
        self._plain: dict[str, str] = {}
        self._dresses: set[str] = set()
        """Forms of the last request that are structures whose words are read beside them."""
        self._failures = failures
        self.stage1 = -math.inf
        self.final = -math.inf
        self.escalations = 0
        self.coded = False
        """Whether anybody but the assistant asked for an answer in a code."""

    def judge(self, exchange: Exchange) -> ScoringFlow[Verdict]:
        """Score every segment and view of the prompt; the verdict is final for the prompt."""
        cascade = self._cascade
        found: list[_Found] = []
        _, last = request(exchange)
        past, names = self._past(exchange, last)
        hottest_of: dict[int, float] = {}
        for segment in own_texts(exchange, past.passed):
            stop, hottest, some = self._segment(segment, last, own=_answers(exchange, segment))
            if stop is not None:
                return stop
            if hottest is not None:
                hottest_of[segment.turn] = max(hottest, hottest_of.get(segment.turn, -math.inf))
            found += some
        most = max((*hottest_of.values(), *past.hottest), default=None)
        self._remember(exchange, names, most, hottest_of)
        for segment in joined_texts(exchange):
            stop, hottest, some = self._segment(segment, last, own=_answers(exchange, segment))
            if stop is not None:
                return stop
            most = hottest if most is None else max(most, most if hottest is None else hottest)
            found += some
        if cascade.stage1 is None or most is None:
            return Allow(score=0.0)
        # Of equally hot texts the shortest says best what is asked.
        found.sort(key=lambda one: (-one.logit, len(one.text)))
        self.stage1 = most
        reads = cascade.has_stage2 and self._reads_request
        asked = self._asked(exchange, last, found) if reads else []
        if isinstance(asked, Block):
            return asked
        return (yield from self._decide(found, asked))

    def _past(self, exchange: Exchange, last: int) -> tuple[_Past, list[bytes]]:
        """Return which turns need not be looked at again, and this conversation's names.

        While hot rules are in force every text is searched again, since what they hit is counted.
        """
        if self._memory is None or self._written.hot.now.rules is not None:
            return _Past(), []
        names = self._memory.beginnings(exchange.turns)
        known = self._memory.past(names)
        if known is None:
            return _Past(), names
        self.coded = known.coded
        passed = frozenset(range(known.turns)) - {last, *known.hot}
        self._passed = [turn for turn in enumerate(exchange.turns) if turn[0] in passed]
        return _Past(passed, () if known.hottest is None else (known.hottest,)), names

    def _remember(
        self,
        exchange: Exchange,
        names: Sequence[bytes],
        hottest: float | None,
        hottest_of: Mapping[int, float],
    ) -> None:
        """Remember what all turns scored by themselves, where nothing failed."""
        if self._memory is None or not names or self._failures.bypasses:
            return
        worth = self._worth
        hot = tuple(turn for turn, logit in hottest_of.items() if logit >= worth)
        if len(hot) <= _MOST_HOT:
            self._memory.keep(names[0], PastScores(len(exchange.turns), hottest, hot, self.coded))

    @property
    def _worth(self) -> float:
        """The logit from which on an earlier text is worth a second look."""
        surface = self._cascade.prompt
        return surface.escalate if self._cascade.has_stage2 else surface.alone

    def _segment(
        self, segment: Segment, last: int, *, own: bool
    ) -> tuple[Block | None, float | None, list[_Found]]:
        """Return the block that a text means, its hottest logit, and what is worth a second look.

        A text that is remembered is not scored again, and of one that stage 2 will not be asked
        about only the hottest logit is needed.
        """
        if not segment.scored and self._written.none:
            # Written rules alone would read its views, and there are none.
            self._keep(segment.text, _EVERY_VIEW, len(segment.text), segment.turn)
            self.coded = self.coded or self._asks_for_code(segment.text)
            return None, None, []
        memory = self._memory
        name = b"" if memory is None else memory.name(_KINDS[segment.scored], segment.text)
        kept = None if memory is None else memory.scores(name)
        if kept is None:
            return self._first_time(segment, last, memory, name, own=own)
        self.coded = self.coded or (kept.coded and not own)
        views: Sequence[str] | None = None
        hot = self._written.hot
        if hot.now.rules is not None:
            views = self._views(segment.text)
            for view in views:
                hit = hot.search(view)
                if hit is not None:
                    return rule_block(hit, InPrompt(segment.turn)), None, []
        for number, size in enumerate(kept.sizes):
            self._keep(segment.text, number, size, segment.turn)
        hottest = max((logit for one in kept.logits for logit in one), default=None)
        if hottest is None or (segment.turn not in {last, -1} and hottest < self._worth):
            return None, hottest, []
        views = self._views(segment.text) if views is None else views
        some = [
            _Found(logit, piece, segment.turn, _kind(segment, last, own=own, whole=piece == view))
            for view, logits in zip(views, kept.logits, strict=True)
            for piece, logit in zip(pieces(view), logits, strict=True)
        ]
        return None, hottest, some

    def _asks_for_code(self, text: str) -> bool:
        """Return whether a text of which no views are made asks for a code; remembered."""
        if self._memory is None:
            return asks_for_code(normalise(text))
        name = self._memory.name(_CODED, text)
        kept = self._memory.scores(name)
        if kept is None:
            kept = TextScores((), (), asks_for_code(normalise(text)))
            self._memory.keep(name, kept)
        return kept.coded

    def _first_time(
        self,
        segment: Segment,
        last: int,
        memory: AccountMemory | None,
        name: bytes,
        *,
        own: bool,
    ) -> tuple[Block | None, float | None, list[_Found]]:
        """Score a text; remember what it scored, where nothing failed meanwhile."""
        found: list[_Found] = []
        sizes: list[int] = []
        logits: list[tuple[float, ...]] = []
        failed = len(self._failures.bypasses)
        views = self._views(segment.text)
        if segment.turn == last:
            self._plain[segment.text] = views[0]
        coded = any(map(asks_for_code, views))
        self.coded = self.coded or (coded and not own)
        for view in views:
            self._keep(view, None, len(view), segment.turn)
            hit = self._written.search(view)
            if hit is not None:
                return rule_block(hit, InPrompt(segment.turn)), None, []
            scores: list[float] = []
            for piece in pieces(view) if segment.scored else ():
                logit = self._score(piece, segment.turn)
                if isinstance(logit, Block):
                    return logit, None, []
                kind = _kind(segment, last, own=own, whole=piece == view)
                found.append(_Found(logit, piece, segment.turn, kind))
                scores.append(logit)
            sizes.append(len(view))
            logits.append(tuple(scores))
        if memory is not None and failed == len(self._failures.bypasses):
            memory.keep(name, TextScores(tuple(sizes), tuple(logits), coded))
        return None, max((one.logit for one in found), default=None), found

    def _asked(
        self, exchange: Exchange, last: int, found: Sequence[_Found]
    ) -> list[_Found] | Block:
        """Return what stage 2 reads whatever stage 1 thinks of it: of the last request, of joins.

        A request of up to 800 characters is read whole, of a longer one both ends and the hottest
        sentences, since a request that stage 1 does not know may stand anywhere in it.
        """
        asked: list[_Found] = []
        forms = self._forms(exchange)
        for text, kind in _read(forms, self._dresses).items():
            logit = self._score(text, last)
            if isinstance(logit, Block):
                return logit
            asked.append(_Found(logit, text, last, kind))
        for text in led(exchange):
            plain = normalise(text)
            logit = self._score(plain, last)
            if isinstance(logit, Block):
                return logit
            asked.append(_Found(logit, plain, last, TextKind.BEHIND))
        inside: dict[str, _Found] = {}
        for one in found:  # one may be the reader's form of another: the same words
            if one.turn == last and one.kind is TextKind.PART and len(one.text) <= LONGEST:
                inside.setdefault(" ".join(_WORD.findall(one.text)), one)
        for one in _hottest(list(inside.values()), -math.inf, _INSIDE):
            near = next((near for form in forms if (near := around(form, one.text))), "")
            logit = self._score(near, last) if near else -math.inf
            if isinstance(logit, Block):
                return logit
            asked.append(msgspec.structs.replace(one, around=near, around_logit=logit))
        together = [one for one in found if one.kind is TextKind.JOINED]
        return [*asked, *_hottest(together, -math.inf, _TOGETHER)]

    def _forms(self, exchange: Exchange) -> list[str]:
        """Return the last request as it stands and as a reader sees it, its parts joined.

        Words that are spread over a structure are read in order beside it; what is nothing but such
        a structure is noted.
        """
        forms: dict[str, None] = {}
        for form in requests(exchange):
            plain = self._plain.get(form) or normalise(form)
            ends = [form] if len(form) <= 2 * _READER else [form[:_READER], form[-_READER:]]
            shown = (seen for end in ends if (seen := readable(end)))
            values = [seen for end in ends for seen in slotted(end)]
            if any(spread_over(form, seen) for seen in values):
                self._dresses.update((plain, form))
            for whole in (plain, *shown, *values):
                if whole.strip():
                    forms[whole] = None
        return list(forms)

    def _keep(self, text: str, view: int | None, size: int, turn: int) -> None:
        if self._kept_chars + size <= _KEPT_CHARS:
            self._kept.append((text, view, turn))
            self._kept_chars += size

    def again(self) -> Block | None:
        """Search the prompt for hot rules that came since it was judged.

        Of a prompt with more than 262,144 characters in all views, only so many are searched, and
        as many of the turns before it.
        """
        room = _KEPT_CHARS
        for turn, said in self._passed:
            for part in said.parts:
                if isinstance(part, TextPart) and len(part.text) <= room:
                    room -= len(part.text)
                    hit = self._hot_in(self._views(part.text))
                    if hit is not None:
                        return rule_block(hit, InPrompt(turn))
        for text, number, turn in self._kept:
            views = [text] if number is None else self._views(text)
            hit = self._hot_in(views if number in {None, _EVERY_VIEW} else [views[number or 0]])
            if hit is not None:
                return rule_block(hit, InPrompt(turn))
        return None

    def _hot_in(self, views: Sequence[str]) -> RuleHit | None:
        return next(filter(None, map(self._written.hot.search, views)), None)

    def _score(self, text: str, turn: int) -> float | Block:
        """Return what stage 1 says of a piece, or said of it before.

        Of joined turns, of which each new one makes a new text, the pieces are remembered: most
        are sentences that were joined before.
        """
        if self._cascade.stage1 is None:
            return -math.inf
        known = self._logits.get(text)
        if known is not None:
            return known
        name = self._memory.name(_PIECE, text) if self._memory is not None and turn < 0 else None
        kept = None if self._memory is None or name is None else self._memory.scores(name)
        if kept is not None:
            self._logits[text] = kept.logits[0][0]
            return self._logits[text]
        lane = self._cascade.stage1.open_prompt()
        logit = guarded(lane.feed, tokens(text))
        found = self._failures.finite(logit, Stage.STAGE1, InPrompt(turn), empty_ok=True)
        if found is logit and not isinstance(found, Block):
            self._logits[text] = found
            if self._memory is not None and name is not None:
                self._memory.keep(name, TextScores((), ((found,),)))
        return found

    def _ask(self, text: str) -> ScoringFlow[Scored | Failed]:
        """Return what stage 2 says of a text, or said of it before; a failure is asked again."""
        if self._memory is None:
            return (yield Escalation(prompt=text, reply=""))
        name = self._memory.name(_STAGE2, text)
        known = self._memory.answer(name)
        if known is not None:
            return known
        answer = yield Escalation(prompt=text, reply="")
        if isinstance(answer, Scored) and math.isfinite(answer.logit):
            self._memory.keep(name, answer)
        return answer

    def _decide(self, found: Sequence[_Found], asked: Sequence[_Found]) -> ScoringFlow[Verdict]:
        cascade, surface = self._cascade, self._cascade.prompt
        if not cascade.has_stage2:
            self.final = self.stage1
            if self.stage1 >= surface.alone:
                hottest = found[0]
                return block_at(
                    "", hottest.logit, surface.alone, Stage.STAGE1, InPrompt(hottest.turn)
                )
            return Allow(score=cascade.score(surface, self.final))
        own: dict[TextKind, list[_Found]] = {kind: [] for kind in _CANDIDATES}
        for one in found:
            own.get(one.kind, own[TextKind.PART]).append(one)
        chosen = [
            msgspec.structs.replace(one, kind=TextKind.PART) if one.text in self._dresses else one
            for kind, texts in own.items()
            for one in _hottest(texts, surface.escalate, _CANDIDATES[kind])
        ]
        self.escalations = len(chosen)
        # What stands in several places counts as the kind that needs least: the last request first.
        kinds: dict[str, _Found] = {}
        for one in sorted((*asked, *chosen), key=lambda one: surface.margin(one.kind)):
            kinds.setdefault(one.text, one)
        order = dict.fromkeys(one.text for one in (*chosen, *asked))
        for one in (kinds[text] for text in order):
            block = yield from self._read_by_stage2(one)
            if block is not None:
                return block
        return Allow(score=cascade.score(surface, self.final))

    def _read_by_stage2(self, one: _Found) -> ScoringFlow[Block | None]:
        """Decide about a text by both stages, and about a sentence with what is around it."""
        answer = yield from self._ask(one.text)
        if isinstance(answer, Failed):
            return self._failures.failed(answer, Stage.STAGE2, InPrompt(one.turn))
        block = self._decided(one.logit, answer, one.turn, one.kind)
        surface = self._cascade.prompt
        if block is not None or not one.around:
            return block
        if not self._cascade.doubts(surface, one.logit, answer.logit):
            return None
        more = yield from self._ask(one.around)
        if isinstance(more, Failed):
            return self._failures.failed(more, Stage.STAGE2, InPrompt(one.turn))
        both = msgspec.structs.replace(answer, logit=(answer.logit + more.logit) / 2)
        return self._decided((one.logit + one.around_logit) / 2, both, one.turn, TextKind.INSIDE)

    def _decided(self, stage1: float, answer: Scored, turn: int, kind: TextKind) -> Block | None:
        """Return the block that both stages mean for a text of a kind."""
        cascade, surface, place = self._cascade, self._cascade.prompt, InPrompt(turn)
        both = cascade.ensemble(surface, stage1, answer.logit, kind=kind)
        final = self._failures.finite(both, Stage.STAGE2, place)
        if isinstance(final, Block):
            return final
        self.final = max(self.final, final)
        if final >= surface.block:
            return block_at(answer.clause, final, surface.block, Stage.STAGE2, place)
        return None


def _read(forms: Sequence[str], dresses: Container[str]) -> dict[str, TextKind]:
    """Return what is read of each form of the last request, and what it is: all of it or a part.

    A structure whose words are read beside it counts as a part: it asks what its words ask.
    """
    found: dict[str, TextKind] = {}
    for form in forms:
        for window in windows(form):
            whole = window == form and form not in dresses
            if whole or window not in found:
                found[window] = TextKind.REQUEST if whole else TextKind.PART
    return found


def _answers(exchange: Exchange, segment: Segment) -> bool:
    """Return whether a text is what the assistant said."""
    return segment.turn >= 0 and exchange.turns[segment.turn].role is Role.ASSISTANT


def _kind(segment: Segment, last: int, *, own: bool, whole: bool) -> TextKind:
    """Return what a text of a segment is: `own` is an answer, `whole` all of the segment."""
    if segment.turn < 0:
        return TextKind.JOINED
    if own:
        return TextKind.ANSWER
    if not whole:
        return TextKind.PART
    return TextKind.REQUEST if segment.turn == last else TextKind.EARLIER


def _hottest(found: Sequence[_Found], above: float, most: int) -> list[_Found]:
    """Return the hottest texts above a logit, of which none holds another; `found` is in order."""
    hot: dict[str, _Found] = {}
    for one in found:
        if one.logit < above or len(hot) == most:
            break
        if not any(one.text in text or text in one.text for text in hot):
            hot[one.text] = one
    return list(hot.values())
