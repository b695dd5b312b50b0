"""The second set: what it holds, how a row is played and counted, its command on made-up rows."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[3]))
from bench.guard_own.second.__main__ import main
from bench.guard_own.second.apart import HERE, nearness, texts_of
from bench.guard_own.second.play import Judge, Outcome, lines, play
from bench.guard_own.second.rows import TURNS, Row, cut, rows, slice_of

from safehold.exchange import Role, Turn
from safehold.guard.interface import Block, Stage

SET = rows(HERE)


class Reader:
    """A made-up bundle: it stops what names the step of standing."""

    digest = "0" * 64

    def __init__(self, bundle: Path | None) -> None:
        """Take a folder as the command's loader does."""
        self.bundle = bundle

    def __call__(self, turns: Sequence[Turn], reply: str | None) -> Block | None:
        """Stop what holds the word."""
        return words("stand")(turns, reply)


def words(*wanted: str, stage: Stage = Stage.STAGE2) -> Judge:
    """A judge that stops what holds a word; of a prompt it reads all turns."""

    def judge(turns: Sequence[Turn], reply: str | None) -> Block | None:
        read = [reply] if reply is not None else [part.text for one in turns for part in one.parts]
        found = any(word in text for word in wanted for text in read)
        return Block(clause="made-up", score=1.0, stage=stage) if found else None

    return judge


def made_up(folder: Path) -> Path:
    """A folder of the set's layout with a few rows."""
    some = ["One plain line.", "Another plain line."]
    thread = {"language": "en", "turns": [f"Line {number}." for number in range(2 * TURNS)]}
    dealt = {"language": "en", "clause": "beer-production", "turns": ["Hello.", "Hi.", "Bye."]}
    wrapper = {"language": "en", "wrapper": "Say {ask}", "restricted": ["a"], "permitted": ["b"]}
    chats = {"en": {"next": ["go on"], "chat": [["Rain?", "Yes."], ["Sun?", "No."]]}}
    steps = (
        "First wait. Then sit. Then stand. Then walk. Then rest. Then sleep. Then wake. Then eat."
    )
    given: dict[str, object] = {
        "requests": {"en": {"beer-production": some}},
        "permitted": {"en": {"cooking": some}},
        "wrapped": [wrapper],
        "recipes": {"en": {"beer-production": [steps]}, "nb": {"wine-production": some[:1]}},
        "howtos": {"en": {"cooking": some[:1]}},
        "facts": {"en": some[:1]},
        "general": {"en": some[:1]},
        "dealt": [dealt],
        "chatter": chats,
        "threads_near": [thread],
        "threads_general": [thread],
    }
    for name, content in given.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def test_the_set_holds_what_its_page_says() -> None:
    """Each kind has its number of rows, requests at least 28 languages, wrappers as many twins."""
    counts = Counter((row.group, row.surface) for row in SET)
    assert counts["requests", "prompt"] >= 220
    assert counts["permitted", "prompt"] >= 220
    assert counts["wrapped requests", "prompt"] == counts["wrapped permitted", "prompt"] >= 110
    assert counts["recipes", "reply"] >= 60
    assert counts["howtos", "reply"] >= 80
    assert counts["dealt requests", "conversation"] + counts["dealt recipes", "conversation"] >= 60
    assert counts["near conversations", "conversation"] == 60
    assert counts["general conversations", "conversation"] == 60
    assert counts["facts", "prompt"] >= 150
    assert counts["general", "prompt"] >= 200
    for group, least in (("requests", 28), ("permitted", 28), ("recipes", 20), ("howtos", 20)):
        assert len({row.language for row in SET if row.group == group}) >= least
    wrapped = {row.category for row in SET if row.group == "wrapped requests"}
    assert wrapped == {row.category for row in SET if row.group == "wrapped permitted"}
    assert len(wrapped) >= 30


def test_no_row_stands_twice_and_conversations_have_their_length() -> None:
    """A text counts once in its group; permitted conversations have eight messages of a user."""
    told = [(row.group, row.surface, row.turns) for row in SET]
    assert len(told) == len(set(told))
    for row in SET:
        asked = sum(role is Role.USER for role, _ in row.turns)
        if row.group in {"near conversations", "general conversations"}:
            assert asked == TURNS
        if row.group.startswith("dealt"):
            assert 4 <= asked <= TURNS


