"""Fluent nonsense is noticed cell by cell, and good answers pass."""

import random
from functools import cache
from pathlib import Path

import pytest

from safehold.improve.synthesis import seeds
from safehold.improve.synthesis.cells import Cell, Difficulty, Form
from safehold.improve.synthesis.coverage import coverage_of
from safehold.improve.synthesis.generator import CellYield, thin_groups, without_unrelated
from safehold.improve.synthesis.interface import Side
from safehold.improve.synthesis.nonsense import (
    loops,
    other_language,
    told_apart,
    unrelated,
)

_SOAP = Path(seeds.__file__).parent / "seeds" / "soap"
_CIRCLE = (
    "It is a task that is hard for the average person to do; and that task is, of all tasks, the "
    "task that is hard for the average person to do, so it is hard for the average person."
)
_PAIRS = list[tuple[str, str]]
_CELL = 6


@cache
def _written() -> dict[str, tuple[str, _PAIRS]]:
    """Return what people wrote about soap as cells of six messages with their answers."""
    groups: dict[str, _PAIRS] = {}
    for book in seeds.folder_books(_SOAP):
        for item in book.exchanges:
            if item.language == "en":
                group = f"{book.clause}/{item.stage or 'all'}"
                groups.setdefault(group, []).append((item.prompt, item.reply))
    return {
        f"{group}/{at // _CELL:03}": (group, pairs[at : at + _CELL])
        for group, pairs in groups.items()
        for at in range(0, len(pairs) - _CELL + 1, _CELL)
    }


def _dealt(cells: dict[str, tuple[str, _PAIRS]], seed: int) -> dict[str, tuple[str, _PAIRS]]:
    """Return the cells with all their answers dealt anew among all messages."""
    replies = [reply for _, pairs in cells.values() for _, reply in pairs]
    random.Random(seed).shuffle(replies)
    left = iter(replies)
    return {
        name: (group, [(ask, next(left)) for ask, _ in pairs])
        for name, (group, pairs) in cells.items()
    }


def _lost(cells: dict[str, tuple[str, _PAIRS]]) -> tuple[int, int, int]:
    """Return the answers that are left out, all of them, and the cells that lose every one."""
    found = unrelated(told_apart(cells, seed=1))
    flat = [one for own in found.values() for one in own]
    return sum(flat), len(flat), sum(all(own) for own in found.values())


def test_answers_that_people_wrote_pass() -> None:
    """Of a class with good answers few are left out, and hardly any cell."""
    cells = _written()
    lost, total, empty = _lost(cells)
    assert total > 80
    assert lost <= 0.12 * total
    assert empty <= 0.12 * len(cells)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_answers_dealt_between_cells_are_noticed(seed: int) -> None:
    """Where every answer belongs to another message, most cells lose all of theirs."""
    cells = _dealt(_written(), seed)
    _, _, empty = _lost(cells)
    assert empty >= 0.75 * len(cells)


def test_one_cell_of_strange_answers_is_noticed_among_good_ones() -> None:
    """A cell with the answers of others is left out; no more of its group goes than before."""
    cells = _written()
    before = unrelated(told_apart(cells, seed=1))
    names = list(cells)
    group, pairs = cells[names[0]]
    far = [name for name in names if cells[name][0] != group][: len(pairs)]
    swapped = [(ask, cells[name][1][0][1]) for (ask, _), name in zip(pairs, far, strict=True)]
    found = unrelated(told_apart({**cells, names[0]: (group, swapped)}, seed=1))
    assert all(found[names[0]])
    assert not all(before[names[0]])
    changed = [name for name in names[1:] if all(found[name]) and not all(before[name])]
    assert len(changed) <= 1


def test_text_without_blanks_is_told_apart_too() -> None:
    """Chinese messages and answers are compared by pairs of signs."""
    cells = {
        "a/000": (
            "a",
            [("怎么换自行车的内胎？", "先把自行车的后轮拆下。再把旧内胎取出。换上新内胎。")] * 4,
        ),
        "b/000": ("b", [("哪里可以买到新鲜面包？", "老城的面包店每天早上六点卖新鲜面包。")] * 4),
        "c/000": ("c", [("图书馆几点开门？", "图书馆早上九点开门。星期一休息。")] * 4),
    }
    assert min(mark for own in told_apart(cells, seed=1).values() for mark in own) > 0.9


