"""`safehold respond` from the command line: one case from an example to a rule that two let act."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from safehold.cli import safehold
from safehold.detect.redteam.questions import questions, wrappers
from safehold.errors import SafeholdError
from safehold.guard.bundle.signing import load_or_make_key

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