def test_a_dealt_procedure_is_whole_in_its_parts() -> None:
    """Joined again, the parts of each dealt procedure hold every letter of it."""
    for row in SET:
        if row.group == "recipes":
            parts = cut(row.turns[0][1])
            assert "".join("".join(parts).split()) == "".join(row.turns[0][1].split())
    assert all(len(row.parts) == 5 for row in SET if row.group == "dealt recipes")


def test_a_row_is_played_turn_by_turn_until_it_is_stopped() -> None:
    """What passed before the stop is delivered; a reply is read alone, a prompt with its past."""
    said = ((Role.USER, "a"), (Role.ASSISTANT, "b"), (Role.USER, "c"), (Role.ASSISTANT, "d"))
    row = Row("dealt", "conversation", True, "en", "x", said, (1, 3))
    assert play(row, words("d")) == Outcome(stopped=True, turn=3, delivered=0.5)
    assert play(row, words("a")) == Outcome(stopped=True, turn=0, delivered=0.0)
    assert play(row, words("z")) == Outcome(stopped=False, delivered=1.0)
    broken = play(row, words("c", stage=Stage.FAIL_MODE))
    assert broken.broken
    assert not broken.stopped


def test_figures_have_bounds_on_the_side_that_hurts_and_broken_rows_count_in_none() -> None:
    """Of 120 English and 30 other rows both languages are told; a broken row leaves n."""
    played = [
        (
            Row("requests", "prompt", True, "en" if n < 120 else "sv", "x", ((Role.USER, str(n)),)),
            Outcome(stopped=0 < n < 76, broken=n == 0),
        )
        for n in range(150)
    ]
    told = {(line.group, line.of): line for line in lines(played)}
    whole, english = told["requests", "all"], told["requests", "en"]
    assert (whole.events, whole.n, whole.broken, whole.at) == (75, 149, 1, "at least")
    assert whole.bound < whole.rate
    assert english.n == 119
    assert told["requests", "1 other languages"].events == 0
    permitted = [(Row("x", "prompt", False, "en", "x", row.turns), out) for row, out in played]
    first = lines(permitted)[0]
    assert (first.what, first.at) == ("blocked", "at most")
    assert first.bound > first.rate


def test_the_command_scores_a_bundle_and_counts_its_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every kind of made-up row has a figure; a second look at the same data says so."""
    data = tmp_path / "rows"
    data.mkdir()
    record = tmp_path / "looks.json"
    asked = ["--data", str(made_up(data)), "--limit", "1", "--record", str(record)]
    main([*asked, "--json"], Reader)
    look = json.loads(capsys.readouterr().out)
    kinds = {(line["group"], line["surface"]) for line in look["lines"]}
    assert {(row.group, row.surface) for row in rows(data)} < kinds
    events = {(one["group"], one["what"], one["of"]): one["events"] for one in look["lines"]}
    assert events["recipes", "stopped", "all"] == 1
    assert events["dealt recipes", "half delivered", "all"] == 0
    assert events["general", "blocked", "all"] == 0
    main(asked, Reader)
    assert "Look 2." in capsys.readouterr().out
    assert [one["look"] for one in json.loads(record.read_text())] == [1, 2]
    main(["--data", str(data), "--write", str(tmp_path / "out")])
    written = (tmp_path / "out" / "dealt_requests.jsonl").read_text().splitlines()
    assert json.loads(written[0])["label"] == "restricted"
    assert len(slice_of(rows(data), 1)) == len({(row.group, row.surface) for row in rows(data)})


def test_a_copied_row_is_found_and_another_is_not() -> None:
    """The same text counts as same, a changed word as near, another sentence as neither."""
    own = ["the lamp in the hall must be mended before Friday", "a boat lies in the harbour"]
    found = nearness("x", own, ["The lamp in the hall must be mended before Friday "])
    assert (found.texts, found.same, found.near) == (1, 1, 1)
    found = nearness("x", own, ["the lamp in the hall must be mended before Monday"])
    assert (found.same, found.near) == (0, 1)
    assert nearness("x", own, ["nothing of the kind was said here"]).near == 0


def test_no_row_is_a_text_of_the_first_set() -> None:
    """Both sets were written apart: none of the rows is in both, or nearly."""
    own = [text for row in SET for _, text in row.turns]
    found = nearness("own set", own, texts_of(HERE.parent))
    assert found.texts > 500
    assert (found.same, found.near) == (0, 0)
