"""The whole written dataset, built as it is for training."""

import pytest

from safehold.improve.synthesis.build import build
from safehold.improve.synthesis.families import Nearness, leaks, merged
from safehold.improve.synthesis.interface import Side, Split
from safehold.improve.synthesis.phrasebook import phrasebook
from safehold.improve.synthesis.written import WrittenGenerator

pytestmark = pytest.mark.soak


def _silent(done: int, total: int) -> None:
    del done, total


def test_no_text_of_the_whole_dataset_crosses_a_split() -> None:
    """No family and no near copy is in two splits, ids are unique, no split lacks a side."""
    written = list(WrittenGenerator("homebrewing", "c0ffee").generate(seed=3))
    target = len(written) * 3 // 2
    made = build(written, phrases=phrasebook(), seed=3, target=target, progress=_silent).examples
    assert leaks(made) == []
    assert len({one.id for one in made}) == len(made)
    assert {(one.split, one.side) for one in made} == {(s, side) for s in Split for side in Side}
    base = [one for one in made if "~" not in one.id]
    assert [one.split for one in merged(base, Nearness())] == [one.split for one in base]
