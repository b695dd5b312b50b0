"""ROC, DET and what is read off them; ties count half, as chance would break them."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from safehold.improve.evaluation.interface import Score
from safehold.stats import Rate

Values = npt.NDArray[np.float64]
_Z95 = 1.6448536269514722
_FAR = 1e4
"""Distance between the bands of `rank`: far beyond any logit."""


def rank(score: Score, block: float, *, two_stages: bool) -> float:
    """Return a number that orders items as the cascade does; 0 is the operating point.

    What escalated is ordered by its ensemble logit and stands above all that did not, which is
    ordered by stage 1. What a written rule stopped stands above everything.
    """
    if score.blocked and score.stage is not None and score.stage.value in ("rule", "fail_mode"):
        return 2 * _FAR
    if not two_stages:
        return -2 * _FAR if score.stage1 is None else score.stage1 - block
    if score.final is not None:
        return max(-_FAR / 2, min(_FAR, score.final - block))
    if score.stage1 is None:
        return -3 * _FAR
    return -2 * _FAR + max(-_FAR, min(_FAR, score.stage1))


def auc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Return the chance that a positive ranks above a negative (Mann-Whitney)."""
    high, low = np.asarray(positives), np.sort(np.asarray(negatives))
    below = np.searchsorted(low, high, side="left")
    upto = np.searchsorted(low, high, side="right")
    return float((below + upto).sum() / (2 * len(high) * len(low)))


def auc_lower(value: float, positives: int, negatives: int) -> float:
    """Return the one-sided 95% bound of Hanley and McNeil, Radiology 143 (1982) 29-36."""
    first = value / (2 - value)
    second = 2 * value * value / (1 + value)
    variance = value * (1 - value)
    variance += (positives - 1) * (first - value * value)
    variance += (negatives - 1) * (second - value * value)
    return value - _Z95 * math.sqrt(max(0.0, variance / (positives * negatives)))


def tpr_at(positives: Sequence[float], negatives: Sequence[float], fpr: float) -> Rate | None:
    """Return the detection rate where at most a share `fpr` of the negatives is flagged.

    None where the negatives are too few for one of them to be that share.
    """
    if len(negatives) * fpr < 1:
        return None
    allowed = math.floor(len(negatives) * fpr)
    threshold = sorted(negatives, reverse=True)[allowed]
    return Rate(sum(value > threshold for value in positives), len(positives))


def roc(positives: Sequence[float], negatives: Sequence[float]) -> tuple[Values, Values]:
    """Return false-positive and true-positive rates at every distinct threshold, descending."""
    cuts = np.unique(np.concatenate([np.asarray(positives), np.asarray(negatives)]))[::-1]
    high, low = np.sort(np.asarray(positives)), np.sort(np.asarray(negatives))
    tpr = 1 - np.searchsorted(high, cuts, side="left") / len(high)
    fpr = 1 - np.searchsorted(low, cuts, side="left") / len(low)
    return fpr, tpr
