"""Datasets without a part."""

import pytest

from safehold.constitution import load
from safehold.errors import DataError
from safehold.exchange import user_says
from safehold.improve.synthesis.interface import Example, Lineage, Side, Split
from safehold.improve.training.ablation_parts import without_hard_negatives

CONSTITUTION = load("homebrewing")


def example(name: str, side: Side, clause: str, split: Split = Split.TRAIN) -> Example:
    """An example of a clause."""
    return Example(
        id=name,
        family=name,
        split=split,
        side=side,
        clause=clause,
        exchange=user_says("a"),
        reply="b",
        ask=True,
        lineage=Lineage(constitution="c", generator="g", seed=1, chain=()),
    )


BEER = example("beer", Side.RESTRICTED, "beer-production")
BREAD = example("bread", Side.PERMITTED, "bread-and-baking")
CHAT = example("chat", Side.PERMITTED, "general")


def test_only_neighbours_in_training_are_left_out() -> None:
    """Restricted, general and held-out examples stay, so thresholds mean the same."""
    held_out = example("held", Side.PERMITTED, "bread-and-baking", Split.CALIBRATE)
    kept = without_hard_negatives([BEER, BREAD, CHAT, held_out], CONSTITUTION)
    assert kept == [BEER, CHAT, held_out]


def test_nothing_to_leave_out_is_an_error() -> None:
    """An ablation that changes nothing would be a false comparison."""
    with pytest.raises(DataError, match="no hard negatives"):
        without_hard_negatives([BEER, CHAT], CONSTITUTION)


def test_nothing_permitted_left_is_an_error() -> None:
    """A guard can't be trained on one side alone."""
    with pytest.raises(DataError, match="nothing permitted"):
        without_hard_negatives([BEER, BREAD], CONSTITUTION)
