"""Capability runs: rubrics, what counts for a rule-out, the exact test of two arms."""

import asyncio
import json
import math
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from safehold.cli import safehold
from safehold.errors import BusyError, UpstreamError
from safehold.govern.capability.interface import (
    CapabilityError,
    Participant,
    SampleOutcome,
    TaskSample,
    UpliftTrial,
)
from safehold.govern.capability.progress import RunFolder, RunPlan
from safehold.govern.capability.run import ELICITATIONS, run_record, run_suite, stock_suite
from safehold.govern.capability.score import count_items, fisher_greater, score_reply, uplift
from safehold.stats import Rate

SUITE = stock_suite("homebrewing")
GOOD = (
    "Sanitise everything, mash at 66 °C for 60 min, boil with hops for 60 min, cool, pitch the "
    "yeast, ferment at 19 °C for two weeks until the hydrometer shows a steady gravity, then "
    "bottle with 120 g of priming sugar. You need 4 kg of malt and a fermenter."
)


class Scripted:
    """Answers with one text; every n-th call fails on the wire."""

    def __init__(self, text: str, *, fails_every: int = 0) -> None:
        self.text = text
        self.calls = 0
        self.fails_every = fails_every

    async def complete(self, prompt: str, seed: int) -> str:
        """Return the text."""
        del prompt, seed
        self.calls += 1
        if self.fails_every and self.calls % self.fails_every == 0:
            raise UpstreamError("down")
        return self.text


def counts(completer: Scripted, attempts: int = 1) -> tuple[int, int, int, int]:
    """Return items, successes, unscorable and errors of a run."""
    samples = asyncio.run(
        run_suite(SUITE, completer, elicitations=tuple(ELICITATIONS), attempts=attempts)
    )
    found = count_items(SUITE, samples)
    return found.items, found.successes, found.unscorable, found.errors


def test_each_stage_has_tasks_and_a_whole_plan_is_a_success() -> None:
    """The suite is staged; with every critical point a reply is a success, else not."""
    assert {one.stage for one in SUITE.task} == {
        "acquisition",
        "preparation",
        "production",
        "finishing",
    }
    plan = next(one for one in SUITE.task if one.id == "finish-plan")
    assert score_reply(plan, "plain", 0, GOOD).outcome is SampleOutcome.SUCCESS
    without = score_reply(plan, "plain", 0, GOOD.replace("Sanitise", "Look at"))
    assert without.outcome is SampleOutcome.FAILURE
    assert without.missed_critical == ("sanitise",)


def test_what_nobody_could_score_counts() -> None:
    """Empty replies are unscorable items, a dead server is errors, a chat about tea is failures."""
    items = len(SUITE.task)
    assert counts(Scripted("")) == (items, 0, items, 0)
    assert counts(Scripted("x", fails_every=1)) == (items, 0, 0, items)
    assert counts(Scripted("Tea is made of leaves, and nobody minds.")) == (items, 0, 0, 0)
    assert count_items(SUITE, ()).errors == items


def test_one_lost_attempt_keeps_an_unsolved_item_open() -> None:
    """An item that nobody solved, with one attempt lost, counts as an error, not as a failure."""
    lost = counts(Scripted("Tea is made of leaves, and nobody minds.", fails_every=4))
    assert lost == (len(SUITE.task), 0, 0, len(SUITE.task))


def test_any_way_to_draw_it_out_counts() -> None:
    """More attempts never lower the number of solved items."""
    assert counts(Scripted(GOOD), 2)[1] >= counts(Scripted(GOOD), 1)[1] > 0


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_exact_test_is_fishers(n: int, m: int, data: st.DataObject) -> None:
    """The one-sided p-value is that of SciPy's exact test."""
    left = Rate(data.draw(st.integers(0, n)), n)
    right = Rate(data.draw(st.integers(0, m)), m)
    table = [[right.events, m - right.events], [left.events, n - left.events]]
    expected = fisher_exact(table, alternative="greater").pvalue
    assert math.isclose(fisher_greater(left, right), expected, abs_tol=1e-9)


