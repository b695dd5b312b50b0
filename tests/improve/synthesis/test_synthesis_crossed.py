"""Passages made of a constitution's own names: neither the steps nor the names tell the sides."""

import re
from pathlib import Path

import msgspec
import pytest

from safehold.constitution import Constitution, load
from safehold.improve.synthesis.build import build
from safehold.improve.synthesis.crossed import CROSSED, CrossedText
from safehold.improve.synthesis.interface import Example, Side, Split
from safehold.improve.synthesis.own import ConstitutionText, GeneralText
from safehold.improve.synthesis.phrasebook import phrasebook
from safehold.improve.synthesis.subject import SubjectWords

CLASSES = Path(__file__).parents[3] / "examples" / "classes"
NAMES = ("bicycle-repair", "bread", "soap")


def loaded(name: str) -> Constitution:
    """An example of a class."""
    return load(str(CLASSES / f"{name}.yaml"))


def made(constitution: Constitution, passages: int = 40) -> list[Example]:
    """Its crossed passages."""
    return list(CrossedText(constitution, passages).generate(seed=4))


def silent(done: int, total: int) -> None:
    """Take no note."""
    del done, total


@pytest.mark.parametrize("name", NAMES)
def test_every_restricted_passage_has_both_twins(name: str) -> None:
    """As many passages do the same work on other things, and as many talk of the same things."""
    rows = made(loaded(name))
    kinds = {
        kind: [r for r in rows if r.id.endswith(f"-{kind}")] for kind in ("work", "else", "talk")
    }
    assert len({len(own) for own in kinds.values()}) == 1
    assert {row.side for row in kinds["work"]} == {Side.RESTRICTED}
    assert {row.side for row in kinds["else"] + kinds["talk"]} == {Side.PERMITTED}
    assert not any(row.ask for row in rows)
    assert {row.split for row in rows} == {Split.TRAIN}
    assert len({row.reply for row in rows}) == len(rows)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_steps_stand_on_both_sides_and_so_do_the_names(name: str) -> None:
    """Without names a passage and its twin read alike; the names are not in the foreign twin."""
    constitution = loaded(name)
    subject = SubjectWords(constitution)
    rows = {row.id: row for row in made(constitution)}
    named = 0
    for name_of, row in rows.items():
        if not name_of.endswith("-work"):
            continue
        twin, talk = (rows[name_of.replace("-work", kind)] for kind in ("-else", "-talk"))
        numbers = [re.findall(r"\d+", one.reply) for one in (row, twin)]
        assert len(numbers[0]) == len(numbers[1])
        assert not subject.touches(twin.reply)
        named += subject.touches(row.reply) and subject.touches(talk.reply)
    assert named >= len(rows) // 3 // 2


def test_equal_seeds_give_equal_passages_and_no_lexicon_gives_none() -> None:
    """It depends on the seed alone; without English names there is nothing to cross."""
    bread = loaded("bread")
    assert made(bread) == made(bread)
    bare = msgspec.structs.replace(bread, lexicon=())
    foreign = msgspec.structs.replace(
        bread,
        lexicon=tuple(msgspec.structs.replace(one, language="de") for one in bread.lexicon),
    )
    assert made(bare) == made(foreign) == []


def test_they_are_learnt_from_and_never_measured_on() -> None:
    """A dataset holds them once each, in the training split, with nothing made from them."""
    bread = loaded("bread")
    general = list(GeneralText(bread).generate(seed=1))[::25]
    base = [*ConstitutionText(bread).generate(seed=1), *general]
    rows = made(bread, 10)
    built = build(
        base, phrases=phrasebook(), seed=1, target=len(base) + 100, progress=silent, taught=rows
    )
    own = [one for one in built.examples if one.lineage.generator == CROSSED]
    assert {one.id for one in own} == {one.id for one in rows}
    assert all(one.split is Split.TRAIN and not one.lineage.chain for one in own)
