"""Crossings: slots and numbers are filled, both sides share words, families name their source."""

import re

import pytest

from safehold.constitution import load
from safehold.errors import DataError
from safehold.improve.synthesis.crossings import CrossingBlock, Form, crossed, crossings
from safehold.improve.synthesis.interface import Side


def block(**changes: object) -> CrossingBlock:
    """Return a small block."""
    values: dict[str, object] = {
        "clause": "general",
        "side": Side.PERMITTED,
        "each": 3,
        "slots": {"d": ("tea", "milk", "juice")},
        "texts": ("How warm is {d} after [3-9] minutes?",),
    }
    return CrossingBlock(**(values | changes))  # type: ignore[arg-type]


def test_crossed_texts_have_no_slot_left_and_repeat_with_the_seed() -> None:
    """Every text of the package is filled, once, and the same again for the same seed."""
    found = list(crossings("homebrewing", 1))
    assert found == list(crossings("homebrewing", 1))
    assert len({one.id for one in found}) == len(found) > 2_000
    assert not [one for one in found if re.search(r"\{\w\}|\[\d[\d.]*-\d", one.text)]


def test_crossed_clauses_are_the_constitutions_and_on_its_side() -> None:
    """A text is restricted where its clause is, and permitted where its clause is."""
    constitution = load("homebrewing")
    restricted = {clause.id for clause in constitution.restricted}
    permitted = {clause.id for clause in constitution.permitted}
    for one in crossings("homebrewing", 2):
        assert one.clause in (restricted if one.side is Side.RESTRICTED else permitted), one.id


def test_each_restricted_language_has_its_permitted_twin() -> None:
    """No language is restricted by itself: wherever one is asked for steps, one buys and tastes."""
    found = list(crossings("homebrewing", 1))
    languages = {
        side: {one.language for one in found if one.side is side}
        for side in (Side.RESTRICTED, Side.PERMITTED)
    }
    assert languages[Side.RESTRICTED] <= languages[Side.PERMITTED]
    assert len(languages[Side.RESTRICTED]) >= 20


def test_a_slot_without_values_is_an_error() -> None:
    """A misspelt slot is told by its name, whether a text or `per` has it."""
    with pytest.raises(DataError, match=r"\{q\}"):
        list(crossed(block(texts=("What is {q}?",)), "made-up", 1))
    with pytest.raises(DataError, match=r"'q'"):
        list(crossed(block(per="q"), "made-up", 1))


def test_per_crosses_every_value_and_names_families_by_it() -> None:
    """With `per` each value has its own family; told and asked take turns."""
    found = list(crossed(block(per="d", each=2, form=Form.BOTH), "made-up", 1))
    assert len({one.family for one in found}) == 3
    assert {one.told for one in found} == {True, False}


def test_a_domain_without_crossings_has_none() -> None:
    """Other domains are as they were."""
    assert list(crossings("soap", 1)) == []
