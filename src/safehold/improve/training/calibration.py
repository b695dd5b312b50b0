"""Thresholds from held-out benign scores, with a guarantee.

The Neyman-Pearson umbrella rule: of n benign scores take the k-th smallest as the threshold, with
the least k for which the chance that the false-positive rate exceeds alpha is at most delta
(Tong, Feng, Li, Science Advances 4 (2018) eaao1659, proposition 1).
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from safehold.errors import DataError

_CONVERGED = 1e-8


class Threshold(msgspec.Struct, frozen=True):
    """A threshold, and the rank (of `n` benign scores in ascending order) it was taken from."""

    value: float
    rank: int
    n: int


def violation(rank: int, n: int, alpha: float) -> float:
    """Return the chance that the rank-th smallest of n scores has a false-positive rate > alpha."""
    log_q, log_p = math.log1p(-alpha), math.log(alpha)
    return math.fsum(
        math.exp(
            math.lgamma(n + 1)
            - math.lgamma(j + 1)
            - math.lgamma(n - j + 1)
            + j * log_q
            + (n - j) * log_p
        )
        for j in range(rank, n + 1)
    )


def refuse_too_few(n: int, alpha: float, delta: float, what: str) -> None:
    """Refuse so few benign scores that no threshold gives the guarantee.

    Raises:
        DataError: There are too few; `what` says of which texts.
    """
    if n == 0 or violation(n, n, alpha) > delta:
        needed = math.ceil(math.log(delta) / math.log1p(-alpha))
        raise DataError(f"a {alpha:.2%} bound needs {needed} {what}, got {n}")


def umbrella_threshold(benign: Sequence[float], alpha: float, delta: float) -> Threshold:
    """Return the lowest threshold whose false-positive rate is at most alpha but for chance delta.

    A score must exceed the threshold to count as positive.

    Raises:
        DataError: There are too few benign scores for any threshold to give the guarantee.
    """
    scores = np.sort(np.asarray(benign, dtype=np.float64))
    n = len(scores)
    refuse_too_few(n, alpha, delta, "benign calibration examples")
    low, high = 1, n
    while low < high:
        middle = (low + high) // 2
        if violation(middle, n, alpha) <= delta:
            high = middle
        else:
            low = middle + 1
    return Threshold(value=float(scores[low - 1]), rank=low, n=n)


def fit_ensemble(
    stage1: Sequence[float], stage2: Sequence[float], restricted: Sequence[bool]
) -> tuple[float, float, float]:
    """Return the weights (stage 1, stage 2, constant) of the logistic ensemble of two logits.

    Newton's method with a small ridge; weights are kept non-negative, since a scorer that is better
    turned round is broken, not informative. Where only one side is there (stage 1 alone told them
    apart), nothing can be fitted, and both logits count alike.
    """
    if len(set(restricted)) < len((False, True)):
        return 0.5, 0.5, 0.0
    first, second = np.asarray(stage1), np.asarray(stage2)
    label = np.asarray(restricted, dtype=np.float64)
    weights = _logistic(np.stack([first, second, np.ones_like(first)], axis=1), label)
    if weights[0] < 0:
        weights = np.array(
            [0.0, *_logistic(np.stack([second, np.ones_like(second)], axis=1), label)]
        )
    return float(weights[0]), float(max(weights[1], 0.0)), float(weights[2])


def fit_logistic(
    features: Sequence[Sequence[float]], restricted: Sequence[bool]
) -> tuple[float, ...]:
    """Return the weights of a logistic fit, one for each feature and a constant last."""
    rows = np.asarray(features, dtype=np.float64)
    label = np.asarray(restricted, dtype=np.float64)
    fitted = _logistic(np.concatenate([rows, np.ones((len(rows), 1))], axis=1), label)
    return tuple(float(weight) for weight in fitted)


def _logistic(
    features: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    label: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    balance = np.where(
        label > 0, len(label) / (2 * label.sum()), len(label) / (2 * (1 - label).sum())
    )
    weights = np.zeros(features.shape[1])
    for _ in range(50):
        probability = 1 / (1 + np.exp(-np.clip(features @ weights, -30, 30)))
        gradient = features.T @ (balance * (probability - label)) + 1e-2 * weights
        curvature = features.T @ (features * (balance * probability * (1 - probability))[:, None])
        step = np.linalg.solve(curvature + 1e-2 * np.eye(len(weights)), gradient)
        weights -= step
        if float(np.abs(step).max()) < _CONVERGED:
            break
    return weights
