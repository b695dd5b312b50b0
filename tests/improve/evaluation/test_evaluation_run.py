"""Whole evaluations: reports, resuming, variants and the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from safehold.cli.evaluate import evaluate_command
from safehold.errors import BundleError, DataError, UsageError
from safehold.improve.evaluation import page, plots
from safehold.improve.evaluation.interface import EvaluationReport, Label
from safehold.improve.evaluation.run import EvaluationSettings, evaluate
from safehold.progress import Progress
from safehold.testing.bundles import WordScorer, tiny_bundle, write_tiny

Write = Callable[..., Path]
SETTINGS = EvaluationSettings()
BREWING = "Crush the malt and mash it warm, sparge, boil the wort with hops, then pitch the yeast."
PLAIN = "The museum opens at nine and closes at five, and children pay half of what you pay."


def test_report_has_every_slice_with_its_n(labelled: Path, tmp_path: Path) -> None:
    """Restricted texts are flagged, benign ones pass, and each rate knows its n."""
    bundle = tiny_bundle(WordScorer())
    report = evaluate(bundle, labelled, tmp_path / "out", SETTINGS, Progress()).report
    rows = {(row.name, row.label): row for row in report.slices}
    restricted = rows["standin_brew_domain", Label.RESTRICTED].reply
    chat = rows["Chat", Label.BENIGN].prompt
    assert restricted is not None
    assert chat is not None
    assert (restricted.flagged.events, restricted.flagged.n) == (12, 12)
    assert (chat.flagged.events, chat.flagged.n) == (0, 20)
    assert report.separations[0].auc == 1.0
    assert report.skipped == ("net_dns.jsonl",)
    kept = msgspec.json.decode(
        (tmp_path / "out" / "report.json").read_bytes(), type=EvaluationReport
    )
    assert kept == report


def test_second_run_scores_nothing_and_says_the_same(labelled: Path, tmp_path: Path) -> None:
    """Scores on disk are used: stage 2 is not asked again and the report has the same bytes."""
    out = tmp_path / "out"
    evaluate(tiny_bundle(WordScorer()), labelled, out, SETTINGS, Progress())
    first = (out / "report.json").read_bytes()
    again = WordScorer()
    evaluate(tiny_bundle(again), labelled, out, SETTINGS, Progress())
    assert again.calls == 0
    assert (out / "report.json").read_bytes() == first


def test_killed_run_resumes(labelled: Path, tmp_path: Path) -> None:
    """A run that died half-way asks stage 2 only about the rest."""

    class Killed(Progress):
        left = 25

        def advance(self, steps: int = 1) -> None:
            self.left -= steps
            if not self.left:
                raise KeyboardInterrupt

    out, whole = tmp_path / "out", WordScorer()
    evaluate(tiny_bundle(whole), labelled, tmp_path / "whole", SETTINGS, Progress())
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny_bundle(WordScorer()), labelled, out, SETTINGS, Killed())
    rest = WordScorer()
    report = evaluate(tiny_bundle(rest), labelled, out, SETTINGS, Progress()).report
    assert 0 < rest.calls < whole.calls
    assert report.items == 34
    assert (out / "report.json").read_bytes() == (tmp_path / "whole/report.json").read_bytes()


def test_bad_line_costs_no_scoring(write_lines: Write, labelled: Path, tmp_path: Path) -> None:
    """Every file is read before the first score."""
    write_lines("zz.jsonl", "{")
    scorer = WordScorer()
    with pytest.raises(DataError, match=r"zz\.jsonl, line 1"):
        evaluate(tiny_bundle(scorer), labelled, tmp_path / "out", SETTINGS, Progress())
    assert scorer.calls == 0
    assert not (tmp_path / "out").exists()


def test_failures_name_places_and_hold_no_text(write_lines: Write, tmp_path: Path) -> None:
    """A misjudged item is listed by file and line; its words stay where they were."""
    text = "An essay on tin lanterns and their makers in the old town."
    folder = write_lines("a.jsonl", {"text": text, "label": "restricted"})
    out = tmp_path / "out"
    evaluate(tiny_bundle(WordScorer()), folder, out, SETTINGS, Progress())
    lines = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert {line["item"] for line in lines} == {"a.jsonl:1"}
    assert "lanterns" not in "".join(path.read_text() for path in out.iterdir())


def test_ablations_show_what_decoded_views_are_worth(write_lines: Write, tmp_path: Path) -> None:
    """Without decoders the encoded restricted texts pass; with them they are caught."""
    restricted = {"text": BREWING, "label": "restricted"}
    folder = write_lines("a.jsonl", restricted, restricted, {"text": PLAIN, "label": "benign"})
    settings = EvaluationSettings(ablations=True)
    report = evaluate(
        tiny_bundle(WordScorer()), folder, tmp_path / "out", settings, Progress(),
        beside={"other": tiny_bundle()},
    ).report  # fmt: skip
    rows = {row.variant: row for row in report.ablations}
    assert set(rows) == {
        "as it is", "no decoded views", "stage 1 alone", "stage 2 alone", "other",
    }  # fmt: skip
    whole, blind = rows["as it is"].encoded_flagged, rows["no decoded views"].encoded_flagged
    assert whole is not None
    assert blind is not None
    assert whole.lower > 0.5 > blind.upper
    alone, both = rows["stage 2 alone"], rows["as it is"]
    assert alone.stage2_calls_per_item > both.stage2_calls_per_item


def test_killed_ablations_resume(write_lines: Write, tmp_path: Path) -> None:
    """What a killed run has scored of a variant is not scored again, and the table is the same."""
    restricted = {"text": BREWING, "label": "restricted"}
    folder = write_lines("a.jsonl", restricted, {"text": PLAIN, "label": "benign"})
    settings, out = EvaluationSettings(ablations=True), tmp_path / "out"
    whole = evaluate(tiny_bundle(WordScorer()), folder, out, settings, Progress()).report
    kept = (out / "scores.jsonl").read_bytes().splitlines(keepends=True)
    (out / "scores.jsonl").write_bytes(b"".join(kept[:-4]))
    counting = WordScorer()
    again = evaluate(tiny_bundle(counting), folder, out, settings, Progress()).report
    assert again == whole
    first = WordScorer()
    evaluate(tiny_bundle(first), folder, tmp_path / "fresh", settings, Progress())
    assert 0 < counting.calls < first.calls / 2


def test_page_is_self_contained_and_escapes_what_data_says(
    write_lines: Write, tmp_path: Path
) -> None:
    """Names from data become text, never markup, and nothing is loaded from anywhere."""
    evil = "<script>alert(1)</script>"
    line = {"text": "hello there", "label": "benign", "dataset": evil, "category": evil}
    folder = write_lines("a.jsonl", line, {"text": "mash the malt " * 30, "label": "restricted"})
    bundle = tiny_bundle(WordScorer())
    found = evaluate(bundle, folder, tmp_path / "out", SETTINGS, Progress())
    pictures = plots.draw(found.judged, found.report.slices, bundle.cascade, tmp_path / "out")
    text = page.render(found.report, pictures)
    assert evil not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r'(src|href)="(?!data:image/png)', text)
    assert len(pictures) == 5
    assert text.count("data:image/png;base64,") == 5


def test_pictures_repeat(labelled: Path, tmp_path: Path) -> None:
    """The same scores give the same bytes."""
    bundle = tiny_bundle()
    found = evaluate(bundle, labelled, tmp_path / "out", SETTINGS, Progress())

    def drawn() -> list[bytes]:
        paths = plots.draw(found.judged, found.report.slices, bundle.cascade, tmp_path / "out")
        return [path.read_bytes() for path in paths]

    assert drawn() == drawn()


def test_command_writes_the_report(labelled: Path, tmp_path: Path) -> None:
    """The command prints JSON and leaves the page beside it."""
    digest = write_tiny(tmp_path / "tiny")
    out = tmp_path / "out"
    given = [str(tmp_path / "tiny"), "--data", str(labelled), "--out", str(out), "--json"]
    done = CliRunner().invoke(evaluate_command, [*given, "--bundle-sha256", digest])
    assert done.exception is None, done.output
    assert json.loads(done.stdout)["bundle_digest"] == digest
    assert (out / "report.html").is_file()


def test_data_folder_may_come_from_the_environment(labelled: Path, tmp_path: Path) -> None:
    """SAFEHOLD_EVAL_DATA stands in for --data."""
    digest = write_tiny(tmp_path / "tiny")
    given = [str(tmp_path / "tiny"), "--out", str(tmp_path / "out"), "--bundle-sha256", digest]
    environment = {"SAFEHOLD_EVAL_DATA": str(labelled)}
    done = CliRunner().invoke(evaluate_command, given, env=environment)
    assert done.exception is None, done.output
    assert "restricted texts" in done.output


def test_unsigned_bundle_is_not_trusted(labelled: Path, tmp_path: Path) -> None:
    """Without a key, a digest or the loud option, a bundle refuses."""
    write_tiny(tmp_path / "tiny")
    given = [str(tmp_path / "tiny"), "--data", str(labelled), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(evaluate_command, given, env={"HOME": str(tmp_path)})
    assert isinstance(done.exception, BundleError)


def test_beside_without_ablations_is_a_usage_error(labelled: Path, tmp_path: Path) -> None:
    """An option that would do nothing is refused."""
    given = [str(tmp_path), "--data", str(labelled), "--beside", "a=b"]
    done = CliRunner().invoke(evaluate_command, given)
    assert isinstance(done.exception, UsageError)
