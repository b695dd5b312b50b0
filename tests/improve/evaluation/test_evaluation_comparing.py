"""Two bundles compared by what they do: one item that is no longer stopped is found."""

from pathlib import Path

import msgspec
import pytest

from safehold.canonical import canonical
from safehold.errors import DataError
from safehold.improve.evaluation.cache import run_key
from safehold.improve.evaluation.comparing import compare_bundles
from safehold.improve.evaluation.interface import EvaluationReport, ItemScores, Score
from safehold.trust.release.comparison import comparison_statement, golden_digest

CODE = "c" * 64
FILES = {"data.jsonl": "d" * 64}


def scored(blocked: bool) -> Score:  # noqa: FBT001 - a value
    """Return a score."""
    return Score(stage1=0.0, final=None, blocked=blocked, escalations=0)


def evaluation(
    folder: Path, digest: str, blocked: dict[str, bool], alarms: tuple[str, ...] = (), **given: str
) -> Path:
    """Write what `safehold eval` writes, of prompts alone."""
    folder.mkdir()
    report = EvaluationReport(
        safehold="0",
        bundle="b",
        bundle_digest=digest,
        constitution="homebrewing",
        code_digest=CODE,
        files=FILES,
        skipped=(),
        items=len(blocked),
        headline=(),
        slices=(),
        categories=(),
        sources=(),
        separations=(),
        stops={},
    )
    report = msgspec.structs.replace(report, **given)
    (folder / "report.json").write_bytes(msgspec.json.encode(report))
    run = run_key(digest, FILES["data.jsonl"], CODE, "whole")
    stale = {"run": "another", "item": "x", "scores": ItemScores(scored(blocked=True), None)}
    lines = [stale]
    lines += [
        {"run": run, "item": item, "scores": ItemScores(scored(stops), None)}
        for item, stops in blocked.items()
    ]
    (folder / "scores.jsonl").write_bytes(
        b"".join(msgspec.json.encode(one) + b"\n" for one in lines)
    )
    failed = [{"item": item, "surface": "prompt", "blocked": True} for item in alarms]
    (folder / "failures.jsonl").write_bytes(
        b"".join(msgspec.json.encode(one) + b"\n" for one in failed)
    )
    return folder


OLD = {"a": True, "b": True, "c": False, "d": True}


def test_an_item_that_is_no_longer_stopped_is_listed(tmp_path: Path) -> None:
    """The lost one is named; what is stopped in addition does not make up for it."""
    old = evaluation(tmp_path / "old", "1" * 64, OLD)
    new = evaluation(tmp_path / "new", "2" * 64, OLD | {"b": False, "c": True})
    found = compare_bundles(old, new)
    assert found.lost == ("b prompt",)
    assert (found.old, found.new, found.items) == ("1" * 64, "2" * 64, 4)
    assert found.golden == golden_digest(FILES)


def test_two_who_measure_the_same_sign_the_same_bytes(tmp_path: Path) -> None:
    """Nothing of the run goes in: another place and another machine's figures change nothing."""
    found = []
    for who, version in (("ana", "1"), ("ben", "2")):
        (tmp_path / who).mkdir()
        old = evaluation(tmp_path / who / "old", "1" * 64, OLD, safehold=version)
        new = evaluation(tmp_path / who / "new", "2" * 64, OLD | {"b": False}, safehold=version)
        found.append(canonical(comparison_statement(compare_bundles(old, new))))
    assert found[0] == found[1]


def test_a_false_alarm_that_is_gone_is_no_loss(tmp_path: Path) -> None:
    """What the old bundle stopped wrongly may pass; the same verdicts lose nothing."""
    old = evaluation(tmp_path / "old", "1" * 64, OLD, alarms=("d",))
    new = evaluation(tmp_path / "new", "2" * 64, OLD | {"d": False})
    assert compare_bundles(old, new).lost == ()


@pytest.mark.parametrize(
    ("changed", "verdicts"),
    [
        ({"code_digest": "e" * 64}, OLD),
        ({"part": "blind"}, OLD),
        ({"constitution": "soap"}, OLD),
        ({}, {"a": True}),
        ({}, {}),
    ],
)
def test_evaluations_of_other_data_are_not_compared(
    tmp_path: Path, changed: dict[str, str], verdicts: dict[str, bool]
) -> None:
    """Other code, another part, another constitution, fewer items: refused."""
    old = evaluation(tmp_path / "old", "1" * 64, OLD)
    new = evaluation(tmp_path / "new", "2" * 64, verdicts, **changed)
    with pytest.raises(DataError):
        compare_bundles(old, new)


@pytest.mark.parametrize("name", ["report.json", "scores.jsonl", "failures.jsonl"])
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, name: str) -> None:
    """Each of the three files is needed."""
    old = evaluation(tmp_path / "old", "1" * 64, OLD)
    new = evaluation(tmp_path / "new", "2" * 64, OLD)
    (old / name).unlink()
    with pytest.raises(DataError):
        compare_bundles(old, new)
