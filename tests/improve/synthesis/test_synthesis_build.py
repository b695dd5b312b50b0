"""The built dataset: no family crosses a split, labels stay true, equal seeds give equal bytes."""

import functools
import itertools
from collections import Counter, defaultdict

import msgspec
import pytest

from safehold.errors import DataError
from safehold.exchange import user_says
from safehold.improve.synthesis.build import Built, build
from safehold.improve.synthesis.families import (
    Deduplicator,
    Nearness,
    leaks,
    merged,
    sketch,
    text_of,
)
from safehold.improve.synthesis.interface import Example, Lineage, Side, Split, prompt_label
from safehold.improve.synthesis.phrasebook import phrasebook
from safehold.improve.synthesis.recipes import RECIPES
from safehold.improve.synthesis.written import WrittenGenerator


def _nothing(done: int, total: int) -> None:
    del done, total


@functools.cache
def _base(count: int) -> list[Example]:
    generator = WrittenGenerator("homebrewing", "c0ffee")
    return list(itertools.islice(generator.generate(seed=3), count))


def test_no_family_crosses_a_split(built: Built) -> None:
    """Every family, augmentations included, has one split."""
    splits = defaultdict(set)
    for example in built.examples:
        splits[example.family].add(example.split)
    assert all(len(found) == 1 for found in splits.values())


def test_no_near_copy_crosses_a_split(built: Built) -> None:
    """A base text of the test split has no near relative in another split."""
    base = [example for example in built.examples if "~" not in example.id]
    again = merged(base, Nearness())
    assert [(one.id, one.split) for one in again] == [(one.id, one.split) for one in base]


def test_each_split_has_both_sides_and_every_recipe_is_used(built: Built) -> None:
    """No split lacks a side and no recipe is dead."""
    sides = {(example.split, example.side) for example in built.examples}
    assert sides == {(split, side) for split in Split for side in Side}
    used = {example.lineage.chain[0] for example in built.examples if example.lineage.chain}
    assert used == {recipe.name for recipe in RECIPES}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    """Synthesis repeats byte for byte from its seed alone."""
    base = _base(400)
    first, second, other = (
        build(base, phrases=phrasebook(), seed=seed, target=500, progress=_nothing)
        for seed in (5, 5, 6)
    )
    assert msgspec.json.encode(first.examples) == msgspec.json.encode(second.examples)
    assert msgspec.json.encode(first.examples) != msgspec.json.encode(other.examples)


def test_a_dress_alone_never_decides(built: Built) -> None:
    """Each prompt recipe serves restricted and permitted requests alike."""
    sides = defaultdict(set)
    for example in built.examples:
        if example.lineage.chain and not example.reply:
            sides[example.lineage.chain[0]].add(example.side)
    dressed = ("framed", "styled", "wrapped", "encoded", "split-turns", "pasted", "tool-result")
    for name in dressed:
        assert sides[name] == {Side.RESTRICTED, Side.PERMITTED}, name


def test_an_innocent_lead_in_is_not_learnt_as_a_restricted_prompt(built: Built) -> None:
    """A restricted reply after "go on" labels the reply only."""
    found = [one for one in built.examples if one.id.endswith("/cellar-innocent-continue")]
    assert [prompt_label(one) for one in found] == [None]
    assert found[0].side is Side.RESTRICTED


def test_a_preamble_does_not_make_a_permitted_prompt_restricted(built: Built) -> None:
    """A reply that turns half-way keeps its restricted label and leaves its prompt unlabelled."""
    found = [one for one in built.examples if one.lineage.chain[:1] == ("preamble",)]
    assert found
    assert {prompt_label(one) for one in found} == {None}


def test_lineage_names_constitution_generator_parent_and_chain(built: Built) -> None:
    """What was made can be made again from its lineage."""
    ids = {example.id for example in built.examples}
    for example in built.examples:
        assert example.lineage.constitution == "c0ffee"
        assert example.lineage.generator == "written"
        if "~" in example.id:
            assert example.lineage.parent == example.id.partition("~")[0]
            assert example.lineage.parent in ids


