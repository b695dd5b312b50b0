"""Does the interval for what is missed cover the truth, in three worlds and with erring reviewers?

A world has 100,000 exchanges, 2 in 1,000 positive, and a guard that stops nine of ten of them. A
slow scorer is good, fair, or fair and mis-calibrated: its values are shifted, and so is its floor.
Each seed draws a sample, 150 or 600 of each stratum, and reviewers judge it. Erring ones find 90 %
of positives and clear 98 % of the rest; how well they do is itself known from 100 gold items only.
`python -m bench --only recall` prints, of 100 seeds, how many intervals held the truth.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from bench.tables import Table

from safehold.detect.monitoring.estimate import Missed, Reviewers, Stratum, missed
from safehold.stats import lower_bound

SIZE, PREVALENCE, RECALL = 100_000, 2e-3, 0.9
EDGES = np.array([-4, -2.5, -1, 0.5, 2.0])
FLOOR = 3
WORLDS: dict[str, tuple[float, float]] = {
    "good": (4.0, 0.0),
    "fair": (1.0, 0.0),
    "fair, mis-calibrated": (1.0, 2.0),
}
"""Mean value of a positive (others: -6), and by how much every value is shifted."""
SENSITIVITY, SPECIFICITY, GOLD = 0.9, 0.98, 50
SEEDS = 100
LEAST = 93


class World(msgspec.Struct, frozen=True):
    """Which exchanges are positive, who is in which stratum, and the true figures."""

    positive: npt.NDArray[np.bool_]
    members: tuple[npt.NDArray[np.int64], ...]
    strata: tuple[Stratum, ...]
    above: float
    absolute: float
    below: float
    """Share of positives among what was served below the floor."""


class Covered(msgspec.Struct, frozen=True):
    """Of so many seeds, how often each of the three figures held the truth, and how wide."""

    above: int
    absolute: int
    unseen: int
    n: int
    lower: float
    upper: float


def world(mu: float, shift: float, *, seed: int = 5) -> World:
    """Make a world."""
    chance = np.random.default_rng(seed)
    positive = chance.random(SIZE) < PREVALENCE
    score = np.where(positive, chance.normal(mu, 2.0, SIZE), chance.normal(-6, 1.5, SIZE))
    stopped = score > chance.normal(0.5, 1, SIZE)
    caught = np.where(positive, chance.random(SIZE) > 1 - RECALL, stopped)
    key = np.digitize(score - shift, EDGES) * 2 + caught
    keys = np.unique(key)
    above = np.digitize(score - shift, EDGES) >= FLOOR
    hidden = ~above & ~caught
    return World(
        positive=positive,
        members=tuple(np.flatnonzero(key == one) for one in keys),
        strata=tuple(
            Stratum(
                caught=bool(one % 2),
                above_floor=bool(one // 2 >= FLOOR),
                size=int((key == one).sum()),
                read=0,
                positives=0,
            )
            for one in keys
        ),
        above=float((positive & caught & above).sum() / (positive & above).sum()),
        absolute=float((positive & caught).sum() / positive.sum()),
        below=float((positive & hidden).sum() / hidden.sum()),
    )


def judged(made: World, chance: np.random.Generator, *, each: int, erring: bool) -> list[Stratum]:
    """Draw so many of each stratum and let reviewers judge them."""
    found = []
    for one, members in zip(made.strata, made.members, strict=True):
        read = min(each, one.size)
        true = int(made.positive[chance.choice(members, read, replace=False)].sum())
        said = true
        if erring:
            wrong = chance.binomial(read - true, 1 - SPECIFICITY)
            said = int(chance.binomial(true, SENSITIVITY) + wrong)
        found.append(msgspec.structs.replace(one, read=read, positives=said))
    return found


def gold(chance: np.random.Generator) -> Reviewers:
    """Let erring reviewers judge gold items."""
    return Reviewers(
        found=int(chance.binomial(GOLD, SENSITIVITY)),
        positives=GOLD,
        cleared=int(chance.binomial(GOLD, SPECIFICITY)),
        negatives=GOLD,
    )


def covered(made: World, *, each: int, erring: bool, seeds: int) -> Covered:
    """Count over seeds how often the truth lay inside."""
    done: list[Missed] = []
    for seed in range(seeds):
        chance = np.random.default_rng((seed, each, erring))
        read = judged(made, chance, each=each, erring=erring)
        done.append(missed(read, seed=seed, reviewers=gold(chance) if erring else None))
    return Covered(
        above=sum(one.above_floor.lower <= made.above <= one.above_floor.upper for one in done),
        absolute=sum(one.absolute.lower <= made.absolute <= one.absolute.upper for one in done),
        unseen=sum(made.below <= one.unseen_at_most for one in done),
        n=done[0].absolute.n,
        lower=float(np.median([one.absolute.lower for one in done])),
        upper=float(np.median([one.absolute.upper for one in done])),
    )


def run(quick: bool) -> Sequence[Table]:  # noqa: FBT001 - the runner's call
    """Return the table of all worlds."""
    seeds = 20 if quick else SEEDS
    rows = []
    for name, (mu, shift) in WORLDS.items():
        made = world(mu, shift)
        for erring in (False, True):
            for each in (150, 600):
                one = covered(made, each=each, erring=erring, seeds=seeds)
                rows.append(
                    (
                        name,
                        "err" if erring else "sure",
                        f"{one.n:,}",
                        f"{one.above} of {seeds}",
                        f"{one.absolute} of {seeds}",
                        f"{one.unseen} of {seeds}",
                        f"{made.absolute:.3f}",
                        f"{one.lower:.3f} to {one.upper:.3f}",
                    )
                )
    columns = (
        "slow scorer", "reviewers", "read", "recall above the floor", "absolute recall",
        "unseen below", "true recall", "median interval",
    )  # fmt: skip
    least = f"{lower_bound(SEEDS, SEEDS):.3f}"
    note = (
        f"Each cell: seeds whose interval held the truth; {LEAST} of {SEEDS} are demanded. "
        f"{SEEDS} of {SEEDS} show a coverage of at least {least} (exact, one-sided 95 %)."
    )
    return [Table("Intervals that held the truth", columns, tuple(rows), note)]
