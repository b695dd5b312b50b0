"""`safehold respond` from the command line: one case from an example to a rule that two let act."""

import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from safehold.cli import safehold
from safehold.cli._artefacts import read_artefact
from safehold.cli._respond_options import quorum
from safehold.detect.redteam.questions import questions, wrappers
from safehold.errors import SafeholdError
from safehold.guard.bundle.overlay_file import approve, sealed
from safehold.guard.bundle.signing import load_or_make_key
from safehold.guard.gateway.bundles.trial_file import TrialPlan, opened_plan
from safehold.guard.gateway.bundles.trial_memory import TrialMemory, followed
from safehold.guard.overlay.interface import (
    HotRule,
    OverlayContent,
    PlacedRule,
    RuleState,
)
from safehold.improve.response.case import IncidentCase
from safehold.improve.response.gates import GateLimits, GateReport, GateState, GateVerdict
from safehold.improve.response.hotrule import MeasuredRule
from safehold.improve.response.in_force import Force, rule_in_force, trial_in_force
from safehold.improve.response.trial_book import TrialBook
from safehold.stats import Rate
from safehold.testing.response import DRESS, hot_rule, incident
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
    run("approve", "--case", case, *anna, *pubs)
    with pytest.raises(SafeholdError, match="2 persons"):
        run("act", "--case", case, "--hot-rules", rules, *anna, *pubs)
    run("approve", "--case", case, *bela, *pubs)
    assert "acts" in run("act", "--case", case, "--hot-rules", rules, *anna, *pubs).output
    status = json.loads(run("status", "--case", case, *pubs, "--json").output)
    assert status["approved_by"] == ["anna", "bela"]
    assert status["steps"]["report"] is None
    assert (status["rule"]["force"], status["rule"]["file"]) == ("acting", str(rules))
    run("end", "--case", case, "--hot-rules", rules, *anna, *pubs)
    assert "hot rule     ended" in run("status", "--case", case, *pubs).output


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


class Desk:
    """Persons, a case with a rule, and the signed file in which it acts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.case = IncidentCase(root / "c1")
        self.rules = root / "hot.json"
        self.keys = {
            name: load_or_make_key(root / f"{name}.pem") for name in ("anna", "bela", "eve")
        }
        self.case.begin(incident(), DRESS)

    def rule(self, days: float = 7.0, since: float = 0.0, **changes: Any) -> HotRule:
        """Return a rule of the case."""
        now = int(time.time() - since)
        return hot_rule(created=now, expires=int(now + days * 86_400), **changes)

    def put(self, rule: HotRule, *persons: str, signer: str = "anna", **changes: Any) -> None:
        """Keep the rule in the case, and let it act in a file that nobody checks on the way."""
        self.case.keep_rule(MeasuredRule(rule=rule, caught=Rate(9, 10), twins=Rate(0, 10)))
        signed = tuple(approve(rule, name, self.keys[name]) for name in persons)
        placed = PlacedRule(rule, RuleState.ACTING, signed)
        content = OverlayContent(1, int(time.time()), (msgspec.structs.replace(placed, **changes),))
        self.rules.write_bytes(sealed(content, signer, self.keys[signer]))

    def gate(self, *names: str) -> str:
        """Ask `respond gate`, and return why it refuses; without a challenger it always does."""
        pubs = [f"--person-pub={name}={self.root / f'{name}.pub'}" for name in names]
        with pytest.raises(SafeholdError) as refused:
            run(
                "gate", "--case", self.case.folder, "--benign", self.root, "--hot-rules",
                self.rules, *pubs,
            )  # fmt: skip
        return str(refused.value)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Return a desk with a case."""
    return Desk(tmp_path)


def test_a_gate_counts_on_a_rule_that_two_persons_let_act(desk: Desk) -> None:
    """The benign twin of the attacks below: only the challenger is missing."""
    desk.put(desk.rule(), "anna", "bela")
    assert "no challenger yet" in desk.gate("anna", "bela")


