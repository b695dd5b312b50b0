"""What the parts of probe training pass to each other."""

from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from safehold.improve.evaluation.interface import Frequency

Weights = tuple[float, float, float, float]
"""The shares of stage 1, stage 2 and the probe in the deciding logit, and a constant."""


class ProbeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that a probe depends on beside the dataset, the base bundle and the model.

    `layers` empty means every hidden state. `limit`: most replies of the training split; of the
    others at most half as many. `stride`: training looks at every so many-th window
    (neighbouring windows share 15 of 16 tokens). `alpha`, `delta`, `escalate_recall` and
    `escalate_most` are as for a bundle (`TrainingSettings`), for replies. `tolerance` is how far,
    as a logit, a canary may stray.
    """

    seed: int = 20261125
    threads: int = 2
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    layers: tuple[int, ...] = ()
    limit: int = 1200
    reply_tokens: int = 320
    prompt_chars: int = 600
    stride: int = 8
    floor: int = 8
    epochs: int = 6
    batch: int = 32
    learning_rate: float = 1e-3
    decay: float = 3e-2
    alpha: float = 0.04
    delta: float = 0.05
    escalate_recall: float = 0.97
    escalate_most: float = 0.05
    canaries: int = 3
    tolerance: float = 0.25


class ReplyWindows(msgspec.Struct, frozen=True):
    """The windows of one reply: `sums` [windows, features] over their tokens, divided as served.

    `shares` [windows] is the number of tokens over the divisor: 1 for a full window.
    """

    sums: npt.NDArray[np.float16]
    shares: npt.NDArray[np.float32]
    restricted: bool


class Separated(msgspec.Struct, frozen=True):
    """How well one way of scoring tells restricted replies from permitted ones."""

    scorer: str
    n_restricted: int
    n_permitted: int
    auc: float
    auc_lower: float
    tpr_at_1_percent: Frequency | None


class TrainedProbe(msgspec.Struct, frozen=True):
    """The finished bundle's digest, the test split's figures, and what a token costs.

    `model_us` and `probe_us` are CPU microseconds for a token: the model's reading, and the probe's
    dot product with its smoothing.
    """

    digest: str
    model_digest: str
    layers: int
    features: int
    weights: Weights
    test: tuple[Separated, ...]
    blocked_restricted: Frequency
    blocked_permitted: Frequency
    model_us: float
    probe_us: float