@pytest.mark.parametrize(
    "text",
    [
        "How to fix it, " + "how to fix it, " * 40,
        "The torque is 3.3.3.3." + "3." * 120,
        "Brake pads \n- " * 30,
        _CIRCLE,
    ],
)
def test_a_text_that_goes_in_circles_is_noticed(text: str) -> None:
    """Loops of words, of signs and of clauses are no answers."""
    assert loops(text)


def _replies() -> list[tuple[str, str]]:
    """Return every fourth answer that people wrote for the package, with its language."""
    found = [
        (item.language, item.reply)
        for domain in seeds.domains()
        for book in seeds.books(domain)
        for item in book.exchanges
    ]
    return found[::4]


def test_written_answers_do_not_go_in_circles() -> None:
    """Tables, code and lists of amounts that people wrote pass, but for one in a hundred."""
    texts = [text for _, text in _replies()]
    assert sum(loops(text) for text in texts) <= 0.01 * len(texts)


def test_the_language_of_an_answer_is_known() -> None:
    """Written answers are in their language; in English's place nine of ten others are noticed."""
    texts = _replies()
    wrong = [language for language, text in texts if other_language(text, language)]
    assert len(wrong) <= 0.02 * len(texts)
    foreign = [text for language, text in texts if language != "en" and len(text.split()) > 40]
    assert sum(other_language(text, "en") for text in foreign) >= 0.85 * len(foreign)
    english = [text for language, text in texts if language == "en" and len(text.split()) > 40]
    for language in ("de", "ru", "zh", "ja", "ar"):
        assert sum(other_language(text, language) for text in english) >= 0.8 * len(english)


def _yield(name: str, group: str, pairs: _PAIRS) -> CellYield:
    clause, _, stage = group.partition("/")
    cell = Cell(
        side=Side.PERMITTED if stage == "all" else Side.RESTRICTED,
        clause=clause,
        stage=None if stage == "all" else stage,
        form=Form.CHAT,
        language="en",
        difficulty=Difficulty.EXPERT,
        round=int(name.rpartition("/")[2]),
    )
    return CellYield(cell=cell, wanted=_CELL, pairs=tuple(pairs), faults={})


def test_a_cell_of_nonsense_is_reported_and_not_trained_on() -> None:
    """A strange cell is named, its answers are left out and counted, and a fill asks for it."""
    cells = _written()
    first = next(iter(cells))
    group, pairs = cells[first]
    others = [own[1][0][1] for own in cells.values() if own[0] != group][-_CELL:]
    strange = [(ask, reply) for (ask, _), reply in zip(pairs, others, strict=True)]
    good = [_yield(name, *own) for name, own in cells.items()]
    bad = [_yield(first, group, strange), *good[1:]]
    rows = {}
    for name, given in (("good", good), ("bad", bad)):
        found = without_unrelated(given, seed=1)
        table = coverage_of("m", found, calls=1, tokens=(1, 1))
        rows[name] = next(row for row in table.groups if row.group == group)
        assert (first in table.strange) is (name == "bad")
        # What was judged once is not judged again by a later pass.
        assert without_unrelated(found, seed=1) == found
    assert rows["bad"].faults["unrelated"] >= _CELL
    assert rows["bad"].answers <= rows["good"].answers - _CELL + 1
    assert rows["bad"].told < rows["good"].told
    alone = [one for one in without_unrelated(bad, seed=1) if one.cell.name == first]
    assert thin_groups(alone) == {group}


def test_general_answers_need_no_common_subject() -> None:
    """Answers about everything have to keep to their own messages only."""
    cells = {
        **{name: own for name, own in _written().items() if own[0] != "general/all"},
        "general/all/000": (
            "general/all",
            [
                ("What is the capital of Peru?", "Lima is the capital of Peru, by the ocean."),
                ("Explain photosynthesis.", "In photosynthesis plants make sugar out of light."),
                ("Is 91 a prime number?", "No prime number: 91 is seven times thirteen."),
                ("Write a haiku about snow.", "Snow on the roof, a haiku of white silence."),
            ],
        ),
    }
    anything = frozenset({"general/all"})
    found = unrelated(told_apart(cells, seed=1, anything=anything))
    assert not any(found["general/all/000"])
