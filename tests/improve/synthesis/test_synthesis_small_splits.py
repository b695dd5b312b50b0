"""The splits of a small class: each holds what was written of both sides, where there is enough."""

from hypothesis import example, given
from hypothesis import strategies as st

from safehold.exchange import user_says
from safehold.improve.synthesis.crossed import CROSSED
from safehold.improve.synthesis.families import balanced, split_of
from safehold.improve.synthesis.interface import (
    CONSTITUTION,
    GENERAL,
    Example,
    Lineage,
    Side,
    Split,
)

_Row = tuple[str, Side, str, bool, str]
"""Family, side, clause, whether there is a reply, generator."""
_OTHERS = (CONSTITUTION, CROSSED, GENERAL)


def _examples(rows: list[_Row]) -> list[Example]:
    return [
        Example(
            id=f"{number}",
            family=family,
            split=split_of(family),
            side=side,
            clause=clause,
            exchange=user_says("How?"),
            reply=f"So, as number {number}." if told else "",
            ask=False,
            lineage=Lineage(constitution="c", generator=generator, seed=1),
        )
        for number, (family, side, clause, told, generator) in enumerate(rows)
    ]


def _rows(names: st.SearchStrategy[str], generators: tuple[str, ...]) -> st.SearchStrategy[_Row]:
    return st.tuples(
        names,
        st.sampled_from(Side),
        st.sampled_from(["one", "two"]),
        st.booleans(),
        st.sampled_from(generators),
    )


_FEW = _rows(st.sampled_from([f"family-{number}" for number in range(9)]), ("seeds", "openai"))
_REST = _rows(st.integers(0, 400).map(lambda number: f"other-{number}"), _OTHERS)
_SAME: list[_Row] = [
    (f"family-{number}", side, "one", True, "seeds") for number in range(3) for side in Side
]
_OVERLAPPING: list[_Row] = [
    *((f"family-{n}", Side.RESTRICTED, "one", True, "seeds") for n in (0, 1, 2)),
    *((f"family-{n}", Side.PERMITTED, "two", False, "seeds") for n in (2, 3, 4)),
]


@given(st.lists(_FEW, max_size=24), st.lists(_REST, max_size=24))
@example(_SAME, [])
@example(_OVERLAPPING, [])
def test_every_split_holds_written_families_of_both_sides(
    few: list[_Row], rest: list[_Row]
) -> None:
    """With three written families of a side no split lacks one; so for those with a reply."""
    found = balanced(_examples([*few, *rest]))
    for side in Side:
        own = [one for one in found if one.side is side and one.lineage.generator not in _OTHERS]
        for counted in (own, [one for one in own if one.reply]):
            if len({one.family for one in counted}) >= 3:
                assert {one.split for one in counted} == set(Split)


@given(st.lists(_FEW, max_size=24), st.lists(_REST, max_size=24), st.randoms())
def test_a_family_has_one_split_in_whatever_order_its_texts_come(
    few: list[_Row], rest: list[_Row], order: object
) -> None:
    """No family is cut, and the split is the same for any order of the examples."""
    rows = _examples([*few, *rest])
    splits = {one.family: one.split for one in balanced(rows)}
    assert all(splits[one.family] is one.split for one in balanced(rows))
    shuffled = list(rows)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert {one.family: one.split for one in balanced(shuffled)} == splits


@given(st.lists(st.integers(0, 10_000), min_size=60, max_size=90, unique=True))
def test_a_class_of_many_families_stays_as_chance_has_it(numbers: list[int]) -> None:
    """Where each split holds both sides nothing moves, so the stock classes keep their bytes."""
    names = [f"family-{number}" for number in numbers]
    rows = _examples([(name, side, "one", True, "written") for name in names for side in Side])
    if {one.split for one in rows} == set(Split):
        assert balanced(rows) == rows
