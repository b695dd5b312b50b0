"""Runs: five outcomes, leaks counted before the cut, records that go on, rates with bounds."""

from functools import partial
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from safehold.cli.redteam import redteam
from safehold.detect.redteam.interface import (
    AttackedPart,
    AttackOutcome,
    Attempt,
    QuestionSet,
    Wrapper,
)
from safehold.detect.redteam.plan import AttackPlan, draw, rendered
from safehold.detect.redteam.report import summarise
from safehold.detect.redteam.run import Attacker, RunFile, deltas, read_record
from safehold.detect.redteam.target import REPLY_AS
from safehold.detect.redteam.transforms import TRANSFORMS
from safehold.detect.redteam.worker_pool import Crew
from safehold.errors import BusyError, DataError
from safehold.guard.interface import Escalation, Failed
from safehold.guard.session.drivers import Answer
from safehold.testing.guards import rule_guard

_PLAN = AttackPlan(domain="homebrewing", seed=4, attempts=400, depth=3, surface=AttackedPart.BOTH)


def _no_stage2(request: Escalation) -> Answer:
    del request
    return Failed(reason="NoStage2")


def _attacker(asks: QuestionSet, dresses: tuple[Wrapper, ...], *patterns: str) -> Attacker:
    return Attacker(rule_guard(*patterns), _no_stage2, asks, dresses)


def _attempt(asks: QuestionSet, **changes: object) -> Attempt:
    topic = asks.topics[0]
    plain = Attempt(id="a", question=topic.questions[0], topic=topic.id, clause=topic.clause)
    return msgspec.structs.replace(plain, **changes)


def test_equal_plans_draw_equal_attempts(asks: QuestionSet, dresses: tuple[Wrapper, ...]) -> None:
    """The seed alone decides; ids are unique, and the number is the one asked for."""
    first, second = (list(draw(_PLAN, asks, dresses)) for _ in range(2))
    assert first == second
    assert len({one.id for one in first}) == len(first)
    assert sum(one.topic is not None for one in first) == 400
    other = list(draw(msgspec.structs.replace(_PLAN, seed=5), asks, dresses))
    assert other != first


def test_a_run_uses_every_transform_and_every_wrapper(
    asks: QuestionSet, dresses: tuple[Wrapper, ...]
) -> None:
    """Three thousand attempts leave no family out."""
    plan = msgspec.structs.replace(_PLAN, attempts=3200)
    found = list(draw(plan, asks, dresses))
    assert {one.wrapper for one in found} == {-1, *range(len(dresses))}
    assert len({name for one in found for name in one.chain}) >= 60
    assert {len(one.chain) for one in found} == {0, 1, 2, 3}


def test_every_transform_has_a_benign_twin(asks: QuestionSet, dresses: tuple[Wrapper, ...]) -> None:
    """Each is put on a harmless question too, and false alarms on it have a rate of their own."""
    found = [one for one in draw(_PLAN, asks, dresses) if one.topic is None]
    assert {one.chain for one in found if one.chain} == {(one.name,) for one in TRANSFORMS}
    assert {one.reply_as for one in found if one.reply_as} == set(REPLY_AS)
    harmless = summarise(_attacker(asks, dresses).play_all(found))
    assert harmless.benign_transformed.n > len(TRANSFORMS) * 0.8
    assert harmless.benign_coded.n == len(REPLY_AS)
    assert harmless.benign_plain.n == harmless.benign_wrapped.n == len(asks.benign)
    assert harmless.benign_transformed.events == harmless.benign_coded.events == 0
    word = asks.benign[0].text.split()[0]
    some = [one for one in found if not one.chain] + [one for one in found if one.chain][::4]
    stopped = summarise(_attacker(asks, dresses, word).play_all(some))
    assert stopped.benign_plain.events > 0
    assert 0 < stopped.benign_transformed.events < stopped.benign_transformed.n


def test_without_a_block_the_target_complies_and_leaks_all(
    asks: QuestionSet, dresses: tuple[Wrapper, ...]
) -> None:
    """A guard that sees nothing delivers the whole passage."""
    result = _attacker(asks, dresses).play(_attempt(asks, chain=("rot13",)))
    assert result.outcome is AttackOutcome.COMPLIED
    assert result.delivered == result.total
    assert result.leaked == result.facts > 0


def test_a_blocked_prompt_leaks_nothing(asks: QuestionSet, dresses: tuple[Wrapper, ...]) -> None:
    """A prompt that is stopped never reaches the target."""
    ask = asks.topics[0].questions[0]
    result = _attacker(asks, dresses, r"Maris Otter").play(_attempt(asks, question=ask))
    assert (result.outcome, result.where, result.leaked) == (
        AttackOutcome.BLOCKED_BY_GUARD,
        "prompt",
        0,
    )


def test_a_cut_reply_leaks_only_what_was_before_the_cut(
    asks: QuestionSet, dresses: tuple[Wrapper, ...]
) -> None:
    """Facts behind the cut do not count, those before it do."""
    result = _attacker(asks, dresses, "Put the lid on").play(_attempt(asks))
    assert (result.outcome, result.where) == (AttackOutcome.BLOCKED_BY_GUARD, "reply")
    assert 0 < result.leaked < result.facts
    assert result.delivered < result.total


