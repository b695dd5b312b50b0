"""Hidden bits of a served model, from replies that are generated again."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli._egress_hidden import HiddenTurn, Sample, command, measure
from safehold.errors import DataError
from safehold.guard.served.model import Retraced, Sampling
from safehold.secure.egress.simulation.example_host import PLAN

ASKED = (HiddenTurn("user", "hi"),)


class Model:
    """Gives every reply as it was, but what is shouted: that it would have said in lower case."""

    def retrace(self, said: object, reply: str, sampling: Sampling) -> Retraced:
        """Compare letter by letter."""
        del said, sampling
        off = sum(letter.isupper() for letter in reply)
        return Retraced(len(reply), len(reply) - off, (2,) * off)


def sample(account: str, reply: str) -> Sample:
    """One sampled reply."""
    return Sample(account, ASKED, reply)


def test_honest_replies_carry_next_to_nothing() -> None:
    """No token of ten thousand is given otherwise: the bound is near 0, not at it."""
    found = measure([sample("a", "x" * 100)] * 100, Model(), 1.0)
    assert (found.tokens, found.disagreed, found.alarms) == (10_000, 0, ())
    assert 0 < found.upper_bits_per_token < 0.01


def test_account_whose_tokens_are_chosen_is_an_alarm() -> None:
    """Half the tokens given otherwise carry a bit for the place and one for the choice."""
    found = measure([sample("a", "x" * 5000), sample("b", "xX" * 2500)], Model(), 1.0)
    assert found.alarms == ("b",)
    assert found.accounts["a"] < 0.02
    assert 1.45 <= found.accounts["b"] <= 1.6


def test_command_prints_the_bound_and_exits_with_the_alarm(tmp_path: Path) -> None:
    """For people, for machines, and by its exit status."""
    path = tmp_path / "samples.jsonl"
    line = {"account": "a", "messages": [{"role": "user", "content": "hi"}], "reply": "x" * 1000}
    path.write_text(json.dumps(line) + "\n")
    tool = command(lambda *_: Model())
    arguments = [str(path), "--model", str(tmp_path)]
    said = CliRunner().invoke(tool, [*arguments, "--tokens-a-day", "1000000"])
    assert said.exit_code == 0, said.output
    assert "1000 tokens, 0 given otherwise" in said.output
    assert "MB a day" in said.output
    path.write_text(json.dumps({**line, "reply": "xX" * 500}) + "\n")
    said = CliRunner().invoke(tool, [*arguments, "--json"])
    assert said.exit_code == 1
    assert json.loads(said.output)["alarms"] == ["a"]


def test_file_without_samples_is_refused(tmp_path: Path) -> None:
    """Nothing measured is no bound, and a line that is no sample is named."""
    with pytest.raises(DataError, match="at least one"):
        measure([], Model(), 1.0)
    path = tmp_path / "samples.jsonl"
    path.write_text("{}\n")
    said = CliRunner().invoke(command(lambda *_: Model()), [str(path), "--model", str(tmp_path)])
    assert "line 1" in str(said.exception)


def test_bound_is_held_against_the_plan(tmp_path: Path) -> None:
    """Days to take the whole by hidden bits alone, beside what the plan wants."""
    path = tmp_path / "samples.jsonl"
    line = {"account": "a", "messages": [{"role": "user", "content": "hi"}], "reply": "x" * 1000}
    path.write_text(json.dumps(line) + "\n")
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    tool = command(lambda *_: Model())
    arguments = [str(path), "--model", str(tmp_path), "--plan", str(plan), "--tokens-a-day"]
    said = CliRunner().invoke(tool, [*arguments, "20000000"])
    assert "62.5 GB take at least" in said.output, said.output
    assert "(wanted 30 d): within the bound" in said.output
    said = CliRunner().invoke(tool, [*arguments, "20000000000000"])
    assert "NOT within the bound" in said.output


def test_one_model_is_named(tmp_path: Path) -> None:
    """Neither or both of --model and --upstream is a mistake, and so is a plan without tokens."""
    path = tmp_path / "samples.jsonl"
    path.write_text("")
    tool = command(lambda *_: Model())
    both = ["--model", str(tmp_path), "--upstream", "http://127.0.0.1:1/v1"]
    for arguments in ([], both):
        said = CliRunner().invoke(tool, [str(path), *arguments])
        assert "one of --model and --upstream" in str(said.exception)
