"""Workflows: which stages of a clause's workflow somebody was given, added up over a day.

The aim that is guarded against is an extended, end-to-end workflow. A single stage asked ten times
is one stage; five stages in five conversations are five. So what counts is the number of *distinct*
stages of one clause, whatever conversation, request or language they came in.
"""

from collections.abc import Collection, Mapping

import msgspec

_DAY_S = 86_400.0


class WorkflowScore(msgspec.Struct, frozen=True, kw_only=True):
    """The stages of one clause's workflow that were delivered, of how many it has.

    The clause is the one of which most stages were delivered; of two, that of which the larger
    share was. Without any stage the clause is "".
    """

    clause: str = ""
    stages: tuple[str, ...] = ()
    of: int = 0

    @property
    def share(self) -> float:
        """The share of the clause's stages, in [0, 1]."""
        return len(self.stages) / self.of if self.of else 0.0


class StageSeen(msgspec.Struct, frozen=True, kw_only=True):
    """When a stage was read last, in seconds since the epoch, and which decision brought it."""

    stage: str
    at: float
    decision_id: str


Workflows = Mapping[str, Collection[str]]
"""The stages of each restricted clause."""


def workflow_score(stages: Collection[str], workflows: Workflows) -> WorkflowScore:
    """Return how much of a clause's workflow these stages are."""
    scores = [
        WorkflowScore(clause=clause, stages=tuple(sorted(set(stages) & set(own))), of=len(set(own)))
        for clause, own in sorted(workflows.items())
    ]
    best = max(scores, key=lambda one: (len(one.stages), one.share), default=WorkflowScore())
    return best if best.stages else WorkflowScore()


def seen_within_day(
    before: Collection[StageSeen], found: Collection[str], *, at: float, decision_id: str
) -> tuple[StageSeen, ...]:
    """Return the stages of the last day, these ones added; each stage once, with its last time."""
    kept = {one.stage: one for one in before if 0 <= at - one.at <= _DAY_S}
    for stage in sorted(found):
        # What is read again behind other text was brought by the decision that said it first.
        brought = kept[stage].decision_id if stage in kept else decision_id
        kept[stage] = StageSeen(stage=stage, at=at, decision_id=brought)
    return tuple(kept.values())