def test_ids_are_unique(built: Built) -> None:
    """No two examples share an id."""
    assert len({example.id for example in built.examples}) == len(built.examples)


def test_a_near_duplicate_is_left_out() -> None:
    """A text that differs from an earlier one by a word is dropped, another one stays."""
    first, second = _long()
    copy = msgspec.structs.replace(first, id="copy", reply=first.reply + " Indeed.")
    kept = list(Deduplicator(0.85, fold_case=True).filter([first, copy, second]))
    assert [one.id for one in kept] == [first.id, second.id]


def _long() -> tuple[Example, Example]:
    found = [one for one in _base(600) if len(one.reply) > 500]
    return found[0], found[1]


def test_near_relatives_become_one_family() -> None:
    """Two families with half of their text in common are merged and share a split."""
    first, second = _long()
    near = msgspec.structs.replace(
        first, id="near", family="another-name", reply=first.reply + " And one sentence more."
    )
    result = {one.id: one for one in merged([first, near, second], Nearness())}
    assert result["near"].family == result[first.id].family
    assert result[second.id].family == second.family


def test_too_few_base_examples_are_refused() -> None:
    """A split without permitted replies is an error, not a silent hole."""
    with pytest.raises(DataError, match="too few"):
        build(_base(2), phrases=phrasebook(), seed=1, target=10, progress=_nothing)


def test_a_sketch_reads_texts_without_spaces() -> None:
    """Two different Chinese texts are not one text."""
    one, other = sketch("在家做20升世涛糖化温度和时间怎么安排"), sketch("泡龙井用多少度的水")
    assert one.jaccard(other) < 0.3


def test_text_of_holds_prompt_and_reply() -> None:
    """Near-duplicates are judged by all that an example says."""
    example, _ = _long()
    assert example.reply in text_of(example)


def _small(clause: str, side: Side, count: int) -> list[Example]:
    return [
        Example(
            id=f"{clause}-{number}",
            family=f"{clause}-{number}",
            split=Split.TRAIN,
            side=side,
            clause=clause,
            exchange=user_says(
                f"{clause} {number} " + " ".join(f"w{number}x{n}" for n in range(9))
            ),
            reply="",
            ask=side is Side.RESTRICTED,
            lineage=Lineage(constitution="c", generator="g", seed=1),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [6, 7, 11, 20, 59])
def test_a_small_clause_is_in_every_split(count: int) -> None:
    """However few its families, a clause is trained on, calibrated and measured."""
    rows = [*_small("bad", Side.RESTRICTED, count), *_small("near", Side.PERMITTED, count)]
    found = merged(rows, Nearness())
    for clause in ("bad", "near"):
        counts = Counter(one.split for one in found if one.clause == clause)
        assert counts[Split.TRAIN] > counts[Split.CALIBRATE] > 0
        assert counts[Split.TEST] > 0
    assert leaks(found) == []


def test_one_reply_never_stands_in_two_splits() -> None:
    """Twenty families that give one answer to different questions are one family."""
    reply = "This is one and the same answer, word for word, however it was asked for by anybody."
    rows = [msgspec.structs.replace(one, reply=reply) for one in _small("bad", Side.RESTRICTED, 20)]
    found = merged(rows, Nearness())
    assert len({one.family for one in found}) == 1
    assert leaks(found) == []
    apart = [msgspec.structs.replace(found[0], split=Split.TEST, family="other"), *found[1:]]
    assert leaks(apart)


def test_both_surfaces_of_a_small_clause_are_in_every_split() -> None:
    """However many lone requests stand beside them, replies reach each split, and requests too."""
    asks = _small("bad", Side.RESTRICTED, 40)
    told = [
        msgspec.structs.replace(
            one,
            id=f"told-{one.id}",
            family=f"told-{n}",
            reply=" ".join(f"r{n}x{k}" for k in range(9)),
        )
        for n, one in enumerate(_small("bad", Side.RESTRICTED, 8))
    ]
    told = [msgspec.structs.replace(o, exchange=user_says(f"told {o.id}")) for o in told]
    found = merged([*asks, *told], Nearness())
    assert {one.split for one in found if one.reply} == set(Split)
    assert {one.split for one in found if not one.reply} == set(Split)
