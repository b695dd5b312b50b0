"""`safehold review`: from a case to its decision, each look with a leaf in a real log."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli._review_places import ReviewPlaces
from safehold.cli.log import log
from safehold.cli.monitor import monitor
from safehold.cli.review import review
from safehold.detect.bounty.door import HttpDoor
from safehold.detect.bounty.interface import SubmittedTurn
from safehold.errors import SafeholdError, TrustError, UsageError
from safehold.guard.gateway.bundles.loading import RulesLoader
from safehold.guard.gateway.policy import Canary, Settings, Upstream
from safehold.guard.gateway.server import Parts
from safehold.testing.gateway import PATIENT, RunningGateway
from safehold.testing.monitoring import fill
from safehold.testing.upstream import MockUpstream


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


def test_planted_attacks_and_harmless_ones_become_gold_of_a_drawn_sample(tmp_path: Path) -> None:
    """Through a real gateway and its own ledger: sent, told apart, mixed in, and scored."""
    made = CliRunner().invoke(log, ["init", f"{tmp_path}/log", "--origin", "example.org/t"])
    assert made.exit_code == 0
    rule = {"id": "r", "clause": "c", "pattern": "mash", "example": "mash"}
    (tmp_path / "rules.yaml").write_text(json.dumps({"rules": [rule]}))
    with MockUpstream() as model:
        settings = Settings(
            port=0,
            upstream=Upstream(url=model.url),
            limits=PATIENT,
            bundle=f"{tmp_path}/rules.yaml",
            ledger=f"{tmp_path}/l.db",
            canary=Canary(enabled=False),
            log="none",
        )
        with RunningGateway(settings, Parts(loader=RulesLoader())) as gateway:
            door = ["--upstream-gateway", f"{gateway.url}/v1"]
            assert _run(tmp_path, "plant", *door, "--attempts", "4").strip() == "4"
            assert _run(tmp_path, "plant", *door, "--attempts", "4", "--benign").strip() == "4"
            asked = HttpDoor(f"{gateway.url}/v1", model="m", api_key="", use_case="chat")
            for number in range(24):
                turn = SubmittedTurn(role="user", text=f"What goes with cheese number {number}?")
                assert not asyncio.run(asked.say((turn,))).error
    at = ["--ledger", f"{tmp_path}/l.db", "--monitor", f"{tmp_path}/m.db"]
    scanned = CliRunner().invoke(monitor, [*at, "scan", "--scanner", "decoded", "--json"])
    assert scanned.exit_code == 0, scanned.output
    words = ["--monitor", f"{tmp_path}/m.db", "--scanner", "decoded", "--per-stratum", "99"]
    words += ["--edge", "0.5", "--floor", "0.5", "--seed", "1", "--by", "x"]
    _run(tmp_path, "draw", "w", *words)
    seen = 0
    for person in ("ann", "bob", "cas"):
        while (item := json.loads(_run(tmp_path, "next", person))) is not None:
            shown = _run(tmp_path, "show", str(item["item"]), person, "--reason", "sample")
            good = "cheese number" in shown
            seen += not good
            _run(
                tmp_path, "verdict", str(item["item"]), person,
                "permitted" if good else "restricted_helpful",
            )  # fmt: skip
    assert seen >= 2
    done = json.loads(_run(tmp_path, "estimate", "w"))
    assert (done["drawn"], done["unread"]) == (24, 0)
    assert done["missed"]["absolute"]["n"] == 24
    assert done["reviewers"]["positives"] >= 1
    assert done["reviewers"]["cleared"] == 0 < done["reviewers"]["negatives"]
