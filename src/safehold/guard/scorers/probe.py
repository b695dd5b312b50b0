"""A linear probe on the served model's activations.

Each token's logit is one dot product; the score is its sliding window mean over `WINDOW` tokens
(SWiM, Constitutional Classifiers++, arXiv 2601.04603, section 5.1), of which the session keeps the
running maximum. A window that is not full yet is divided by at least `floor` tokens, so one spike
is never enough. The weights are bound to one model: a bundle with a probe names its digest.
"""

import hashlib
import math
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from safehold.errors import ScorerError
from safehold.guard.scorers.interface import Activations

_MATRIX = 2
"""Dimensions of an array of tokens by features."""

WINDOW: Final = 16
"""Length of the sliding window, in tokens of the served model."""

Weights = npt.NDArray[np.float32]


class ProbeHead(msgspec.Struct, frozen=True):
    """The numbers of a probe.

    `weights` [layers x width] and `shift` give a token's logit; `bias` is added to a window's mean;
    `floor` is the least divisor of a window that is not full yet.
    """

    weights: Weights
    shift: float
    bias: float
    floor: int


class LinearProbe:
    """An activation scorer; immutable, shared by all sessions."""

    def __init__(self, name: str, head: ProbeHead, layers: tuple[int, ...], clause: str) -> None:
        """Take the head, the hidden states it reads, and the clause that it reports alone."""
        self.name = name
        self.layers = layers
        self.clause = clause
        self.head = head

    @property
    def id(self) -> str:
        """A digest of what gives a token its logit: the weights, the shift and the layers."""
        numbers = np.asarray([self.head.shift, *self.layers], dtype="<f8").tobytes()
        return hashlib.sha256(self.head.weights.astype("<f4").tobytes() + numbers).hexdigest()

    def logits(self, activations: Activations) -> tuple[float, ...]:
        """Return each token's own logit.

        Raises:
            ScorerError: The rows have another width than the probe was trained on.
        """
        head = self.head
        if activations.ndim != _MATRIX or activations.shape[1] != len(head.weights):
            raise ScorerError("activations of another width than the probe's")
        return tuple((activations @ head.weights + head.shift).tolist())

    def open_reply(self) -> "ProbeLane":
        """Start scoring a lane of a reply."""
        return ProbeLane(self.head.bias, self.head.floor)


class ProbeLane:
    """One lane's running state: the last window's logits and their sum."""

    __slots__ = ("_bias", "_floor", "_sum", "_window")

    def __init__(self, bias: float, floor: int) -> None:
        self._bias = bias
        self._floor = floor
        self._window: deque[float] = deque(maxlen=WINDOW)
        self._sum = 0.0

    def feed(self, logits: Sequence[float]) -> float:
        """Take the next tokens' own logits; return the highest smoothed logit among them."""
        best = -math.inf
        window = self._window
        for logit in logits:
            if len(window) == WINDOW:
                self._sum -= window[0]
            window.append(logit)
            self._sum += logit
            best = max(best, self._sum / max(len(window), self._floor) + self._bias)
        return best
