"""`safehold respond` from the command line: one case from an example to a rule that two let act."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from safehold.cli import safehold
from safehold.cli._artefacts import read_artefact
from safehold.cli._respond_options import quorum
from safehold.detect.redteam.interface import Wrapper
from safehold.detect.redteam.questions import questions, wrappers
from safehold.errors import SafeholdError
from safehold.guard.bundle.signing import load_or_make_key
from safehold.guard.gateway.bundles.trial_file import opened_plan
from safehold.guard.gateway.bundles.trial_memory import TrialMemory, followed
from safehold.improve.response.case import IncidentCase
from safehold.improve.response.gates import GateLimits, GateReport, GateState, GateVerdict
from safehold.improve.response.interface import Dress, Incident, IncidentKind
from safehold.trust.release.interface import ArtefactKind

ASK = questions("homebrewing").topics[0].questions[3]
TEXT = wrappers()[36].around(ASK)


def run(*words: str | Path) -> Result:
    """Run a command; errors of ours come out as they are."""
    found = CliRunner().invoke(safehold, ["respond", *map(str, words)], catch_exceptions=True)
    if isinstance(found.exception, SafeholdError):
        raise found.exception
    return found


def test_an_example_becomes_a_rule_that_acts_with_two_persons(tmp_path: Path) -> None:
    """Open, variants, rule, shadow, two approvals, act: each step is one command."""
    (tmp_path / "found.txt").write_text(TEXT)
    mails = [{"label": "benign", "text": f"A mail about the choir, number {n}."} for n in range(40)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, mails)))
    case, rules = tmp_path / "c1", tmp_path / "hot.json"
    pubs: list[str] = []
    for name in ("anna", "bela"):
        load_or_make_key(tmp_path / f"{name}.pem")
        pubs += ["--person-pub", f"{name}={tmp_path / f'{name}.pub'}"]
    anna = ["--as", "anna", "--person-key", str(tmp_path / "anna.pem")]
    bela = ["--as", "bela", "--person-key", str(tmp_path / "bela.pem")]
    opened = run(
        "open", "--case", case, "--text", tmp_path / "found.txt",
        "--clause", "beer-production", "--reporter", "anna",
    )  # fmt: skip
    assert "academic" in opened.output
    assert run("variants", "--case", case, "--count", "32").exit_code == 0
    ruled = run("rule", "--case", case, "--benign", tmp_path / "own.jsonl", "--owner", "anna")
    assert "0.000% (n=40" in ruled.output
    assert run("begin-rules", "--hot-rules", rules, *anna, *pubs).exit_code == 0
    assert "in shadow" in run("shadow", "--case", case, "--hot-rules", rules, *anna, *pubs).output
    # The gates count on a rule that acts, and on no other.
    beside = ("gate", "--case", case, "--benign", tmp_path / "own.jsonl", "--hot-rules", rules)
    with pytest.raises(SafeholdError, match="it is in shadow"):
        run(*beside, *pubs)
    with pytest.raises(SafeholdError, match="--person-pub"):
        run(*beside)
    run("approve", "--case", case, *anna)
    with pytest.raises(SafeholdError, match="2 persons"):
        run("act", "--case", case, "--hot-rules", rules, *anna, *pubs)
    run("approve", "--case", case, *bela)
    assert "acts" in run("act", "--case", case, "--hot-rules", rules, *anna, *pubs).output
    status = json.loads(run("status", "--case", case, *pubs, "--json").output)
    assert status["approved_by"] == ["anna", "bela"]
    assert status["steps"]["report"] is None


@pytest.mark.parametrize("content", [b"", b"x" * 10_000_000])
def test_an_example_of_nothing_or_of_ten_megabytes_is_one_line(
    tmp_path: Path, content: bytes
) -> None:
    """The command refuses it and leaves no case."""
    (tmp_path / "found.txt").write_bytes(content)
    with pytest.raises(SafeholdError):
        run(
            "open", "--case", tmp_path / "c", "--text", tmp_path / "found.txt",
            "--clause", "c", "--reporter", "r",
        )  # fmt: skip
    assert not (tmp_path / "c").exists()


def test_a_step_before_its_turn_says_which_is_missing(tmp_path: Path) -> None:
    """A rule without a case names the step that comes first."""
    (tmp_path / "own.jsonl").write_text('{"label": "benign", "text": "hello"}')
    with pytest.raises(SafeholdError, match="incident"):
        run("rule", "--case", tmp_path / "c", "--benign", tmp_path / "own.jsonl", "--owner", "a")


def test_a_trial_goes_forward_by_two_persons_and_back_by_one(tmp_path: Path) -> None:
    """Nothing begins on refused gates; one signature is too few for a step, enough to go back."""
    case, file = IncidentCase(tmp_path / "c1"), tmp_path / "trial.json"
    incident = Incident(
        id="c1", kind=IncidentKind.MISS, at=1, text="t", clause="c", source="s", reporter="anna"
    )
    case.begin(incident, Dress(Wrapper(family="c1", text="around <<ask>>"), (), "ask"))
    pubs: list[str] = []
    for name in ("anna", "bela"):
        load_or_make_key(tmp_path / f"{name}.pem")
        pubs += ["--person-pub", f"{name}={tmp_path / f'{name}.pub'}"]
    anna = ["--trial", file, "--as", "anna", "--person-key", tmp_path / "anna.pem", *pubs]
    bela = ["--trial", file, "--as", "bela", "--person-key", tmp_path / "bela.pem", *pubs]
    begin = ["trial", "begin", "--case", tmp_path / "c1", "--name", "next", *anna]
    for state in (GateState.REFUSED, GateState.PASSED):
        gate = GateVerdict("golden", state, "said")
        case.keep_report(GateReport("a" * 64, "b" * 64, "c1", GateLimits(), (gate,)))
        if state is GateState.REFUSED:
            with pytest.raises(SafeholdError, match="gates refused"):
                run(*begin)
    assert "in shadow" in run(*begin).output
    assert "step 5 proposed" in run("trial", "next", *anna).output
    with pytest.raises(SafeholdError, match="2 persons, came 1"):
        run("trial", "step", *anna)
    assert "anna, bela" in run("trial", "approve", *bela).output
    proposed = read_artefact(ArtefactKind.TRIAL, tmp_path / "trial.json.next")
    assert "step 5" in run("trial", "step", *bela).output
    assert read_artefact(ArtefactKind.TRIAL, file) == proposed
    run("trial", "excuse", "--decision", "sh_1", *anna)
    run("trial", "approve", *bela)
    assert "serial 3" in run("trial", "step", *anna).output
    assert "goes back" in run("trial", "back", *bela).output
    with pytest.raises(SafeholdError, match="no further step"):
        run("trial", "next", *anna)
    memory = TrialMemory(tmp_path / "memory")
    plan = opened_plan(file.read_bytes(), quorum(tuple(pubs[1::2])))
    memory.change(lambda kept: followed(kept, plan))
    status = json.loads(run("trial", "status", "--memory", tmp_path / "memory", "--json").output)
    assert status["step"] == "rolled-back"
