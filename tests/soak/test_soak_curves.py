"""No cost grows faster with the work than it did at the last release."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench import curves
from bench.curve_work import CURVES


def test_a_steeper_curve_is_noticed() -> None:
    """Above its bound, or steeper by 0.2 than the last release: both are told, less is not."""
    name = "ledger prune, half"
    assert curves.grown(name, CURVES[name][2] + 0.01, {})
    before = {name: {"exponent": 0.8, "constant_us": 1.0}}
    assert curves.grown(name, 1.01, before)
    assert not curves.grown(name, 0.99, before)


def test_every_curve_has_three_sizes_and_a_figure_of_the_last_release() -> None:
    """At least thirty, each with growing sizes; the kept figures are of these curves."""
    assert len(CURVES) >= 30
    for _, sizes, most in CURVES.values():
        assert sizes[0] < sizes[1] < sizes[2]
        assert 0 < most <= 1.2
    assert set(curves.kept()) <= set(CURVES)


@pytest.mark.soak
@pytest.mark.parametrize("name", CURVES)
def test_no_cost_grows_faster_than_before(name: str) -> None:
    """The exponent between the last two sizes; one more try for a machine that was disturbed."""
    _, sizes, _ = CURVES[name]
    for _ in range(2):
        _, exponent = curves.measured(sizes, name)
        if not curves.grown(name, exponent, curves.kept()):
            return
    pytest.fail(f"{name}: exponent {exponent:.2f}")
