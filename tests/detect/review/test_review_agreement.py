"""Agreement equals the published examples."""

import math
import random

import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from safehold.detect.review.agreement import cohen_kappa, krippendorff_alpha


def test_kappa_equals_the_textbook_table() -> None:
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no give 0.4."""
    one = [1] * 25 + [0] * 25
    other = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert cohen_kappa(one, other) == pytest.approx(0.4)


def test_alpha_equals_krippendorffs_own_example() -> None:
    """Four observers, twelve units, gaps: 0.743 (Krippendorff 2011, section C)."""
    rows = (
        (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
        (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
        (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
        (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
    )
    units = [[v for v in unit if v is not None] for unit in zip(*rows, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_agreement_without_variety_is_undefined() -> None:
    """Everybody says the same of everything: no chance to agree beyond."""
    assert cohen_kappa([1, 1], [1, 1]) is None
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None
    assert cohen_kappa([], []) is None


def test_chance_verdicts_agree_by_chance() -> None:
    """Independent coins give values near nought."""
    chance = random.Random(1)
    one, other = ([chance.randrange(2) for _ in range(4_000)] for _ in range(2))
    assert abs(cohen_kappa(one, other) or 1) < 0.05
    assert abs(krippendorff_alpha(list(zip(one, other, strict=True))) or 1) < 0.05


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_kappa_equals_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    """On any verdicts of two people, undefined where theirs is."""
    one, other = zip(*pairs, strict=True)
    ours = cohen_kappa(one, other)
    if len(set(one) | set(other)) < 2:  # scikit-learn warns and answers NaN
        assert ours is None
        return
    theirs = cohen_kappa_score(one, other)
    assert (ours is None) == math.isnan(theirs)
    assert ours is None or ours == pytest.approx(theirs, abs=1e-12)


@given(
    st.lists(
        st.lists(st.sampled_from([0, 1, 2, math.nan]), min_size=4, max_size=4),
        min_size=2,
        max_size=30,
    )
)
def test_alpha_equals_the_krippendorff_packages(units: list[list[float]]) -> None:
    """On any verdicts of four people with gaps, undefined where theirs is."""
    items = [[value for value in unit if not math.isnan(value)] for unit in units]
    ours = krippendorff_alpha(items)
    if ours is None:
        pairable = [value for item in items if len(item) > 1 for value in item]
        assert len(set(pairable)) < 2
        return
    rows = np.array(units).T
    theirs = krippendorff.alpha(
        reliability_data=rows, value_domain=[0, 1, 2], level_of_measurement="nominal"
    )
    assert ours == pytest.approx(theirs, abs=1e-9)