def test_a_gate_counts_on_no_rule_that_a_gateway_would_not_let_act(desk: Desk) -> None:
    """Of strangers, of one person, in shadow, ended or ending, changed, twice, torn or no file."""
    desk.put(desk.rule(), "eve", "bela", signer="eve")
    assert "no configured person signed" in desk.gate("anna", "bela")
    desk.put(desk.rule(), "eve", "bela")
    assert "2 persons" in desk.gate("anna", "bela")
    desk.put(desk.rule(), "anna")
    assert "2 persons" in desk.gate("anna", "bela")
    assert "two persons" in desk.gate("anna")
    desk.put(desk.rule(), "anna", "bela")
    assert "anna is there twice" in desk.gate("anna", "anna")
    (desk.root / "bela.pub").rename(desk.root / "kept.pub")
    (desk.root / "bela.pub").write_bytes((desk.root / "anna.pub").read_bytes())
    assert "same key" in desk.gate("anna", "bela")
    (desk.root / "kept.pub").rename(desk.root / "bela.pub")
    desk.put(desk.rule(), "anna", "bela", state=RuleState.SHADOW)
    assert "in shadow" in desk.gate("anna", "bela")
    desk.put(desk.rule(1.0), "anna", broken_glass=True)
    assert "one person alone" in desk.gate("anna", "bela")
    desk.put(desk.rule(2.0, since=3 * 86_400), "anna", "bela")
    assert "time is over" in desk.gate("anna", "bela")
    desk.put(desk.rule(7.0, since=6.5 * 86_400), "anna", "bela")
    assert "within a day" in desk.gate("anna", "bela")
    desk.put(desk.rule(cost=None), "anna", "bela")
    assert "benign cost" in desk.gate("anna", "bela")
    desk.put(desk.rule(), "anna", "bela")
    placed = PlacedRule(desk.rule(), RuleState.SHADOW)
    both = OverlayContent(1, 1, (placed, placed))
    desk.rules.write_bytes(sealed(both, "anna", desk.keys["anna"]))
    assert "twice" in desk.gate("anna", "bela")
    desk.put(desk.rule(), "anna", "bela")
    changed = desk.rule(pattern="any barrel")
    desk.case.keep_rule(MeasuredRule(rule=changed, caught=Rate(9, 10), twins=Rate(0, 10)))
    assert "as the case has it" in desk.gate("anna", "bela")


