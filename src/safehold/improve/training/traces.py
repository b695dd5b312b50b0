"""Runs real guard sessions over labelled examples and keeps the logits they decided by."""

from collections.abc import Iterable

import msgspec

from safehold.exchange import Lane
from safehold.guard.interface import Block, DeliveryMode, Escalation, Failed, Verdict
from safehold.guard.scorers.interface import ExchangeScorer
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.cascade import Cascade, TextKind, Thresholds
from safehold.guard.session.drivers import Answer, drive
from safehold.guard.session.session import Guard, SessionPolicy, TextDecoder
from safehold.improve.synthesis.interface import Example, Side
from safehold.progress import Progress

_LOW = -1e9


class Trace(msgspec.Struct, frozen=True):
    """What a session saw of one example, on one surface.

    `pairs` are the logits (stage 1, stage 2) of every escalation, the second one less the margin of
    its kind; `kinds` are those kinds. `stage1` is the highest stage-1 logit.
    """

    restricted: bool
    prompt: bool
    pairs: tuple[tuple[float, float], ...]
    stage1: float
    kinds: tuple[TextKind, ...] = ()


class _Recording(Cascade, frozen=True):
    """A cascade that never blocks and keeps the logits it is asked about."""

    kept: list[tuple[float, float]] = msgspec.field(default_factory=list)
    kinds: list[TextKind] = msgspec.field(default_factory=list)

    def ensemble(
        self,
        surface: Thresholds,
        stage1: float,
        stage2: float,
        probe: float | None = None,
        kind: TextKind = TextKind.REQUEST,
    ) -> float:
        """Keep both logits; answer with one that blocks nothing."""
        del probe
        self.kept.append((stage1, stage2 - surface.margin(kind)))
        self.kinds.append(kind)
        return _LOW

    def doubts(self, surface: Thresholds, stage1: float, stage2: float) -> bool:
        """Doubt, so that everything that may be read is."""
        del surface, stage1, stage2
        return True

    def clear(self) -> None:
        """Forget what was kept."""
        self.kept.clear()
        self.kinds.clear()


def trace(
    cascade: Cascade,
    scorer: ExchangeScorer | None,
    decoder: TextDecoder,
    examples: Iterable[Example],
    progress: Progress,
) -> list[Trace]:
    """Return the traces of every example's prompt and reply, by the sessions that will serve.

    The cascade's escalation thresholds decide what stage 2 sees; nothing is blocked.
    """
    recording = _Recording(
        digest=cascade.digest,
        stage1=cascade.stage1,
        has_stage2=cascade.has_stage2,
        prompt=_never(cascade.prompt),
        reply=_never(cascade.reply),
    )
    guard = Guard(recording, decoder)
    answer = InlineStage2(scorer) if scorer is not None else _no_stage2
    policy = SessionPolicy(mode=DeliveryMode.AUDIT)
    traces = []
    for example in examples:
        session = guard.session(example.exchange, policy)
        restricted = example.side is Side.RESTRICTED
        recording.clear()
        drive(session.judge_prompt(), answer)
        if example.ask or not restricted:
            traces.append(_kept(restricted, recording, session.stage1_logits[0], prompt=True))
        if example.reply:
            recording.clear()
            drive(session.feed(Lane(), example.reply), answer)
            drive(session.finish(), answer)
            traces.append(_kept(restricted, recording, session.stage1_logits[1], prompt=False))
        progress.advance()
    return traces


def outcome(
    guard: Guard, scorer: ExchangeScorer | None, example: Example
) -> tuple[Verdict, Block | None, int]:
    """Serve one example as a gateway would; return prompt verdict, reply block, escalations."""
    answer = InlineStage2(scorer) if scorer is not None else _no_stage2
    session = guard.session(example.exchange, SessionPolicy())
    verdict = drive(session.judge_prompt(), answer)
    block: Block | None = None
    if example.reply:
        step = drive(session.feed(Lane(), example.reply), answer)
        if isinstance(step, Block):
            block = step
        else:
            ends = drive(session.finish(), answer)
            block = next((end for _, end in ends if isinstance(end, Block)), None)
    return verdict, block, session.report().escalations


def _kept(restricted: bool, kept: _Recording, stage1: float, *, prompt: bool) -> Trace:  # noqa: FBT001 - the label
    return Trace(restricted, prompt, tuple(kept.kept), stage1, tuple(kept.kinds))


def _never(surface: Thresholds) -> Thresholds:
    return msgspec.structs.replace(surface, block=-_LOW, alone=-_LOW)


def _no_stage2(request: Escalation) -> Answer:
    del request
    return Failed(reason="NoStage2")
