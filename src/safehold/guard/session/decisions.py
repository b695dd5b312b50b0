"""What a score, a rule's hit or a scorer's failure means; shared by prompts and replies."""

import math
from typing import Protocol

import msgspec

from safehold.exchange import Lane
from safehold.guard.interface import Block, Failed, FailMode, SessionPolicy, Stage
from safehold.guard.scorers.rules import RuleHit
from safehold.guard.session.cascade import probability


class BlockPlace(Protocol):
    """Where in an exchange something was found, as a block names it."""

    @property
    def lane(self) -> Lane | None:
        """The lane of a reply; None in a prompt."""
        ...

    @property
    def scored(self) -> int:
        """Characters of the lane that had been scored."""
        ...

    @property
    def turn(self) -> int | None:
        """The turn of a prompt (-1: only the user's turns together); None in a reply."""
        ...


class InPrompt(msgspec.Struct, frozen=True):
    """A place in the prompt."""

    turn: int | None = None
    lane: Lane | None = None
    scored: int = 0


class Failures:
    """Applies the fail mode of each stage, and keeps what was let pass by name."""

    def __init__(self, policy: SessionPolicy) -> None:
        """Take the policy with the fail modes."""
        self._policy = policy
        self.bypasses: list[str] = []

    def failed(self, failure: Failed, stage: Stage, place: BlockPlace) -> Block | None:
        """Return the block that a broken scorer means; None where the policy bypasses it."""
        policy = self._policy
        mode = policy.fail_mode_stage1 if stage is Stage.STAGE1 else policy.fail_mode_stage2
        if mode is FailMode.BYPASS:
            self.bypasses.append(f"{stage}: {failure.reason}")
            return None
        return block_at("", math.inf, 0.0, Stage.FAIL_MODE, place)

    def finite(
        self, logit: float | Failed, stage: Stage, place: BlockPlace, *, empty_ok: bool = False
    ) -> float | Block:
        """Return a usable logit; a failure or nonsense goes to the fail mode."""
        if isinstance(logit, Failed):
            failure = logit
        elif math.isfinite(logit) or (empty_ok and logit == -math.inf):
            return logit
        else:
            failure = Failed(reason="NotFinite")
        stop = self.failed(failure, stage, place)
        return -math.inf if stop is None else stop


def block_at(clause: str, logit: float, threshold: float, stage: Stage, place: BlockPlace) -> Block:
    """Return the block of a score that passed its threshold."""
    return Block(
        clause=clause,
        score=probability(logit, threshold),
        stage=stage,
        lane=place.lane,
        offset=place.scored,
        turn=place.turn,
    )


def rule_block(hit: RuleHit, place: BlockPlace) -> Block:
    """Return the block of a written rule that matched."""
    return block_at(hit.rule.clause, math.inf, 0.0, Stage.RULE, place)
