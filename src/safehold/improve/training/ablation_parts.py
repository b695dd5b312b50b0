"""Datasets without one of their parts, to see what the part is worth."""

from collections.abc import Sequence

from safehold.constitution import ClauseRole, Constitution
from safehold.errors import DataError
from safehold.improve.synthesis.interface import Example, Side, Split


def without_hard_negatives(
    examples: Sequence[Example], constitution: Constitution
) -> list[Example]:
    """Return the examples without the permitted neighbours of what is restricted, in training.

    Hard negatives are the permitted examples of clauses that are near a restricted one (bread and
    cheese beside beer). Calibration and test keep theirs, so that thresholds mean the same.

    Raises:
        DataError: The training split has no hard negatives, or nothing permitted without them.
    """
    near = {clause.id for clause in constitution.permitted if clause.role is ClauseRole.NEIGHBOUR}

    def hard(example: Example) -> bool:
        train, permitted = example.split is Split.TRAIN, example.side is Side.PERMITTED
        return train and permitted and example.clause in near

    kept = [example for example in examples if not hard(example)]
    if len(kept) == len(examples):
        raise DataError("the training split has no hard negatives to leave out")
    if not any(one.split is Split.TRAIN and one.side is Side.PERMITTED for one in kept):
        raise DataError("without its hard negatives the training split has nothing permitted")
    return kept
