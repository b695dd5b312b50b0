"""From generators to a dataset: base examples, families, splits, recipes, no near-duplicates."""

import itertools
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from safehold.errors import DataError
from safehold.improve.synthesis.families import Deduplicator, Nearness, leaks, merged
from safehold.improve.synthesis.interface import Example, Lineage, Side, Split
from safehold.improve.synthesis.phrasebook import Phrasebook
from safehold.improve.synthesis.recipes import RECIPES, Pool, Recipe, pool_of

SIZES = {"small": 1_800, "default": 27_500, "large": 32_000}
"""Examples aimed at, base ones included; base examples are never left out for size."""
_MADE = 0.3
"""Of the written examples so many more are made at least, but for the small size."""


def target_of(size: str, base: int, *, written: bool) -> int:
    """Return how many examples a size aims at, for so many base examples, written or answered.

    A book that grows would leave no room for what is made of it: then the size grows too. The
    package's general text comes on top of what a size is about where a model answered.
    """
    if not written:
        return SIZES[size] + base
    return max(SIZES[size], 0 if size == "small" else round((1 + _MADE) * base))


class ExampleCount(Protocol):
    """Is told how many examples there are so far."""

    def __call__(self, done: int, total: int) -> None:
        """Note the count and what it is expected to reach."""
        ...


class Built(msgspec.Struct, frozen=True):
    """A finished dataset and what was left out of it."""

    examples: tuple[Example, ...]
    base: int
    dropped: int


def build(
    base: Iterable[Example],
    *,
    phrases: Phrasebook,
    seed: int,
    target: int,
    progress: ExampleCount,
    nearness: Nearness | None = None,
    taught: Iterable[Example] = (),
) -> Built:
    """Split base examples by family and make more of them; equal inputs give equal bytes.

    `taught` are examples of the training split that are taken as they are.

    Raises:
        DataError: A split lacks what recipes need: more base examples are wanted.
    """
    near = nearness or Nearness()
    first = Deduplicator(near.same, fold_case=True)
    ground = merged(sorted(first.filter(base), key=lambda example: example.id), near)
    pools = {split: _pool(ground, split, phrases) for split in Split}
    second = Deduplicator(near.same_rewritten, fold_case=False)
    wanted = max(target - len(ground), 0)
    made: list[Example] = []
    for example in second.filter(itertools.chain(_all(ground, pools, seed, wanted), taught)):
        made.append(example)
        if len(made) % 100 == 0:
            progress(len(made), len(ground) + wanted)
    progress(len(made), len(made))
    leaked = leaks(made)
    if leaked:
        raise DataError(f"{len(leaked)} families stand in two splits, such as {leaked[0]}")
    random.Random(seed).shuffle(made)
    return Built(tuple(made), base=len(ground), dropped=first.dropped + second.dropped)


def _pool(ground: Sequence[Example], split: Split, phrases: Phrasebook) -> Pool:
    pool = pool_of(ground, split, phrases)
    if not pool.replies:
        raise DataError(
            f"the {split} split needs permitted replies to make more from; "
            f"{len(ground)} base examples are too few"
        )
    return pool


def _all(
    ground: Sequence[Example], pools: dict[Split, Pool], seed: int, wanted: int
) -> Iterator[Example]:
    yield from ground
    total = sum(recipe.restricted + recipe.permitted for recipe in RECIPES)
    for recipe in RECIPES:
        for side, weight in (
            (Side.RESTRICTED, recipe.restricted),
            (Side.PERMITTED, recipe.permitted),
        ):
            parents = [one for one in ground if one.side is side and recipe.fits(one)]
            count = math.floor(wanted * weight / total) if parents else 0
            random.Random(f"{seed}/{recipe.name}/{side}").shuffle(parents)
            for number in range(count):
                parent = parents[number % len(parents)]
                yield _child(recipe, parent, pools[parent.split], seed, number // len(parents))


def _child(recipe: Recipe, parent: Example, pool: Pool, seed: int, turn: int) -> Example:
    rng = random.Random(f"{seed}/{recipe.name}/{parent.id}/{turn}")
    made = recipe.make(parent, pool, rng)
    return Example(
        id=f"{parent.id}~{recipe.name}-{turn}",
        family=parent.family,
        split=parent.split,
        side=parent.side,
        clause=parent.clause,
        exchange=made.exchange,
        reply=made.reply,
        ask=parent.ask if made.ask is None else made.ask,
        lineage=Lineage(
            constitution=parent.lineage.constitution,
            generator=parent.lineage.generator,
            seed=seed,
            parent=parent.id,
            chain=(*parent.lineage.chain, recipe.name, *made.chain),
        ),
        stage=parent.stage,
        language=parent.language,
    )
