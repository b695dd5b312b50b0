"""Data for the operator's own fine-tuning: refusals beside helpful neighbours."""

from pathlib import Path

import msgspec
import pytest

from safehold.errors import DataError
from safehold.exchange import user_says
from safehold.improve.synthesis.interface import Example, Lineage, Side, Split
from safehold.improve.synthesis.refusals import PairRow, refusal_data, write_refusals


def _example(number: int, side: Side, clause: str, **changes: object) -> Example:
    made = Example(
        id=f"{clause}-{number:02}",
        family=f"{clause}-{number:02}",
        split=Split.TRAIN,
        side=side,
        clause=clause,
        exchange=user_says(f"request {number} of {clause}"),
        reply=f"answer {number} of {clause}",
        ask=side is Side.RESTRICTED,
        lineage=Lineage(constitution="c", generator="g", seed=1),
    )
    return msgspec.structs.replace(made, **changes)


def _dataset() -> list[Example]:
    rows = [_example(n, Side.RESTRICTED, "bad") for n in range(6)]
    rows += [_example(n, Side.PERMITTED, "near") for n in range(4)]
    rows += [_example(n, Side.PERMITTED, "general") for n in range(40)]
    rows += [_example(9, Side.RESTRICTED, "bad", split=Split.TEST)]
    rows += [_example(9, Side.PERMITTED, "near", split=Split.TEST)]
    return rows


def test_each_refusal_stands_beside_a_neighbour_and_an_ordinary_answer() -> None:
    """Where neighbours are few ordinary answers take their place; many leave room for these."""
    data = refusal_data(_dataset(), ["No."], ["general"], seed=1)
    clauses = [row.clause for row in data.chat]
    near = [row for row in data.chat if row.clause == "near"]
    assert (clauses.count("bad"), len(near), clauses.count("general")) == (6, 4, 8)
    more = [_example(n, Side.PERMITTED, "near") for n in range(4, 30)]
    clauses = [
        row.clause for row in refusal_data([*_dataset(), *more], ["No."], ["general"], seed=1).chat
    ]
    assert (clauses.count("bad"), clauses.count("near"), clauses.count("general")) == (6, 6, 6)
    assert all(row.messages[-1]["content"] == "No." for row in data.chat if row.clause == "bad")
    assert all(row.messages[-1]["content"] != "No." for row in near)


def test_pairs_prefer_the_refusal_on_one_side_only() -> None:
    """A restricted request prefers the refusal, a permitted one the answer, over the other."""
    data = refusal_data(_dataset(), ["No."], ["general"], seed=1)
    for row in data.pairs:
        chosen, rejected = row.chosen[0]["content"], row.rejected[0]["content"]
        assert (chosen == "No.") is (row.side is Side.RESTRICTED)
        assert (rejected == "No.") is (row.side is Side.PERMITTED)
    clauses = [row.clause for row in data.pairs]
    assert (clauses.count("bad"), clauses.count("near"), clauses.count("general")) == (6, 4, 8)


def test_nothing_of_the_test_split_is_trained_on() -> None:
    """What is measured on stands in a file of its own, and in no other."""
    data = refusal_data(_dataset(), ["No."], ["general"], seed=1)
    trained = {row.messages[0]["content"] for row in data.chat}
    assert {row.messages[0]["content"] for row in data.held_out} == {
        "request 9 of bad",
        "request 9 of near",
    }
    assert not trained & {row.messages[0]["content"] for row in data.held_out}


def test_an_innocent_lead_and_a_mangled_reply_teach_nothing() -> None:
    """A lead such as "go on" is not refused, and a rewritten reply is not taught."""
    lead = _example(20, Side.RESTRICTED, "bad", ask=False, exchange=user_says("Go on."))
    chain = Lineage(constitution="c", generator="g", seed=1, chain=("noise",))
    mangled = _example(21, Side.PERMITTED, "near", lineage=chain)
    data = refusal_data([*_dataset(), lead, mangled], ["No."], ["general"], seed=1)
    said = {row.messages[0]["content"] for row in data.chat}
    assert "Go on." not in said
    assert "request 21 of near" not in said


def test_the_files_are_rows_that_come_back(tmp_path: Path) -> None:
    """Each line is a row of its schema, and the same data gives the same digests."""
    data = refusal_data(_dataset(), ["No.", "I won't."], ["general"], seed=1)
    digests = write_refusals(tmp_path, data)
    lines = (tmp_path / "refusal-pairs.jsonl").read_bytes().splitlines()
    assert tuple(msgspec.json.decode(line, type=PairRow) for line in lines) == data.pairs
    again = refusal_data(list(reversed(_dataset())), ["No.", "I won't."], ["general"], seed=1)
    assert write_refusals(tmp_path, again) == digests


def test_one_side_alone_is_refused() -> None:
    """Without permitted answers a model would learn to refuse everything."""
    rows = [one for one in _dataset() if one.side is Side.RESTRICTED]
    with pytest.raises(DataError, match="no permitted answer"):
        refusal_data(rows, ["No."], ["general"], seed=1)
