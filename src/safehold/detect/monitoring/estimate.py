"""What is missed: an honest interval for recall when positives are rare.

Exchanges are put into strata by slow score and by whether the guard caught them; a random sample
of each is read. Each stratum's share of positives has an exact law (Clopper and Pearson 1934); the
laws are combined by Monte Carlo (fiducial draws), so that a stratum in which nothing was found
still counts with the most that it may hide. Sampling in proportion to a score with bootstrap
intervals is not offered: it covered the truth in 14 to 81 of 100 simulated runs.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from safehold.errors import UsageError
from safehold.stats import lower_bound, upper_bound

_DRAWS = 4_000
_Floats = npt.NDArray[np.float64]


class Stratum(msgspec.Struct, frozen=True, kw_only=True):
    """Exchanges of one band: how many there are, how many were read, how many were positive.

    `above_floor`: the band lies above the slow scorer's floor. Which were read must have been
    drawn at random, before anybody looked.
    """

    caught: bool
    above_floor: bool
    size: int
    read: int
    positives: int


class Reviewers(msgspec.Struct, frozen=True, kw_only=True):
    """How reviewers did on gold items: positives found of all, negatives cleared of all."""

    found: int
    positives: int
    cleared: int
    negatives: int


class ReadSample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sample that people have read, as a file: its strata, and the reviewers' own errors."""

    strata: tuple[Stratum, ...]
    reviewers: Reviewers | None = None


class Recall(msgspec.Struct, frozen=True, kw_only=True):
    """Recall with its two-sided 95 % interval and n; `point` is None: no positive was seen."""

    point: float | None
    lower: float
    upper: float
    n: int


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """The three figures: recall above the floor, of all, and the most that can be unseen."""

    above_floor: Recall
    absolute: Recall
    unseen_at_most: float
    unseen_read: int
    unseen_found: int


def missed(strata: Sequence[Stratum], *, seed: int, reviewers: Reviewers | None = None) -> Missed:
    """Estimate what the guard misses; `unseen_at_most` is a share of what lies below the floor.

    Raises:
        UsageError: a stratum's counts are impossible.
    """
    for one in strata:
        if not 0 <= one.positives <= one.read <= one.size:
            raise UsageError("a stratum needs 0 <= positives <= read <= size")
    below = [one for one in strata if not one.above_floor and not one.caught]
    found, read = sum(one.positives for one in below), sum(one.read for one in below)
    # Bands may be unlike each other: the worst band's bound holds for all of them together. A
    # positive that reviewers overlook is unseen too; then the error is shared out in two halves.
    error, seen = (0.05, 1.0) if reviewers is None else (0.025, _least_found(reviewers))
    shares = [
        min(1.0, upper_bound(one.positives, one.read, 1 - error / len(below)) / seen)
        if seen
        else 1.0
        for one in below
    ]
    hidden = sum(share * one.size for share, one in zip(shares, below, strict=True))
    size = sum(one.size for one in below)
    return Missed(
        above_floor=_recall([one for one in strata if one.above_floor], seed, reviewers),
        absolute=_recall(strata, seed, reviewers),
        unseen_at_most=hidden / size if size else 0.0,
        unseen_read=read,
        unseen_found=found,
    )


def plan(*, prevalence: float, recall: float) -> int:
    """Return how many exchanges to read below the floor to show a recall if nothing is found.

    The rule of three: 3 r / ((1 - r) p).

    Raises:
        UsageError: a share is not between 0 and 1.
    """
    if not 0 < prevalence < 1 or not 0 < recall < 1:
        raise UsageError("expected a prevalence and a recall between 0 and 1")
    return math.ceil(3 * recall / ((1 - recall) * prevalence))


