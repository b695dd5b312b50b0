"""Datasets without a part."""

from pathlib import Path

import msgspec
import pytest

from safehold.constitution import load
from safehold.errors import DataError
from safehold.exchange import user_says
from safehold.improve.synthesis.interface import Example, Lineage, Side, Split
from safehold.improve.training.ablation_parts import without_hard_negatives
from safehold.improve.training.train import Provenance, TrainingSettings, train
from safehold.progress import Progress

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


@pytest.mark.parametrize(
    ("side", "what", "changes"),
    [
        (Side.RESTRICTED, "reply", {"reply": ""}),
        (Side.RESTRICTED, "request", {"ask": False}),
        (Side.PERMITTED, "reply", {"reply": ""}),
    ],
)
def test_a_split_that_lacks_a_surface_is_refused_before_training(
    tmp_path: Path, side: Side, what: str, changes: dict[str, object]
) -> None:
    """Data without one side's requests or replies in a split is one line, not a traceback later."""

    def example(number: int, split: Split, of: Side) -> Example:
        made = Example(
            id=f"{split}-{of}-{number}", family=f"{split}-{of}-{number}", split=split, side=of,
            clause="c", exchange=user_says(f"request {number}"), reply=f"reply {number}",
            ask=of is Side.RESTRICTED, lineage=Lineage(constitution="c", generator="g", seed=1),
        )  # fmt: skip
        lacks = split is Split.CALIBRATE and of is side
        return msgspec.structs.replace(made, **changes) if lacks else made

    rows = [example(n, split, of) for n in range(3) for split in Split for of in Side]
    provenance = Provenance("b", "c", "0" * 64, "0" * 64, ("g",), ("c",), ("g",), "safehold train")
    with pytest.raises(DataError, match=f"calibrate split has no {side} {what}"):
        train(rows, provenance, TrainingSettings(), tmp_path / "b", None, Progress())
