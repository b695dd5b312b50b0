"""The attacks for real: what runs is exactly what is declared, neither more nor less."""

import os

import pytest

from safehold.secure.endpoint.attack.attacks import ATTACKS, COUNTED
from safehold.secure.endpoint.attack.bench import ENGINES
from safehold.secure.endpoint.attack.declared import LEAVES, RACES, REASONS
from safehold.secure.endpoint.attack.table import left_over, markdown, measure, stopped_of


@pytest.mark.parametrize("engine", ["none", "guard", "guard+confine"])
def test_engine_leaves_exactly_what_is_declared(engine: str) -> None:
    """Without an engine all attacks run; with one, those run that its row of the table names."""
    if os.geteuid() != 0:
        pytest.skip("a stage needs root")
    column = measure(engine)
    expected = LEAVES.get(engine, frozenset(one.name for one in ATTACKS if not one.benign))
    races = RACES.get(engine, frozenset())
    assert set(left_over(column)) - races == expected - races
    ran = {row.attack for row in column.rows if row.ran}
    assert "allowed program" in ran
    # What is allowed by its content runs elsewhere too, unless a floor goes by place.
    assert ("allowed content, other path" in ran) == ("confine" not in engine)
    assert column.after_kill in (None, False)
    stopped, count = stopped_of(column)
    assert count == 35
    assert engine != "guard+confine" or stopped >= 30
    assert engine in markdown([column])


def test_every_engine_is_declared_and_every_leftover_of_a_combination_has_its_reason() -> None:
    """An engine without a declaration, or an open attack without a reason, is an open hole."""
    assert set(LEAVES) == set(ENGINES) - {"none"}
    for engine, left in LEAVES.items():
        assert left <= {one.name for one in ATTACKS}
        if "+" in engine or engine == "all":
            assert left <= set(REASONS)
    assert len(COUNTED) == 35
