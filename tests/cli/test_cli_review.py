"""`safehold review`: from a case to its decision, each look with a leaf in a real log."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli._review_places import ReviewPlaces
from safehold.cli.log import log
from safehold.cli.monitor import monitor
from safehold.cli.review import review
from safehold.errors import SafeholdError, TrustError, UsageError
from safehold.testing.monitoring import fill


def _run(folder: Path, *words: str) -> str:
    places = ["--ledger", f"{folder}/l.db", "--review", f"{folder}/r.db", "--log", f"{folder}/log"]
    done = CliRunner().invoke(review, [*places, *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_case_is_judged_blind_and_closed(tmp_path: Path) -> None:
    """Content needs the item; the score comes with one's own verdict; suspension is refused."""
    made = CliRunner().invoke(log, ["init", f"{tmp_path}/log", "--origin", "example.org/t"])
    assert made.exit_code == 0
    fill(f"{tmp_path}/l.db", [("a", "a question about kettles", True)])
    assert _run(tmp_path, "open", "sample", "d0", "--by", "ann").strip() == "1"
    item = json.loads(_run(tmp_path, "next", "ann"))
    assert "score" not in item
    shown = _run(tmp_path, "show", "1", "ann", "--reason", "sample")
    assert "kettles" in shown
    assert "score" not in shown
    context = json.loads(_run(tmp_path, "verdict", "1", "ann", "permitted"))
    assert context["score"] == 0.9
    with pytest.raises(TrustError):
        _run(tmp_path, "decide", "1", "suspend", "--by", "ann", "--grant", "g")


def test_a_sample_file_gives_three_figures(tmp_path: Path) -> None:
    """The file's strata become recall above the floor, of all, and the most unseen."""
    stratum = {"above_floor": True, "size": 100, "read": 100}
    strata = [{**stratum, "caught": True, "positives": 9}]
    strata += [{**stratum, "caught": False, "positives": 1}]
    (tmp_path / "s.json").write_text(json.dumps({"strata": strata}))
    done = json.loads(_run(tmp_path, "missed", f"{tmp_path}/s.json"))
    assert done["absolute"]["point"] == 0.9
    assert done["absolute"]["n"] == 200
    planned = _run(tmp_path, "plan", "--prevalence", "0.0002", "--recall", "0.5")
    assert planned.strip() == "15000"


def test_a_sample_is_drawn_judged_and_estimated(tmp_path: Path) -> None:
    """From the monitor's results over a case to three figures; agreement and gold beside them."""
    made = CliRunner().invoke(log, ["init", f"{tmp_path}/log", "--origin", "example.org/t"])
    assert made.exit_code == 0
    fill(f"{tmp_path}/l.db", [("a", f"question {i}", i % 2 == 0) for i in range(6)])
    at = ["--ledger", f"{tmp_path}/l.db", "--monitor", f"{tmp_path}/m.db"]
    scanned = CliRunner().invoke(monitor, [*at, "scan", "--scanner", "decoded", "--json"])
    assert scanned.exit_code == 0, scanned.output
    design = ["--edge", "0.5", "--floor", "0.5", "--per-stratum", "2", "--seed", "1", "--by", "x"]
    results = ["--monitor", f"{tmp_path}/m.db", "--scanner"]
    assert _run(tmp_path, "draw", "w", *results, "decoded", *design).strip() == "1"
    with pytest.raises(UsageError, match="no results"):
        _run(tmp_path, "draw", "w2", *results, "nothing", *design)
    for person in ("ann", "bob"):
        while (item := json.loads(_run(tmp_path, "next", person))) is not None:
            _run(tmp_path, "show", str(item["item"]), person, "--reason", "sample")
            _run(tmp_path, "verdict", str(item["item"]), person, "restricted_helpful")
    done = json.loads(_run(tmp_path, "estimate", "w"))
    assert (done["drawn"], done["unread"]) == (4, 0)
    assert done["missed"]["absolute"]["point"] == 0.5
    assert json.loads(_run(tmp_path, "gold")) == []
    assert "alpha" in _run(tmp_path, "agreement")
    assert "n=0" in _run(tmp_path, "planted")


def test_an_overturned_appeal_is_a_test_on_the_command_line(tmp_path: Path) -> None:
    """The rules of today stop the example again: exit status 1; other rules do not."""
    made = CliRunner().invoke(log, ["init", f"{tmp_path}/log", "--origin", "example.org/t"])
    assert made.exit_code == 0
    fill(f"{tmp_path}/l.db", [("a", "how do I clean a copper kettle?", True)])
    desk = ReviewPlaces(f"{tmp_path}/l.db", f"{tmp_path}/r.db", tmp_path / "log", None)
    desk.appeals().appeal("d0")
    for person in ("ann", "bob"):
        item = json.loads(_run(tmp_path, "next", person))["item"]
        _run(tmp_path, "show", str(item), person, "--reason", "appeal")
        _run(tmp_path, "verdict", str(item), person, "permitted")
    _run(tmp_path, "decide", "1", "overturn", "--by", "lead", "--examples", str(tmp_path / "first"))
    folder = ["--examples", f"{tmp_path}/permitted"]
    _run(tmp_path, "permit", "1", *folder)
    for word, holds in (("copper", False), ("zeppelin", True)):
        rule = {"id": "r", "clause": "c", "pattern": word, "example": word}
        (tmp_path / "rules.yaml").write_text(json.dumps({"rules": [rule]}))
        words = ["regress", *folder, "--bundle", f"{tmp_path}/rules.yaml"]
        if holds:
            assert json.loads(_run(tmp_path, *words))[0]["stopped"] is False
        else:
            with pytest.raises(SafeholdError, match="1 of 1 overturned"):
                _run(tmp_path, *words)
