"""Blind data is looked at once, and a repository is never on both sides."""

import json
from pathlib import Path

import pytest

from safehold.errors import DataError
from safehold.improve.evaluation.interface import EvaluationReport
from safehold.improve.evaluation.items import read_items
from safehold.improve.evaluation.looks import read_looks, record_look
from safehold.improve.evaluation.parts import DataPart, part_of, repository


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("owner/name@abc123:docs/a.md#4", "owner/name"),
        ("owner/name", "owner/name"),
        ("pypi:pint==0.24:defaults.txt", "pypi:pint"),
        ("pypi:pint", "pypi:pint"),
        ("written for this set", "written for this set"),
    ],
)
def test_the_repository_is_what_stands_before_the_version(source: str, expected: str) -> None:
    """Neither a commit, a version nor a file makes another repository."""
    assert repository(source) == expected


def test_a_file_is_divided_by_repository(tmp_path: Path) -> None:
    """Both parts together are the file, and no repository has rows in both."""
    path = tmp_path / "mixed.jsonl"
    rows = [
        {"label": "benign", "text": f"text {n}", "source": f"owner/{n % 9}@{n}:f{n}"}
        for n in range(90)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    parts = {part: read_items(path, "homebrewing", None, part).items for part in DataPart}
    found = {part: {repository(item.origin) for item in items} for part, items in parts.items()}
    assert sum(len(items) for items in parts.values()) == len(rows)
    assert found[DataPart.TUNE]
    assert found[DataPart.BLIND]
    assert not found[DataPart.TUNE] & found[DataPart.BLIND]
    assert all(part_of(item.origin) is part for part, items in parts.items() for item in items)


def report(bundle: str, part: str, files: dict[str, str]) -> EvaluationReport:
    """A report without figures."""
    return EvaluationReport(
        safehold="0", bundle="b", bundle_digest=bundle, constitution="c", code_digest="d",
        files=files, skipped=(), items=0, headline=(), slices=(), categories=(), sources=(),
        separations=(), stops={}, part=part,
    )  # fmt: skip


def test_a_second_look_at_blind_data_is_seen(tmp_path: Path) -> None:
    """Whatever the bundle, only the first look at a data set is blind; other data stay blind."""
    path = tmp_path / "figures.json"
    files = {"a.jsonl": "0" * 64}
    assert record_look(path, report("one", "blind", files)).status == "blind"
    assert record_look(path, report("two", "blind", files)).status == "seen"
    assert record_look(path, report("two", "blind", {"a.jsonl": "1" * 64})).status == "blind"
    assert record_look(path, report("two", "tune", files)).status == "tune"
    assert record_look(path, report("one", "tune", files)).status == "tune"
    assert [look.look for look in read_looks(path).looks] == [1, 2, 1, 1, 2]


def test_a_look_at_undivided_data_is_never_blind(tmp_path: Path) -> None:
    """Without a part nothing says that no setting was chosen on it."""
    assert record_look(tmp_path / "f.json", report("one", "", {"a": "0" * 64})).status == "seen"


def test_a_broken_record_is_refused(tmp_path: Path) -> None:
    """A record that can't be read is an error, never an empty one."""
    path = tmp_path / "figures.json"
    path.write_text("{}x")
    with pytest.raises(DataError, match=r"figures\.json"):
        record_look(path, report("one", "blind", {}))
