"""Replies through real sessions with their probe's logits, and what the cascade decided by."""

from collections.abc import Callable

import msgspec

from safehold.exchange import Exchange, Lane
from safehold.guard.interface import Block, DeliveryMode, Escalation
from safehold.guard.scorers.interface import ActivationScorer
from safehold.guard.served.interface import ServedModel
from safehold.guard.served.turns import said
from safehold.guard.session.cascade import Cascade, TextKind, Thresholds
from safehold.guard.session.drivers import Answer, drive
from safehold.guard.session.session import Guard, SessionPolicy, TextDecoder

_LOW = -1e9


class Triple(msgspec.Struct, frozen=True):
    """The logits of one escalation: stage 1, stage 2 and the probe."""

    stage1: float
    stage2: float
    probe: float


class Decided(msgspec.Struct, frozen=True):
    """What a streamed reply was decided by; `stage1` is its highest stage-1 logit."""

    triples: tuple[Triple, ...]
    stage1: float

    @property
    def hottest(self) -> Triple | None:
        """The escalation with the highest stage 2, None where nothing escalated."""
        return max(self.triples, key=lambda one: one.stage2, default=None)


class HeardReply(msgspec.Struct, frozen=True):
    """A reply cut into the model's tokens, each with what a probe heard of it."""

    pieces: tuple[str, ...]
    logits: tuple[float, ...]

    def highest(self, probe: ActivationScorer) -> float:
        """Return the probe's running maximum at the end of the reply."""
        return probe.open_reply().feed(self.logits)


class _ProbeRecording(Cascade, frozen=True):
    """A cascade that never blocks and keeps the logits it is asked about."""

    kept: list[Triple] = msgspec.field(default_factory=list)

    def ensemble(
        self,
        surface: Thresholds,
        stage1: float,
        stage2: float,
        probe: float | None = None,
        kind: TextKind = TextKind.REQUEST,
    ) -> float:
        """Keep the logits; answer with one that blocks nothing."""
        del surface, kind
        self.kept.append(Triple(stage1, stage2, 0.0 if probe is None else probe))
        return _LOW


def hear(
    served: ServedModel, probe: ActivationScorer, exchange: Exchange, reply: str, prompt_chars: int
) -> HeardReply:
    """Return a reply as the model reads it after the end of each of the exchange's texts."""
    before = said(exchange, last_chars=prompt_chars)
    reading = served.read(before, reply, probe.layers)
    return HeardReply(reading.pieces, probe.logits(reading.activations))


def decided_by(
    cascade: Cascade,
    decoder: TextDecoder,
    answer: Callable[[Escalation], Answer],
    exchange: Exchange,
    heard: HeardReply,
) -> Decided:
    """Return the logits of every escalation of a streamed reply; nothing is blocked."""
    recording = _ProbeRecording(
        digest=cascade.digest,
        stage1=cascade.stage1,
        has_stage2=cascade.has_stage2,
        prompt=cascade.prompt,
        reply=msgspec.structs.replace(cascade.reply, block=-_LOW, alone=-_LOW),
        probe=cascade.probe,
    )
    session = Guard(recording, decoder).session(exchange, SessionPolicy(mode=DeliveryMode.AUDIT))
    for piece, logit in zip(heard.pieces, heard.logits, strict=True):
        drive(session.feed(Lane(), piece, (logit,)), answer)
    drive(session.finish(), answer)
    return Decided(tuple(recording.kept), session.stage1_logits[1])


def stopped(
    guard: Guard, answer: Callable[[Escalation], Answer], exchange: Exchange, heard: HeardReply
) -> bool:
    """Say whether the guard stops a streamed reply, as a gateway would serve it."""
    session = guard.session(exchange, SessionPolicy())
    for piece, logit in zip(heard.pieces, heard.logits, strict=True):
        if isinstance(drive(session.feed(Lane(), piece, (logit,)), answer), Block):
            return True
    return any(isinstance(step, Block) for _, step in drive(session.finish(), answer))