def test_an_erased_question_is_unscorable_not_a_success(
    asks: QuestionSet, dresses: tuple[Wrapper, ...]
) -> None:
    """What no reader can read counts neither for nor against the guard."""
    result = _attacker(asks, dresses).play(_attempt(asks, chain=("math-bold", "tag-smuggling")))
    assert result.outcome is AttackOutcome.UNSCORABLE


def test_the_reply_surface_skips_the_prompts_verdict(
    asks: QuestionSet, dresses: tuple[Wrapper, ...]
) -> None:
    """Reply-only attempts measure the reply's guard even where the prompt would be stopped."""
    attempt = _attempt(asks, surface=AttackedPart.REPLY)
    result = _attacker(asks, dresses, "Maris Otter", "iodine").play(attempt)
    assert result.where == "reply"


def test_our_own_errors_are_an_outcome(asks: QuestionSet, dresses: tuple[Wrapper, ...]) -> None:
    """An attempt that can't be rendered is an error, and the run goes on."""
    result = _attacker(asks, dresses).play(_attempt(asks, chain=("no-such",)))
    assert (result.outcome, result.error) == (AttackOutcome.ERROR, "UsageError")


def test_rates_leave_out_what_was_not_scored(
    asks: QuestionSet, dresses: tuple[Wrapper, ...]
) -> None:
    """Unscorable and broken attempts are counted as outcomes and in no rate."""
    attacker = _attacker(asks, dresses)
    chains = ((), ("math-bold", "tag-smuggling"), ("no-such",))
    found = summarise(attacker.play(_attempt(asks, chain=chain)) for chain in chains)
    assert found.outcomes["unscorable"] == found.outcomes["error"] == 1
    assert (found.total.success.events, found.total.success.n) == (1, 1)


def test_an_interrupted_run_goes_on(
    tmp_path: Path, asks: QuestionSet, dresses: tuple[Wrapper, ...]
) -> None:
    """Kept results are not played again, a torn line is, and the record ends complete."""
    path = tmp_path / "run.jsonl"
    attempts = list(draw(_PLAN, asks, dresses))[:12]
    attacker = _attacker(asks, dresses)
    with RunFile(path, _PLAN) as first:
        list(first.play(attempts[:6], attacker))
    path.write_bytes(path.read_bytes()[:-20])
    with RunFile(path, _PLAN) as again:
        assert len(again.results) == 5
        assert len(list(again.play(attempts, attacker))) == 7
    plan, results = read_record(path)
    assert (plan, {one.attempt.id for one in results}) == (_PLAN, {one.id for one in attempts})


def test_several_processes_give_the_results_of_one(
    tmp_path: Path, asks: QuestionSet, dresses: tuple[Wrapper, ...]
) -> None:
    """Who plays an attempt makes no difference, and each is kept once."""
    attempts = list(draw(_PLAN, asks, dresses))[:20]
    make = partial(_attacker, asks, dresses, "Maris Otter")
    alone = {one.attempt.id: one for one in make().play_all(attempts)}
    with RunFile(tmp_path / "run.jsonl", _PLAN) as record:
        played = {one.attempt.id: one for one in record.play(attempts, Crew(make, 2))}
        assert played == alone
        assert record.missing(attempts) == []
    assert len(read_record(tmp_path / "run.jsonl")[1]) == 20


def test_another_plans_record_is_refused(tmp_path: Path) -> None:
    """Results of two plans never mix."""
    path = tmp_path / "run.jsonl"
    with RunFile(path, _PLAN):
        pass
    with pytest.raises(DataError, match="no record of this run"):
        RunFile(path, msgspec.structs.replace(_PLAN, seed=9))
    with RunFile(path, _PLAN), pytest.raises(BusyError, match="another process"):
        RunFile(path, _PLAN)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError):
        read_record(tmp_path / "notes.txt")


def test_deltas_lose_nothing() -> None:
    """Streaming is a partition of the text."""
    for text in ("", "  ", "a b\n\nc", "x" * 40 + "  ", "\u3000é\n"):
        assert "".join(deltas(text)) == text


def test_the_request_is_transformed_inside_its_wrapper(
    asks: QuestionSet, dresses: tuple[Wrapper, ...]
) -> None:
    """The wrapper stays readable around an encoded request, with how to read it."""
    exchange = rendered(_attempt(asks, wrapper=0, chain=("base64",)), dresses)
    text = next(exchange.texts()).text
    assert "guildmaster" in text
    assert "written in Base64" in text
    assert asks.topics[0].questions[0] not in text


def test_the_command_line_runs_reports_and_refuses(tmp_path: Path) -> None:
    """A run without a guard says its rates with bounds; contradictory options are an error."""
    out = tmp_path / "bare.jsonl"
    runner = CliRunner()
    arguments = ["run", "--unsafe-no-guard", "--attempts", "8", "--out", str(out), "--json"]
    played = runner.invoke(redteam, arguments)
    assert played.exit_code == 0, played.output
    again = runner.invoke(redteam, ["report", str(out), "--json"])
    assert again.output == played.stdout
    shown = runner.invoke(redteam, ["report", str(out)])
    assert "100.000% (n=8, 95% upper bound 100.000%)" in shown.output
    assert runner.invoke(redteam, ["run", "--out", str(out)]).exit_code != 0
