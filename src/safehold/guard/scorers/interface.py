"""What the cascade asks of its scorers: they look, never decide, and have no side effects."""

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

Activations = npt.NDArray[np.float32]
"""What the served model thought: [tokens, layers x width], one row for each token it wrote."""


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


class ActivationLane(Protocol):
    """The state of one lane under an activation scorer; costs O(new tokens), memory O(1)."""

    def feed(self, logits: Sequence[float]) -> float:
        """Take the next tokens' own logits; return the highest smoothed logit among them."""
        ...


class ActivationScorer(Protocol):
    """Reads the served model's own activations.

    `logits` is applied where the activations are, in the model's process; its numbers, one for each
    token, arrive with the text that the tokens made and are fed to a lane.
    """

    @property
    def name(self) -> str:
        """The scorer's name inside its bundle."""
        ...

    @property
    def id(self) -> str:
        """A digest of all that gives a token its logit."""
        ...

    @property
    def layers(self) -> tuple[int, ...]:
        """The hidden states it reads: 0 is the embeddings', then one for each layer."""
        ...

    @property
    def clause(self) -> str:
        """The restricted clause that is reported where this scorer alone must name one."""
        ...

    def logits(self, activations: Activations) -> tuple[float, ...]:
        """Return each token's own logit.

        Raises:
            ScorerError: The rows have another width than the probe was trained on.
        """
        ...

    def open_reply(self) -> ActivationLane:
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