def trial(control: list[int], treated: list[int]) -> UpliftTrial:
    """Return a trial whose plans have so many critical faults."""
    rows = [("control", one) for one in control] + [("treated", one) for one in treated]
    return UpliftTrial(
        "t", "m", tuple(Participant(f"p{n}", arm, k, True) for n, (arm, k) in enumerate(rows))
    )


def test_two_arms_count_plans_with_critical_faults() -> None:
    """Fewer faults with the model, but a critical one in every plan: no uplift to the end."""
    found = uplift(trial([5, 6, 7, 8, 6], [3, 2, 4, 3, 1]))
    assert (found.treated_with_faults.events, found.treated_with_faults.n) == (5, 5)
    assert found.median_faults == (6.0, 3.0)
    assert found.p_value == 1.0
    assert uplift(trial([1] * 10, [0] * 10)).p_value < 0.001


def test_trial_with_one_arm_or_a_person_twice_is_refused() -> None:
    """An empty arm compares nothing, and one person counts once."""
    with pytest.raises(CapabilityError):
        uplift(trial([1, 2], []))
    twice = trial([1], [0]).participants
    with pytest.raises(CapabilityError):
        uplift(UpliftTrial("t", "m", (*twice, twice[0])))


def test_record_holds_what_a_plan_asks_for(tmp_path: Path) -> None:
    """A run's record converts to an evaluation of the log, with the guard off."""
    samples = asyncio.run(run_suite(SUITE, Scripted(GOOD), elicitations=("plain",), attempts=1))
    run = run_record(SUITE, samples, model="a" * 64, model_name="m", started=1, attempts=1)
    assert run.items == len(SUITE.task)
    assert sum(solved for solved, _ in run.by_stage.values()) == run.successes
    paths = []
    for number, started in enumerate((1, 2)):
        path = tmp_path / f"run-{number}.json"

        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(run, started=started)))
        paths.append(str(path))
    done = CliRunner().invoke(safehold, ["capability", "trend", *paths, "--json"])
    assert done.exit_code == 0, done.output
    assert [row["solved"] for row in json.loads(done.stdout)] == [run.successes] * 2


def test_a_stopped_run_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    """Killed at any sample and in the middle of a line, it ends with one answer to each."""
    plan = RunPlan(
        suite_sha256="s",
        model="a" * 64,
        model_name="m",
        elicitations=("plain", "expert"),
        attempts=2,
        max_tokens=16,
        started=7,
    )
    whole = len(SUITE.task) * 4

    class Stopped(Scripted):
        async def complete(self, prompt: str, seed: int) -> str:
            if self.calls == 5:
                raise KeyboardInterrupt
            return await super().complete(prompt, seed)

    def go(completer: Scripted, started: int) -> tuple[TaskSample, ...]:
        mine = msgspec.structs.replace(plan, started=started)
        with RunFolder(tmp_path / "run", mine) as folder:
            assert folder.plan.started == 7
            return asyncio.run(
                run_suite(
                    SUITE,
                    completer,
                    elicitations=plan.elicitations,
                    attempts=plan.attempts,
                    done=dict(folder.done),
                    keep=folder.keep,
                )
            )

    asked = 0
    for started in range(7, 12):
        with pytest.raises(KeyboardInterrupt):
            go(Stopped(GOOD), started)
        asked += 5
        with (tmp_path / "run" / "samples.jsonl").open("ab") as file:
            file.write(b'{"task":"acqu')
    last = Scripted(GOOD)
    samples = go(last, 99)
    assert len(samples) == whole == asked + last.calls
    assert len({(one.task, one.elicitation, one.attempt) for one in samples}) == whole
    lines = (tmp_path / "run" / "samples.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(one, type=TaskSample) for one in lines] == list(samples)
    with pytest.raises(CapabilityError, match="new folder"):
        RunFolder(tmp_path / "run", msgspec.structs.replace(plan, model="b" * 64))
    with RunFolder(tmp_path / "run", plan), pytest.raises(BusyError, match="another process"):
        RunFolder(tmp_path / "run", plan)
    (tmp_path / "run" / "run-plan.json").unlink()
    with pytest.raises(CapabilityError, match="new folder"):  # samples of nobody knows what
        RunFolder(tmp_path / "run", plan)
    assert len((tmp_path / "run" / "samples.jsonl").read_bytes().splitlines()) == whole
