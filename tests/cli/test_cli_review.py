"""`safehold review`: from a case to its decision, each look with a leaf in a real log."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli.log import log
from safehold.cli.review import review
from safehold.errors import TrustError
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
