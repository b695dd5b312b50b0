"""`safehold redteam` takes a bundle as every other command does."""

from pathlib import Path

import pytest

from safehold.cli import main
from safehold.guard.bundle.stock import stock_bundle


def test_a_stock_bundle_is_attacked_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name alone says why to trust it, and the plan names the pinned digest."""
    out = tmp_path / "attacks.jsonl"
    with pytest.raises(SystemExit) as ended:
        main(["redteam", "run", "--bundle", "homebrewing", "--attempts", "2", "--out", str(out)])
    assert ended.value.code == 0
    assert "n=2" in capsys.readouterr().out
    assert stock_bundle()[1].sha256 in out.read_text("utf-8")


def test_a_folder_needs_a_reason_to_be_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stock bundle's folder is a folder like any other."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder, _ = stock_bundle()
    words = ["redteam", "run", "--bundle", str(folder), "--out", str(tmp_path / "a.jsonl")]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code
    assert "--bundle-sha256 DIGEST" in capsys.readouterr().err
