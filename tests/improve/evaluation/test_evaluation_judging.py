"""A judge beside the guard: its own column, resumed where it stopped, failures counted apart."""

from pathlib import Path

from safehold.constitution import load
from safehold.guard.scorers.judge import JudgeSettings, PromptedJudge
from safehold.improve.evaluation import page
from safehold.improve.evaluation.judging import SecondOpinion
from safehold.improve.evaluation.run import EvaluationSettings, evaluate
from safehold.progress import Progress
from safehold.testing.bundles import tiny_bundle
from safehold.testing.judge import JudgeServer, by_words

SETTINGS = EvaluationSettings()


def opinion(server: JudgeServer) -> SecondOpinion:
    """A second opinion from this server."""
    settings = JudgeSettings(url=server.url, model="m", tries=1)
    return SecondOpinion(PromptedJudge(load("homebrewing"), settings), "m")


def test_the_judge_has_its_own_figures(labelled: Path, tmp_path: Path) -> None:
    """Every group is judged on both surfaces, and the page shows it."""
    with JudgeServer(by_words("malt")) as server:
        found = evaluate(
            tiny_bundle(), labelled, tmp_path / "out", SETTINGS, Progress(), None, opinion(server)
        )
    judge = found.report.judge
    assert judge is not None
    rows = {row.name: row for row in judge.headline}
    restricted = rows["restricted texts"].reply
    assert restricted is not None
    assert (restricted.flagged.events, restricted.flagged.n) == (12, 12)
    assert judge.separations[0].auc == 1.0
    assert "What the judge says (m)" in page.render(found.report, ())


def test_verdicts_are_kept_and_failures_are_asked_again(labelled: Path, tmp_path: Path) -> None:
    """A second run asks only about what the judge failed on; failures are no verdicts."""

    def picky(name: str, shown: dict[str, str]) -> str:
        return "?" if "Room 3." in json_text(shown) else by_words("malt")(name, shown)

    def json_text(shown: dict[str, str]) -> str:
        return shown["prompt"] + shown["reply"]

    out = tmp_path / "out"
    with JudgeServer(picky) as server:
        first = evaluate(tiny_bundle(), labelled, out, SETTINGS, Progress(), None, opinion(server))
    assert first.report.judge is not None
    benign = next(row for row in first.report.judge.headline if row.name == "benign, general")
    assert benign.reply is not None
    assert benign.reply.unscorable == 1
    with JudgeServer(by_words("malt")) as server:
        evaluate(tiny_bundle(), labelled, out, SETTINGS, Progress(), None, opinion(server))
    assert len(server.asked) == 2