@pytest.mark.parametrize("kind", ["empty", "torn", "binary", "deep", "huge", "pipe", "none"])
def test_a_gate_reads_no_rules_from_what_is_no_file_of_rules(kind: str, desk: Desk) -> None:
    """Each is one line, at once and within bounds of memory; a folder is a wrong option."""
    desk.put(desk.rule(), "anna", "bela")
    whole = desk.rules.read_bytes()
    given = {
        "empty": b"",
        "torn": whole[: len(whole) // 2],
        "binary": bytes(range(256)) * 9,
        "deep": b"[" * 100_000,
    }
    desk.rules.unlink()
    if kind == "huge":
        with desk.rules.open("wb") as file:
            file.truncate(1 << 40)
    elif kind == "pipe":
        os.mkfifo(desk.rules)
    elif kind != "none":
        desk.rules.write_bytes(given[kind])
    assert "hot rules" in desk.gate("anna", "bela")


def test_a_key_signs_for_no_other_person(desk: Desk, tmp_path: Path) -> None:
    """Every command that signs refuses a key that is not the named person's, and writes nothing."""
    rule = desk.rule()
    desk.put(rule, "anna", "bela")
    desk.case.keep_approval(approve(rule, "anna", desk.keys["anna"]))
    pubs = [f"--person-pub={name}={tmp_path / f'{name}.pub'}" for name in ("anna", "bela")]
    rules, trial = ["--hot-rules", desk.rules], ["--trial", tmp_path / "trial.json"]
    case = ["--case", desk.case.folder]
    signing: list[list[Any]] = [
        ["approve", *case],
        ["begin-rules", *rules],
        ["shadow", *case, *rules],
        ["act", *case, *rules],
        ["end", *case, *rules],
        ["trial", "excuse", *trial, "--decision", "sh_1"],
        ["trial", "approve", *trial],
        ["trial", "back", *trial],
    ]
    before = {one: one.read_bytes() for one in sorted(tmp_path.rglob("*")) if one.is_file()}
    for words in signing:
        for person, key, said in (
            ("anna", "bela", "expected the private key of 'anna' .* got that of 'bela'"),
            ("anna", "eve", "got another one"),
            ("eve", "eve", "no public key was given for 'eve'"),
        ):
            signer = ["--as", person, "--person-key", tmp_path / f"{key}.pem"]
            with pytest.raises(SafeholdError, match=said):
                run(*words, *signer, *pubs)
    after = {one: one.read_bytes() for one in sorted(tmp_path.rglob("*")) if one.is_file()}
    assert after == before


def test_status_says_what_rule_and_trials_do(desk: Desk) -> None:
    """Not placed, in shadow, acting, ended or unknown: as the signed files have it now."""
    now = int(time.time())
    rule = desk.rule()
    counted = quorum(tuple(f"{name}={desk.root / f'{name}.pub'}" for name in ("anna", "bela")))

    def force(one: HotRule = rule, at: int = now) -> Force:
        return rule_in_force(desk.case.rules_file(), counted, one, at).force

    assert force() is Force.UNPLACED
    desk.case.keep_rules_file(desk.rules)
    assert force() is Force.UNKNOWN, "the file is gone"
    desk.put(rule, "anna", "bela")
    assert force() is Force.ACTING
    assert force(at=rule.expires) is Force.ENDED
    assert force(desk.rule(id="other-rule")) is Force.ENDED
    desk.put(rule, state=RuleState.SHADOW)
    assert force() is Force.SHADOW
    desk.put(rule, "anna", "bela", signer="eve")
    assert force() is Force.UNKNOWN

    file = desk.root / "trial.json"
    gate = GateVerdict("family", GateState.PASSED, "said")
    report = GateReport("a" * 64, "b" * 64, "c1", GateLimits(), (gate,))
    plan = TrialPlan(
        id="c1-b", serial=1, champion="a" * 64, challenger="b" * 64, folder="b",
        report=report.digest,
    )  # fmt: skip
    books = {name: TrialBook(file, counted, name, desk.keys[name]) for name in ("anna", "bela")}

    def step(digest: str = report.digest) -> Force:
        return trial_in_force(file, counted, digest).force

    assert step() is Force.UNKNOWN
    books["anna"].begin(plan)
    assert step() is Force.SHADOW
    assert step("c" * 64) is Force.ENDED, "the file is another case's trial now"
    books["anna"].propose()
    books["bela"].approve()
    books["anna"].take()
    assert step() is Force.ACTING
    books["bela"].back()
    assert step() is Force.ENDED
    desk.case.keep_report(report)
    desk.case.keep_trial(file)
    pubs = [f"--person-pub={name}={desk.root / f'{name}.pub'}" for name in ("anna", "bela")]
    assert (
        "trial        c1-b ended (rolled back)"
        in run("status", "--case", desk.case.folder, *pubs).output
    )


def test_a_trial_begins_only_while_the_rule_acts_that_its_gates_counted_on(desk: Desk) -> None:
    """A rule that was taken out between gate and release leaves a bundle that may not go alone."""
    gate = GateVerdict("family", GateState.PASSED, "said")
    report = GateReport("a" * 64, "b" * 64, "c1", GateLimits(), (gate,), rule_stays="c1-rule")
    desk.case.keep_report(report)
    desk.put(desk.rule(), "anna", "bela")
    pubs = [f"--person-pub={name}={desk.root / f'{name}.pub'}" for name in ("anna", "bela")]
    anna = ["--as", "anna", "--person-key", desk.root / "anna.pem", *pubs]
    file = desk.root / "trial.json"
    begin = ["trial", "begin", "--case", desk.case.folder, "--trial", file, "--name", "n", *anna]
    with pytest.raises(SafeholdError, match="beside rule c1-rule: give --hot-rules"):
        run(*begin)
    run("end", "--case", desk.case.folder, "--hot-rules", desk.rules, *anna)
    with pytest.raises(SafeholdError, match="is not in"):
        run(*begin, "--hot-rules", desk.rules)
    assert not file.exists()
    desk.put(desk.rule(), "anna", "bela")
    assert "in shadow" in run(*begin, "--hot-rules", desk.rules).output


def test_a_rule_that_a_trial_rests_on_ends_with_a_warning(desk: Desk) -> None:
    """The trial is named while it runs; before it and after its way back nothing is said."""
    gate = GateVerdict("family", GateState.PASSED, "said")
    report = GateReport("a" * 64, "b" * 64, "c1", GateLimits(), (gate,), rule_stays="c1-rule")
    desk.case.keep_report(report)
    pubs = [f"--person-pub={name}={desk.root / f'{name}.pub'}" for name in ("anna", "bela")]
    anna = ["--as", "anna", "--person-key", desk.root / "anna.pem", *pubs]
    of = ["--case", desk.case.folder, "--hot-rules", desk.rules]
    file = desk.root / "trial.json"

    def ended() -> str:
        desk.put(desk.rule(), "anna", "bela")
        found = run("end", *of, *anna)
        assert "c1-rule ended" in found.stdout
        return found.stderr

    assert ended() == ""
    desk.put(desk.rule(), "anna", "bela")
    run("trial", "begin", *of, "--trial", file, "--name", "n", *anna)
    assert len(ended().splitlines()) == 1
    assert f"trial c1-bbbbbbbb ({file}, step shadow) rests on rule c1-rule" in ended()
    desk.case.keep_report(msgspec.structs.replace(report, challenger="d" * 64))
    assert ended() == "", "another challenger's gates"
    desk.case.keep_report(report)
    run("trial", "back", "--trial", file, *anna)
    assert ended() == ""


def test_a_rule_that_ends_in_the_trial_holds_up_every_step_but_the_way_back(desk: Desk) -> None:
    """Proposed or taken: no step without its rule, with another case, or with one person's rule."""
    gate = GateVerdict("family", GateState.PASSED, "said")
    report = GateReport("a" * 64, "b" * 64, "c1", GateLimits(), (gate,), rule_stays="c1-rule")
    desk.case.keep_report(report)
    desk.put(desk.rule(), "anna", "bela")
    file = desk.root / "trial.json"
    pubs = [f"--person-pub={name}={desk.root / f'{name}.pub'}" for name in ("anna", "bela")]
    anna = ["--trial", file, "--as", "anna", "--person-key", desk.root / "anna.pem", *pubs]
    bela = ["--trial", file, "--as", "bela", "--person-key", desk.root / "bela.pem", *pubs]
    of = ["--case", desk.case.folder, "--hot-rules", desk.rules]
    run("trial", "begin", *of, "--name", "n", *anna)
    with pytest.raises(SafeholdError, match="beside rule c1-rule: give --hot-rules"):
        run("trial", "next", "--case", desk.case.folder, *anna)
    run("trial", "next", *of, *anna)
    run("trial", "approve", *bela)
    before = file.read_bytes()
    with pytest.raises(SafeholdError, match="beside rule c1-rule: give --hot-rules"):
        run("trial", "step", "--case", desk.case.folder, *bela)
    desk.put(desk.rule(1.0), "anna", broken_glass=True)
    with pytest.raises(SafeholdError, match="one person alone"):
        run("trial", "step", *of, *bela)
    desk.put(desk.rule(2.0, since=3 * 86_400), "anna", "bela")
    for act in ("next", "step"):
        with pytest.raises(SafeholdError, match="time is over"):
            run("trial", act, *of, *bela)
    other = IncidentCase(desk.root / "c2")
    other.begin(incident(id="c2"), DRESS)
    other.keep_report(msgspec.structs.replace(report, rule_stays="", challenger="d" * 64))
    with pytest.raises(SafeholdError, match="not the case that trial"):
        run("trial", "step", "--case", other.folder, *bela)
    assert file.read_bytes() == before
    desk.put(desk.rule(), "anna", "bela")
    assert "step 5" in run("trial", "step", *of, *bela).output
    desk.rules.unlink()
    assert "goes back" in run("trial", "back", *bela).output


def test_a_trial_goes_forward_by_two_persons_and_back_by_one(tmp_path: Path) -> None:
    """Nothing begins on refused gates; one signature is too few for a step, enough to go back."""
    case, file = IncidentCase(tmp_path / "c1"), tmp_path / "trial.json"
    case.begin(incident(), DRESS)
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
    of = ["--case", tmp_path / "c1"]
    assert "step 5 proposed" in run("trial", "next", *of, *anna).output
    with pytest.raises(SafeholdError, match="2 persons, came 1"):
        run("trial", "step", *of, *anna)
    assert "anna, bela" in run("trial", "approve", *bela).output
    proposed = read_artefact(ArtefactKind.TRIAL, tmp_path / "trial.json.next")
    assert "step 5" in run("trial", "step", *of, *bela).output
    assert read_artefact(ArtefactKind.TRIAL, file) == proposed
    run("trial", "excuse", "--decision", "sh_1", *anna)
    run("trial", "approve", *bela)
    assert "serial 3" in run("trial", "step", *of, *anna).output
    assert "goes back" in run("trial", "back", *bela).output
    with pytest.raises(SafeholdError, match="no further step"):
        run("trial", "next", *of, *anna)
    memory = TrialMemory(tmp_path / "memory")
    plan = opened_plan(file.read_bytes(), quorum(tuple(pubs[1::2])))
    memory.change(lambda kept: followed(kept, plan))
    status = json.loads(run("trial", "status", "--memory", tmp_path / "memory", "--json").output)
    assert status["step"] == "rolled-back"
