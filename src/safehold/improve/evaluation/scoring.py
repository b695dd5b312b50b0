"""Scores of items, by the very sessions that a gateway runs.

Nothing is re-implemented here: a recording cascade sits where the served one does and keeps every
ensemble logit. Reply text comes in small deltas. Stage 2 is asked one exchange at a time, because
a quantised model's answer depends, in the last digits, on what else is in its batch, and a
resumed run must give the numbers of an unbroken one.
"""

import math
from collections.abc import Callable

import msgspec

from safehold.exchange import Lane
from safehold.guard.interface import Block, Cleared, DeliveryMode, Escalation, Failed, Heard, Stage
from safehold.guard.scorers.interface import ActivationScorer, ExchangeScorer
from safehold.guard.scorers.tokens import tokens
from safehold.guard.served.interface import ServedModel
from safehold.guard.served.turns import said
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.cascade import Cascade, TextKind, Thresholds
from safehold.guard.session.drivers import Answer, drive
from safehold.guard.session.session import Guard, SessionPolicy, TextDecoder
from safehold.improve.evaluation.interface import EvalItem, ItemScores, Score

Delta = tuple[str, Heard | None]
DELTA_CHARS = 12
"""Characters of one delta of a reply: two or three tokens of a usual model."""
_PROMPT_CHARS = 600
"""Characters of each text of a conversation that the model reads before the reply."""
_NEVER = 1e9
_AUDIT = SessionPolicy(mode=DeliveryMode.AUDIT)
_HOLD = SessionPolicy()


class _Recorder(Cascade, frozen=True):
    """A cascade that decides as it is told and keeps the ensemble logits it decided by.

    `doubt_at` is the guard's own threshold for prompts: from there it reads more of one.
    """

    kept: list[float] = msgspec.field(default_factory=list)
    doubt_at: float = 0.0

    def ensemble(
        self,
        surface: Thresholds,
        stage1: float,
        stage2: float,
        probe: float | None = None,
        kind: TextKind = TextKind.REQUEST,
    ) -> float:
        """Return the final logit of both stages, after noting it."""
        final = Cascade.ensemble(self, surface, stage1, stage2, probe, kind)
        self.kept.append(final)
        return final

    def doubts(self, surface: Thresholds, stage1: float, stage2: float) -> bool:
        """Read as much as the guard itself does, whatever the thresholds here."""
        return Cascade.ensemble(self, surface, stage1, stage2) >= self.doubt_at


class ProbedModel:
    """The model that a probe reads, asked about each reply once, whichever guard it is for."""

    def __init__(self, served: ServedModel) -> None:
        """Take the model."""
        self._served = served
        self._known: dict[tuple[str, EvalItem], list[Delta]] = {}

    def deltas(self, probe: ActivationScorer, item: EvalItem) -> list[Delta]:
        """Return an item's reply in the model's tokens, each with what the probe heard."""
        if (probe.id, item) not in self._known:
            before = said(item.before, last_chars=_PROMPT_CHARS)
            reading = self._served.read(before, item.reply, probe.layers)
            logits = probe.logits(reading.activations)
            self._known[probe.id, item] = [
                (piece, (logit,)) for piece, logit in zip(reading.pieces, logits, strict=True)
            ]
        return self._known[probe.id, item]


