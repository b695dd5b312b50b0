"""Of two commands that go on from one record the second one says so and writes nothing."""

from pathlib import Path

import pytest

from safehold.cli import main
from safehold.record_file import RecordFile, alone_in


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must end with status 2; return its one line."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_two_attacks_on_one_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`redteam run` waits for the end of the other one."""
    out = tmp_path / "attacks.jsonl"
    words = ("redteam", "run", "--unsafe-no-guard", "--attempts", "2", "--out", str(out))
    with RecordFile(out):
        assert "attacks.jsonl is being written by another process" in refused(capsys, *words)
    assert out.read_bytes() == b""


def test_two_runs_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`capability run` asks the model nothing while another one does."""
    words = (
        "capability", "run", "--upstream", "http://127.0.0.1:9/v1", "--model", "a" * 64,
        "--model-name", "m", "--compute", "1", "--out", str(tmp_path),
    )  # fmt: skip
    with RecordFile(tmp_path / "samples.jsonl"):
        assert "samples.jsonl is being written by another process" in refused(capsys, *words)
    assert [one.name for one in tmp_path.iterdir()] == ["samples.jsonl"]


def test_two_guards_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`up` makes no dataset where another one is at work."""
    out = tmp_path / "mine"
    with alone_in(out, "it is being filled"):
        said = refused(capsys, "up", "homebrewing", "--out", str(out))
    assert "mine is being filled by another process" in said
    assert list(out.iterdir()) == []
