"""What the cascade asks of its scorers: they look, never decide, and have no side effects."""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class LaneScore(Protocol):
    """The state of one lane under a stream scorer; costs O(new text), memory O(1)."""

    def feed(self, tokens: Sequence[str]) -> float:
        """Score the next tokens; return the highest smoothed logit among them."""
        ...

    def attribution(self) -> str:
        """Name the restricted clause that the evidence so far fits best."""
        ...


class StreamScorer(Protocol):
    """Stage 1: cheap, on all traffic, carried forward token by token."""

    @property
    def name(self) -> str:
        """The scorer's name inside its bundle."""
        ...

    def open_prompt(self) -> LaneScore:
        """Start scoring prompt text."""
        ...

    def open_reply(self) -> LaneScore:
        """Start scoring a lane of a reply."""
        ...


class ScoringInput(msgspec.Struct, frozen=True):
    """What stage 2 reads: the prompt with its history as text, and the reply so far.

    An empty reply asks for the score of the prompt itself.
    """

    prompt: str
    reply: str


class ExchangeScore(msgspec.Struct, frozen=True):
    """Stage 2's answer: a logit, and the restricted clause that fits best."""

    logit: float
    clause: str


class ExchangeScorer(Protocol):
    """Stage 2: stronger, on escalated traffic only, in batches."""

    @property
    def name(self) -> str:
        """The scorer's name inside its bundle."""
        ...

    def score(self, batch: Sequence[ScoringInput]) -> list[ExchangeScore]:
        """Score every input of a batch, in order.

        Raises:
            ScorerError: The scorer broke or its answer is not finite.
        """
        ...