class Examiner:
    """Shows items to one guard."""

    def __init__(
        self,
        cascade: Cascade,
        stage2: ExchangeScorer | None,
        decoder: TextDecoder,
        listener: ProbedModel | None = None,
    ) -> None:
        """Take what a gateway is given: cascade, stage 2 and decoder of obfuscated text.

        `listener` asks the model that the cascade's probe reads; replies come in its tokens.
        """
        self._cascade = cascade
        self._listener = listener
        self._decoder = decoder
        self._ask: Callable[[Escalation], Answer] = (
            InlineStage2(stage2) if stage2 is not None else _no_stage2
        )

    def examine(self, item: EvalItem) -> ItemScores:
        """Return the item's scores as a prompt and as a streamed reply."""
        return ItemScores(
            prompt=self._prompt(item) if item.asks else None,
            reply=self._reply(item) if item.reply else None,
        )

    def _prompt(self, item: EvalItem) -> Score:
        cascade = self._cascade
        # Nothing blocks by a score here, so that every escalation shows its own.
        recorder = _recorder(cascade, prompt=_open(cascade.prompt), reply=cascade.reply)
        session = Guard(recorder, self._decoder).session(item.prompt, _AUDIT)
        verdict = drive(session.judge_prompt(), self._ask)
        stage1 = _finite(session.stage1_logits[0])
        final = max(recorder.kept, default=None)
        stage: Stage | None = None
        if isinstance(verdict, Block):
            stage = verdict.stage
        elif cascade.has_stage2 and final is not None and final >= cascade.prompt.block:
            stage = Stage.STAGE2
        elif not cascade.has_stage2 and stage1 is not None and stage1 >= cascade.prompt.alone:
            stage = Stage.STAGE1
        escalations = session.report().escalations
        return Score(stage1, final, stage is not None, escalations, stage)

    def _reply(self, item: EvalItem) -> Score:
        cascade = self._cascade
        recorder = _recorder(cascade, prompt=cascade.prompt, reply=cascade.reply)
        session = Guard(recorder, self._decoder).session(item.before, _AUDIT)
        memory: dict[Escalation, Answer] = {}

        def remembered(request: Escalation) -> Answer:
            if request not in memory:
                memory[request] = self._ask(request)
            return memory[request]

        failed: Block | None = None
        deltas = self._deltas(item)
        for delta, heard in deltas:
            step = drive(session.feed(Lane(), delta, heard), remembered)
            if isinstance(step, Block):
                failed = step
                break
        if failed is None:
            for _, step in drive(session.finish(), remembered):
                failed = step if isinstance(step, Block) else failed
        block = failed or session.would_block
        stop = released = 0
        if block is not None:
            stop = len(tokens(item.reply[: block.offset]))
            released = len(tokens(self._released(item, deltas, remembered)))
        return Score(
            stage1=_finite(session.stage1_logits[1]),
            final=max(recorder.kept, default=None),
            blocked=block is not None,
            escalations=session.report().escalations,
            stage=block.stage if block is not None else None,
            length=len(tokens(item.reply)),
            stop=stop,
            released=released,
            probe=self._probe(deltas),
        )

    def _deltas(self, item: EvalItem) -> list[Delta]:
        """Cut a reply as it comes: in few characters, or in the tokens that a probe hears."""
        probe = self._cascade.probe
        if probe is None or self._listener is None:
            cuts = range(0, len(item.reply), DELTA_CHARS)
            return [(item.reply[at : at + DELTA_CHARS], None) for at in cuts]
        return self._listener.deltas(probe.scorer, item)

    def _probe(self, deltas: list[Delta]) -> float | None:
        probe = self._cascade.probe
        heard = [logit for _, logits in deltas for logit in logits or ()]
        return probe.scorer.open_reply().feed(heard) if probe is not None and heard else None

    def _released(
        self, item: EvalItem, deltas: list[Delta], answer: Callable[[Escalation], Answer]
    ) -> str:
        """Return what a client in hold mode had received when the reply was stopped."""
        session = Guard(self._cascade, self._decoder).session(item.before, _HOLD)
        released: list[str] = []
        for delta, heard in deltas:
            step = drive(session.feed(Lane(), delta, heard), answer)
            if isinstance(step, Block):
                break
            released.append(step.text)
        else:
            ends = drive(session.finish(), answer)
            released += [step.text for _, step in ends if isinstance(step, Cleared)]
        return "".join(released)


def _recorder(cascade: Cascade, *, prompt: Thresholds, reply: Thresholds) -> _Recorder:
    return _Recorder(
        digest=cascade.digest,
        stage1=cascade.stage1,
        has_stage2=cascade.has_stage2,
        prompt=prompt,
        reply=reply,
        rules=cascade.rules,
        probe=cascade.probe,
        doubt_at=cascade.prompt.block,
    )


def _open(surface: Thresholds) -> Thresholds:
    return msgspec.structs.replace(surface, block=_NEVER, alone=_NEVER)


def _finite(logit: float) -> float | None:
    return logit if math.isfinite(logit) else None


def _no_stage2(request: Escalation) -> Answer:
    del request
    return Failed(reason="NoStage2")
