"""`safehold constitution` as its users type it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from safehold.cli.constitution import constitution
from safehold.constitution import load, stock
from safehold.errors import ConstitutionError, UsageError


def run(*arguments: str) -> Result:
    """Run the command group."""
    return CliRunner().invoke(constitution, arguments)


def test_stock_constitutions_pass_with_their_seeds() -> None:
    """Every stock constitution is without error, its written seeds included."""
    result = run("lint", "--json")
    report = json.loads(result.output)
    errors = [f for one in report for f in one["findings"] if f["severity"] == "error"]
    assert (errors, result.exit_code) == ([], 0)
    assert [one["constitution"] for one in report] == list(stock())


def test_lint_error_exits_with_one(tmp_path: Path) -> None:
    """An error gives a line with place, severity and rule, and status 1."""
    path = tmp_path / "glue.yaml"
    run("new", "glue", "--restricted", "glue-making", "-o", str(path))
    result = run("lint", str(path))
    assert result.exit_code == 1
    assert f"{path}:7:1: error empty-text: principle: expected a text" in result.output


def test_broken_schema_is_a_finding(tmp_path: Path) -> None:
    """A file that breaks the schema is reported like any finding, as JSON too."""
    path = tmp_path / "glue.yaml"
    path.write_text("schema: 1\nnmae: glue\n")
    result = run("lint", str(path), "--json")
    (finding,) = json.loads(result.output)[0]["findings"]
    assert (result.exit_code, finding["rule"], finding["line"]) == (1, "schema", 2)


def test_warnings_fail_only_when_strict(tmp_path: Path) -> None:
    """A warning alone exits 0, and 1 with --strict."""
    path = tmp_path / "few.yaml"
    text = "neighbours: [history, carpentry]"
    path.write_text(_clean().replace("neighbours: [history, carpentry, food]", text))
    assert run("lint", str(path)).exit_code == 1  # food is named by nobody now
    path.write_text(_clean().replace("    role: general\n", "").replace("food]", "food, general]"))
    assert run("lint", str(path)).exit_code == 0
    assert run("lint", str(path), "--strict").exit_code == 1


def test_seed_coverage_follows_the_name(tmp_path: Path) -> None:
    """A copy of a stock constitution with one more clause lacks seeds, unless told not to look."""
    path = tmp_path / "soap.yaml"
    shown = json.loads(run("show", "soap", "--json").output)
    del shown["digest"]
    extra = {**shown["permitted"][0], "id": "knitting", "policy": "Knitting " * 9}
    shown["permitted"].append(extra)
    shown["restricted"][0]["neighbours"].append("knitting")
    path.write_text(json.dumps(shown))
    report = json.loads(run("lint", str(path), "--json").output)
    assert [f["rule"] for f in report[0]["findings"]] == ["clause-without-seeds"]
    assert run("lint", str(path), "--no-seeds").exit_code == 0


def test_show_prints_the_digest_that_bundles_record() -> None:
    """Text and JSON carry the same digest as the loaded constitution."""
    digest = load("homebrewing").digest
    assert digest in run("show", "homebrewing").output
    assert json.loads(run("show", "homebrewing", "--json").output)["digest"] == digest


def test_show_one_clause() -> None:
    """A clause shows its wording, stages and what is commonly known."""
    output = run("show", "homebrewing", "--clause", "mead-production").output
    assert "nutrient schedules" in " ".join(output.split())
    assert "Commonly known" in output
    assert json.loads(run("show", "soap", "--clause", "brewing", "--json").output)["tier"] == (
        "benign"
    )
    assert isinstance(run("show", "soap", "--clause", "beer").exception, ConstitutionError)


def test_hostile_text_can_not_rewrite_the_terminal(tmp_path: Path) -> None:
    """Escape sequences in a file reach the terminal as visible escapes."""
    path = tmp_path / "hostile.yaml"
    path.write_text(_clean().replace("title: Glue\n", 'title: "\\e[2JGlue [red]x"\n'))
    for arguments in (("show", str(path)), ("lint", str(path))):
        output = run(*arguments).output
        assert "\x1b" not in output
    assert "\\u{1b}[2JGlue [red]x" in run("show", str(path)).output


def test_list_names_all() -> None:
    """The list has every stock constitution and says which is operator-only."""
    rows = {row["name"]: row for row in json.loads(run("list", "--json").output)}
    assert tuple(rows) == stock()
    assert rows["cbrn"]["generator"] == "operator-only"
    assert "homebrewing" in run("list").output


def test_new_never_overwrites(tmp_path: Path) -> None:
    """An existing file stays as it is."""
    path = tmp_path / "glue.yaml"
    path.write_text("mine")
    result = run("new", "glue", "--restricted", "glue-making", "-o", str(path))
    assert isinstance(result.exception, UsageError)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ("Glue", "--restricted", "glue-making"),
        ("glue", "--restricted", "glue making"),
        ("glue", "--restricted", "a", "--restricted", "a"),
        ("glue", "--restricted", "a", "--stage", "x\n"),
        ("glue", "--restricted", "a", "--title", "a\nb"),
        ("glue",),
        ("glue", "--example"),
        ("../stock/cbrn", "--example"),
        ("bicycle-repair", "--example", "--restricted", "a"),
    ],
)
def test_new_refuses_what_the_schema_would(arguments: tuple[str, ...]) -> None:
    """Names that could not be loaded again are refused before anything is written."""
    assert isinstance(run("new", *arguments).exception, UsageError)


def test_a_finished_example_lacks_nothing(tmp_path: Path) -> None:
    """What `--example` writes is ready to train from, wherever the package is installed."""
    path = tmp_path / "bicycle-repair.yaml"
    run("new", "bicycle-repair", "--example", "-o", str(path))
    assert run("lint", str(path), "--strict").exit_code == 0


def test_new_follows_the_schema(tmp_path: Path) -> None:
    """A new file loads; only texts are missing; its title is kept whatever it holds."""
    path = tmp_path / "glue.yaml"
    title = 'The "Glue" \\ set: #1'
    run("new", "no", "--restricted", "null", "--title", title, "-o", str(path))
    assert (load(path).name, load(path).title) == ("no", title)
    report = json.loads(run("lint", str(path), "--json").output)
    rules = {f["rule"] for f in report[0]["findings"]}
    assert rules == {"empty-text"}


def test_rules_are_listed() -> None:
    """The rules can be listed with their severity."""
    rules = json.loads(run("lint", "--rules", "--json").output)
    assert {"rule", "severity", "summary"} == set(rules[0])
    assert "unreferenced-stage" in run("lint", "--rules").output


def test_command_line_ends_in_one_line_and_a_status() -> None:
    """The real command prints one line for an unknown name and exits with status 2."""
    done = subprocess.run(
        [sys.executable, "-m", "safehold", "constitution", "show", "nope"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "expected a file or a stock constitution" in done.stderr


def _clean() -> str:
    """Return a small constitution without findings."""
    long = "with wording that is long enough to decide by, as every clause should have."
    return f"""\
schema: 1
name: glue
title: Glue
version: "1"
principle: The whole workflow of making glue, {long}
stages:
  - id: cooking
    covers: Heating the hides.
restricted:
  - id: glue-making
    title: Making glue
    tier: prohibited
    policy: Making glue, {long}
    stages: [cooking]
    commonly_known:
      statement: Facts about glue, {long}
      examples: [Glue sticks.]
    neighbours: [history, carpentry, food]
permitted:
  - id: history
    title: History
    policy: History, {long}
  - id: carpentry
    title: Carpentry
    policy: Carpentry, {long}
  - id: food
    title: Food
    policy: Food, {long}
  - id: general
    title: Everything else
    role: general
    policy: Everything else, {long}
"""
