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
    """The exponent between the last two sizes; what seems steeper is measured once more."""
    before = curves.kept()
    _, exponent = curves.all_of(name, {}, before)
    assert not curves.grown(name, exponent, before), f"exponent {exponent:.2f}"


def test_a_curve_that_seems_steep_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The less of both counts at each size: a disturbed point is mended, a steep curve is told."""
    name = "ledger prune, half"
    sizes = CURVES[name][1]
    for second, steep in (([0.1, 1.0, 4.0], False), ([0.1, 1.0, 9.0], True)):
        points = iter([0.1, 1.0, 9.0, *second])
        monkeypatch.setattr(curves, "point", lambda _name, _size, left=points: next(left))
        seconds, exponent = curves.all_of(name, {}, {})
        assert seconds == second
        assert curves.grown(name, exponent, {}) is steep
        assert next(points, None) is None
    noted = {name: [0.1, 1.0, 3.0, 0.8]}
    assert curves.all_of(name, noted, {}) == (
        noted[name][:-1],
        curves.exponent_of(sizes, [0.1, 1.0, 3.0]),
    )
