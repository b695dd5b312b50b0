"""The cascade: stage 1 on everything, stage 2 on what stage 1 escalates, one decision from both.

Escalating is not refusing: a logit above `escalate` only asks stage 2. The decision is an ensemble
of both logits (Constitutional Classifiers++, arXiv 2601.04603: probe and classifier err
differently), its weights fitted on validation data. This class decides and does nothing else.
"""

import math
from enum import StrEnum

import msgspec

from safehold.errors import BundleError
from safehold.guard.scorers.interface import ActivationScorer, StreamScorer
from safehold.guard.scorers.rules import RuleSet

_AGREED = 2
"""What was read twice, or behind another's text, has this share of a part's margin."""


class TextKind(StrEnum):
    """What stage 2 was shown: the last request, an earlier turn, a part, joined turns, an answer.

    A prompt has one last request and may have very many of the others, and each is one more chance
    to be wrong; joined turns are said by nobody. What the assistant answered, whole or in part,
    asks for nothing: it counts apart, so that no other text of a conversation pays for it. A
    sentence inside the last request that was read with what is around it too needs less than a
    part: two readings agree. So does a short last request behind the end of a system's message or a
    tool's result.
    """

    REQUEST = "request"
    EARLIER = "earlier"
    PART = "part"
    JOINED = "joined"
    ANSWER = "answer"
    INSIDE = "inside"
    BEHIND = "behind"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The operating point of one surface (prompt or reply); all values are logits.

    `escalate`: stage 1 at or above asks stage 2. `weights` = (stage 1, stage 2, constant) of the
    ensemble; `block`: the ensemble at or above blocks. `alone`: stage 1 at or above blocks where
    the bundle has no stage 2. `earlier`, `part`, `joined` and `answer` are what stage 2's logit of
    such a text of a prompt counts less than that of its last request (a bundle without `answer` was
    calibrated when an answer counted as a part); `joined` of a reply, what that of a reply behind
    earlier answers counts less than that of the reply alone.
    """

    escalate: float
    weights: tuple[float, float, float]
    block: float
    alone: float
    earlier: float = 0.0
    part: float = 2.0
    joined: float = 2.0
    answer: float | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that can't order anything.

        Raises:
            BundleError: A threshold or weight is not finite.
        """
        own = (self.earlier, self.part, self.joined, self.answer or 0.0)
        values = (self.escalate, self.block, self.alone, *self.weights, *own)
        if not all(math.isfinite(value) for value in values):
            raise BundleError("thresholds must be finite numbers")

    def margin(self, kind: TextKind) -> float:
        """Return what stage 2's logit of a text of that kind counts less."""
        match kind:
            case TextKind.REQUEST:
                return 0.0
            case TextKind.EARLIER:
                return self.earlier
            case TextKind.PART:
                return self.part
            case TextKind.JOINED:
                return self.joined
            case TextKind.ANSWER:
                return self.part if self.answer is None else self.answer
            case TextKind.INSIDE | TextKind.BEHIND:
                return self.part / _AGREED


class Probed(msgspec.Struct, frozen=True):
    """A probe in its place: it reads the served model beside stage 1, on every token of replies.

    `escalate`: the probe at or above asks stage 2, whatever stage 1 says; `weight` is the probe's
    share of the deciding logit, beside the weights of the reply's thresholds.
    """

    scorer: ActivationScorer
    escalate: float
    weight: float


class Cascade(msgspec.Struct, frozen=True):
    """The scorers and operating points of one guard; everything in it comes from one bundle."""

    digest: str
    stage1: StreamScorer | None
    has_stage2: bool
    prompt: Thresholds
    reply: Thresholds
    rules: RuleSet | None = None
    probe: Probed | None = None

    def __post_init__(self) -> None:
        """Refuse a cascade that would look at nothing.

        Raises:
            BundleError: There is neither a stage 1 nor a rule, a stage 2 without a stage 1, or a
                probe without both.
        """
        if self.stage1 is None and (self.rules is None or self.has_stage2):
            raise BundleError("a guard needs a stage 1 or rules; none is not 'allow'")
        if self.probe is not None and not self.has_stage2:
            raise BundleError("a probe decides together with both text stages; one is missing")

    def ensemble(
        self,
        surface: Thresholds,
        stage1: float,
        stage2: float,
        probe: float | None = None,
        kind: TextKind = TextKind.REQUEST,
    ) -> float:
        """Return the final logit of both stages, and of the probe where one read the text."""
        first, second, constant = surface.weights
        heard = 0.0 if probe is None or self.probe is None else self.probe.weight * probe
        return first * stage1 + second * (stage2 - surface.margin(kind)) + heard + constant

    def doubts(self, surface: Thresholds, stage1: float, stage2: float) -> bool:
        """Return whether a text of a last request would be stopped if it were the request."""
        return Cascade.ensemble(self, surface, stage1, stage2) >= surface.block

    def score(self, surface: Thresholds, logit: float) -> float:
        """Return a deciding logit as a score in [0, 1]; 0 where nothing was decided."""
        if logit == -math.inf:
            return 0.0
        return probability(logit, surface.block if self.has_stage2 else surface.alone)


def probability(logit: float, threshold: float) -> float:
    """Return a score in [0, 1] that is 0.5 at the threshold; for rows and reports."""
    return 1.0 / (1.0 + math.exp(-max(-40.0, min(40.0, logit - threshold))))