def _recall(strata: Sequence[Stratum], seed: int, reviewers: Reviewers | None) -> Recall:
    n = sum(one.read for one in strata)
    if not strata:
        return Recall(point=None, lower=0.0, upper=1.0, n=0)
    chance = np.random.default_rng(seed)
    low, high = _errors(chance, reviewers)
    erring = reviewers is not None
    ends = [_ends(chance, one, low, high, erring=erring) for one in strata]
    caught = np.array([one.caught for one in strata])
    least, most = np.stack([end[0] for end in ends]), np.stack([end[1] for end in ends])
    lowest = _ratio(least[caught].sum(0), most[~caught].sum(0))
    highest = _ratio(most[caught].sum(0), least[~caught].sum(0))
    scaled = [_scaled(one, reviewers) for one in strata]
    total = sum(scaled)
    right = sum(value for value, one in zip(scaled, strata, strict=True) if one.caught)
    seen = any(one.positives for one in strata)
    return Recall(
        point=right / total if total else None,
        lower=float(np.quantile(lowest, 0.025)) if seen else 0.0,
        upper=float(np.quantile(highest, 0.975)) if seen else 1.0,
        n=n,
    )


def _least_found(reviewers: Reviewers) -> float:
    """Return the exact lower bound (one-sided 97.5 %) of the share of positives that they find."""
    return lower_bound(reviewers.found, reviewers.positives, 0.975)


def _errors(
    chance: np.random.Generator, reviewers: Reviewers | None
) -> tuple[tuple[_Floats, _Floats], tuple[_Floats, _Floats]]:
    """Draw (sensitivity, specificity) for the least and for the most positives that fit.

    The least fits where reviewers find much and clear little, the most where it is the other way
    round; each end takes the side of the exact law that widens it.
    """
    sure = np.ones(_DRAWS)
    if reviewers is None:
        return (sure, sure), (sure, sure)
    find = _law(chance, reviewers.found, reviewers.positives)
    clear = _law(chance, reviewers.cleared, reviewers.negatives)
    return (find[1], clear[0]), (find[0], clear[1])


def _law(chance: np.random.Generator, k: int, n: int) -> tuple[_Floats, _Floats]:
    """Draw the lower and the upper law of a share (Clopper and Pearson)."""
    least = chance.beta(k, n - k + 1, _DRAWS) if k else np.zeros(_DRAWS)
    most = chance.beta(k + 1, n - k, _DRAWS) if k < n else np.ones(_DRAWS)
    return least, most


def _ends(
    chance: np.random.Generator,
    one: Stratum,
    low: tuple[_Floats, _Floats],
    high: tuple[_Floats, _Floats],
    *,
    erring: bool,
) -> tuple[_Floats, _Floats]:
    """Draw the least and the most positives that the stratum may hold.

    A stratum that was read whole by people who never err leaves no doubt.
    """
    if one.read == one.size and not erring:
        known = np.full(_DRAWS, float(one.positives))
        return known, known
    least, most = _law(chance, one.positives, one.read)
    return _corrected(least, *low) * one.size, _corrected(most, *high) * one.size


def _corrected(share: _Floats, sensitivity: _Floats, specificity: _Floats) -> _Floats:
    """Undo the reviewers' own errors (Rogan and Gladen, Am. J. Epidemiology 107 (1978) 71-76)."""
    useful = np.maximum(sensitivity + specificity - 1, 1e-3)
    return np.clip((share + specificity - 1) / useful, 0.0, 1.0)


def _scaled(one: Stratum, reviewers: Reviewers | None) -> float:
    """Return the stratum's positives by the best guess: scaled up, the errors undone."""
    if not one.read:
        return 0.0
    share = one.positives / one.read
    if reviewers is not None:
        find = reviewers.found / reviewers.positives if reviewers.positives else 1.0
        clear = reviewers.cleared / reviewers.negatives if reviewers.negatives else 1.0
        share = float(_corrected(np.array([share]), np.array([find]), np.array([clear]))[0])
    return share * one.size


def _ratio(caught: _Floats, missing: _Floats) -> _Floats:
    total = caught + missing
    return np.divide(caught, total, out=np.zeros_like(total), where=total > 0)
