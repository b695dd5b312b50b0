"""Places on the command line: what can't be written to is refused before any work."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from safehold.cli import main, safehold
from safehold.cli._places import OutPlace, key_file, out_file, out_folder
from safehold.errors import BundleError, DataError
from safehold.guard.bundle.load import UnsafeUnsigned, load_bundle
from safehold.guard.bundle.write import write_bundle
from safehold.testing.bundles import write_tiny

_COMMANDS = ("calibrate", "constitution neighbours", "constitution new", "eval", "redteam run",
             "synth", "train", "up")  # fmt: skip
_NAMES = {"--out", "--output", "--record", "--sheet", "--signing-key"}


def _command(path: str) -> click.Command:
    found: click.Command = safehold
    for name in path.split():
        assert isinstance(found, click.Group)
        one = found.get_command(click.Context(found), name)
        assert one is not None
        found = one
    return found


_PLACES = [
    (path, option)
    for path in _COMMANDS
    for option in _command(path).params
    if _NAMES.intersection(option.opts)
]


def test_every_place_that_is_written_to_has_its_type() -> None:
    """No command about an own class learns at its end that it can't write."""
    assert {path for path, _ in _PLACES} == set(_COMMANDS)
    assert [one for one in _PLACES if not isinstance(one[1].type, OutPlace)] == []


_IMPOSSIBLE = ("/dev/null/x", "/proc/x", "loop", "file/x", "", "a" * 300)


@pytest.mark.parametrize("place", _IMPOSSIBLE)
@pytest.mark.parametrize(("path", "option"), _PLACES)
def test_an_impossible_place_is_one_line(
    path: str, option: click.Parameter, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 2, the option and the reason, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("file").write_text("text")
    result = CliRunner().invoke(safehold, [*path.split(), option.opts[-1], place])
    assert result.exit_code == 2
    last = result.output.strip().rsplit("\n", 1)[-1]
    assert last.startswith("Error: Invalid value for '-")
    assert option.opts[-1] in last
    assert {one.name for one in tmp_path.iterdir()} == {"file", "loop"}


def test_a_file_wants_its_folder_and_a_folder_may_be_new(tmp_path: Path) -> None:
    """What is possible is taken as it is, and looking leaves nothing behind."""
    (tmp_path / "there").write_text("text")
    for kind, name in (
        (out_file(), "new"),
        (out_file(), "there"),
        (out_file(makes_folders=True), "a/b/c"),
        (out_folder(), "a/b/c"),
        (out_folder(), "."),
        (key_file(), "a/b"),
        (key_file(), "there"),
    ):
        assert kind.convert(str(tmp_path / name), None, None) == tmp_path / name
    for kind, name in ((out_file(), "a/b"), (out_file(), "."), (out_folder(), "there")):
        with pytest.raises(click.BadParameter) as caught:
            kind.convert(str(tmp_path / name), None, None)
        assert "\n" not in caught.value.message
    with pytest.raises(click.BadParameter, match="no folder"):
        out_folder().convert("/dev/null", None, None)
    assert [one.name for one in tmp_path.iterdir()] == ["there"]


def test_calibrate_refuses_a_bundle_that_stands_before_it_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle is never written over, and that is said before the traffic is read."""
    write_tiny(tmp_path / "tiny")
    (tmp_path / "t.jsonl").write_text("no traffic")
    words = ["calibrate", str(tmp_path / "tiny"), "--unsafe-unsigned-bundle", "--unsigned"]
    words += ["--benign", str(tmp_path / "t.jsonl"), "--out", str(tmp_path / "tiny")]
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == BundleError.exit_status
    assert "exists already" in capsys.readouterr().err


def test_a_bundle_that_cant_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    """A disk that fails at the end gives one line, and leaves no draft."""
    (tmp_path / "file").write_text("text")
    write_tiny(tmp_path / "tiny")
    loaded = load_bundle(tmp_path / "tiny", UnsafeUnsigned())
    with pytest.raises(BundleError, match="can't be written"):
        write_bundle(tmp_path / "file" / "x", loaded.manifest, {}, None)


def test_the_usual_key_is_not_looked_for_before_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the home folder takes nothing, `--unsigned` still goes on to the next check."""
    monkeypatch.setenv("HOME", "/dev/null")
    (tmp_path / "data").mkdir()
    words = ["train", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "o"), "--unsigned"]
    result = CliRunner().invoke(safehold, words)
    assert "signing-key" not in result.output
    assert isinstance(result.exception, DataError)


def test_help_of_a_benchmark_writes_nothing(tmp_path: Path) -> None:
    """`--help` is no folder to fill."""
    root = Path(__file__).parents[2]
    for module in ("guard_own", "mutation_map", "recorded_generator"):
        run = subprocess.run(
            [sys.executable, "-m", f"bench.{module}", "--help"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{root}:{root / 'src'}"},
            check=True,
            capture_output=True,
        )
        assert run.stdout.startswith(b"usage: ")
    assert list(tmp_path.iterdir()) == []
