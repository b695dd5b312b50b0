"""The judge over a socket: scores in order, bounded in time, and a failure is never an allow."""

import pytest

from safehold.constitution import load
from safehold.errors import ConfigError, ScorerError
from safehold.exchange import Lane, user_says
from safehold.guard.interface import Allow, Block, Stage
from safehold.guard.scorers.interface import ScoringInput
from safehold.guard.scorers.judge import JudgeSettings, PromptedJudge
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.drivers import drive
from safehold.guard.session.session import SessionPolicy
from safehold.testing.judge import JudgeServer, by_words
from safehold.testing.scorers import keyword_guard, keyword_head

CONSTITUTION = load("homebrewing")


def judge(server: JudgeServer, **settings: object) -> PromptedJudge:
    """A judge that asks this server."""
    return PromptedJudge(CONSTITUTION, JudgeSettings(url=server.url, model="m", **settings))


def test_scores_come_in_order() -> None:
    """A batch is asked side by side and answered in its own order."""
    with JudgeServer(by_words("wort")) as server:
        texts = ["the wort boils", "a walk", "wort again", "tea"]
        scores = judge(server).score([ScoringInput(text, "") for text in texts])
    assert [score.logit > 0 for score in scores] == [True, False, True, False]
    assert server.asked[0]["response_format"]["json_schema"]["strict"]


def test_it_stands_as_stage2_of_a_real_session() -> None:
    """Behind the same interface the judge clears what stage 1 escalated, or stops it."""
    guard = keyword_guard(keyword_head("wort", floor=1), has_stage2=True)
    with JudgeServer(by_words("sparge")) as server:
        answer = InlineStage2(judge(server))
        fine = guard.session(user_says("what is wort"), SessionPolicy())
        assert isinstance(drive(fine.judge_prompt(), answer), Allow)
        step = drive(fine.feed(Lane(), "sparge the wort " * 20), answer)
    assert isinstance(step, Block)
    assert (step.stage, step.clause) == (Stage.STAGE2, "beer-production")


@pytest.mark.parametrize("status", [302, 401, 429, 500])
def test_a_server_that_fails_is_a_failure(status: int) -> None:
    """Any status but 200 gives no score."""
    with JudgeServer(by_words("x"), status=status) as server, pytest.raises(ScorerError):
        judge(server).score([ScoringInput("a", "")])


def test_a_slow_judge_is_cut_off() -> None:
    """No answer in time is a failure, however long the server would have taken."""
    with JudgeServer(by_words("x"), delay_s=30) as server, pytest.raises(ScorerError, match="time"):
        judge(server, timeout_s=0.2).score([ScoringInput("a", "")])


def test_nobody_there_is_a_failure() -> None:
    """A closed port gives no score, and the session blocks."""
    settings = JudgeSettings(url="http://127.0.0.1:1/v1", model="m")
    guard = keyword_guard(keyword_head("wort", floor=1), has_stage2=True)
    session = guard.session(user_says("wort"), SessionPolicy())
    verdict = drive(session.judge_prompt(), InlineStage2(PromptedJudge(CONSTITUTION, settings)))
    assert isinstance(verdict, Block)
    assert verdict.stage is Stage.FAIL_MODE


def test_one_bad_answer_is_tried_again() -> None:
    """A model that talks first and answers properly the second time gives a score."""
    said: list[str] = []

    def stumbling(name: str, shown: dict[str, str]) -> str:
        said.append(name)
        return "Let me think." if len(said) == 1 else by_words("wort")(name, shown)

    with JudgeServer(stumbling) as server:
        assert judge(server).score([ScoringInput("wort", "")])[0].logit > 0
    assert len(said) == 2


def test_failures_and_scores_stay_apart_offline() -> None:
    """Offline one item's failure leaves the others' scores."""

    def picky(name: str, shown: dict[str, str]) -> str:
        return "no" if "odd" in shown["prompt"] else by_words("wort")(name, shown)

    with JudgeServer(picky) as server:
        found = judge(server).answers([ScoringInput("wort", ""), ScoringInput("odd", "")])
    assert found[0].logit > 0
    assert isinstance(found[1], ScorerError)


def test_settings_that_can_not_work_are_refused() -> None:
    """A file URL or no tries at all is a configuration error."""
    for wrong in ({"url": "file:///etc"}, {"tries": 0}, {"timeout_s": 0}):
        with pytest.raises(ConfigError):
            JudgeSettings(**({"url": "http://x/v1", "model": "m"} | wrong))
