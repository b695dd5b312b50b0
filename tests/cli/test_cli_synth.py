"""`safehold synth`, `train` and `serve` for a class of one's own, as its users type them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from safehold.cli._train import constitution_of, refuse_empty_splits
from safehold.cli.constitution import constitution
from safehold.cli.serve import with_defaults
from safehold.cli.synth import synth
from safehold.cli.train import train_command
from safehold.cli.up import up
from safehold.constitution import load
from safehold.errors import ConfigError, ConstitutionError, DataError, UpstreamError, UsageError
from safehold.guard.bundle.signing import load_or_make_key
from safehold.guard.gateway.policy import Settings, Upstream
from safehold.improve.synthesis import dataset
from safehold.improve.synthesis.calls import CallBook
from safehold.improve.synthesis.own import SeedFolder
from safehold.improve.synthesis.seeds import folder_beside
from safehold.testing.generator import GeneratorServer, Habit, generating

_CLASSES = Path(__file__).parents[2] / "examples" / "classes"
_BIKES = _CLASSES / "bicycle-repair.yaml"


def _run(command: click.Command, *arguments: object) -> Any:
    result = CliRunner().invoke(command, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def _copy(folder: Path, **changes: str) -> Path:
    path = folder / "bikes.yaml"
    text = _BIKES.read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A dataset of a class of one's own, and how many calls it took; the second run was free."""
    out = tmp_path_factory.mktemp("own") / "data"
    with generating(GeneratorServer()) as server:
        arguments = ("--constitution", _BIKES, "--generator", server.url, "--out", out,
                     "--size", "small", "--rounds", 2, "--batch", 3)  # fmt: skip
        _run(synth, *arguments, "--json")
        calls = len(server.asked)
        refusing = _run(synth, *arguments, "--for", "refusal")
        assert len(server.asked) == calls
    assert "refusal-pairs.jsonl" in refusing.stdout
    return out, calls


def test_a_constitution_and_a_url_make_a_dataset(made: tuple[Path, int]) -> None:
    """The dataset knows its constitution, holds every answer, and its rows lie in all splits."""
    out, calls = made
    manifest = dataset.manifest_of(out)
    assert manifest.splits["test/restricted"] > 0
    assert constitution_of(out, manifest, None) == load(_BIKES)
    refuse_empty_splits(manifest)
    assert len((out / "calls.jsonl").read_bytes().splitlines()) == calls
    assert (out / "refusal-chat.jsonl").stat().st_size > 0


def test_a_spread_run_makes_the_same_files(made: tuple[Path, int], tmp_path: Path) -> None:
    """With a worker of its own, the answers of the run before give the very bytes it gave."""
    out, _ = made
    shutil.copy(out / "calls.jsonl", tmp_path)
    with generating(GeneratorServer()) as server:
        arguments = ("--constitution", _BIKES, "--generator", server.url, "--out", tmp_path,
                     "--size", "small", "--rounds", 2, "--batch", 3)  # fmt: skip
        _run(synth, *arguments, "--runner", "pool", "--processes", 1)
        assert not server.asked
    assert (tmp_path / "examples.jsonl").read_bytes() == (out / "examples.jsonl").read_bytes()


def test_another_version_of_the_constitution_is_noticed(
    made: tuple[Path, int], tmp_path: Path
) -> None:
    """A dataset whose copy of the constitution was edited is not trained from."""
    out = tmp_path / "data"
    out.mkdir()
    shutil.copy(made[0] / "manifest.json", out)
    (out / "constitution.yaml").write_text(
        _BIKES.read_text(encoding="utf-8").replace('version: "1"', 'version: "2"'), encoding="utf-8"
    )
    with pytest.raises(DataError, match="another version"):
        _run(train_command, "--data", out, "--out", tmp_path / "bundle", "--unsigned")


def test_a_dry_run_calls_nobody(tmp_path: Path) -> None:
    """The plan is told with calls, tokens and cost, and the model hears nothing of it."""
    with generating(GeneratorServer()) as server:
        result = _run(
            synth, "--constitution", _BIKES, "--generator", server.url, "--out", tmp_path / "d",
            "--dry-run", "--price", 1, 2, "--json",
        )  # fmt: skip
        assert server.asked == []
    plan = json.loads(result.stdout)
    assert plan["total"]["calls"] > 100
    assert plan["total"]["cost"] > 0
    assert set(plan["clauses"]) == {f"bicycle-mending/{s.id}" for s in load(_BIKES).stages}
    assert not (tmp_path / "d").exists()


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    """No generator, no neighbours, an empty file, a wrong name: each says what to do."""
    out = ("--out", tmp_path / "d")
    with pytest.raises(UsageError, match="--generator URL"):
        _run(synth, "--constitution", _BIKES, *out)
    with pytest.raises(UsageError, match="no books"):
        _run(synth, "--constitution", _BIKES, "--generator", "written", *out)
    url = ("--generator", "http://127.0.0.1:1/v1", "--generator-model", "m")
    names = "neighbours: [riding-and-touring, buying-a-bicycle, cycling-history-and-sport, "
    names += "traffic-and-law, other-repairs, common-knowledge]"
    bare = _copy(tmp_path, **{names: "neighbours: []"})
    with pytest.raises(ConstitutionError, match="names no permitted neighbour"):
        _run(synth, "--constitution", bare, *url, *out)
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ConstitutionError, match=r"empty\.yaml:1:1"):
        _run(synth, "--constitution", tmp_path / "empty.yaml", *url, *out)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("cycling-history-and-sport, ", "cycling-histori, ", "got cycling-histori, which no"),
        ("  - id: buying-a-bicycle", "  - id: traffic-and-law", "got buying-a-bicycle, which no"),
        ("stages:\n  - id: ", "stages:\n  - id: brakes\n    covers: x\n  - id: ", "brakes"),
    ],
)
@pytest.mark.parametrize("command", ["synth", "dry", "up"])
def test_what_lint_finds_is_said_before_anything_is_paid(
    tmp_path: Path, old: str, new: str, said: str, command: str
) -> None:
    """`synth`, its plan and `up` refuse the same constitution in the same words, unasked."""
    path = _copy(tmp_path, **{old: new})
    with generating(GeneratorServer()) as server:
        words: tuple[object, ...] = ("--generator", server.url, "--out", tmp_path / "d")
        if command == "dry":
            words = (*words, "--dry-run")
        line = (up, path) if command == "up" else (synth, "--constitution", path)
        with pytest.raises(ConstitutionError, match=said) as caught:
            _run(*line, *words)
        assert server.asked == []
    assert caught.value.exit_status == 2
    assert str(caught.value).startswith(f"{path}:")
    assert not (tmp_path / "d").exists()


def test_a_full_disk_is_one_line_and_keeps_what_is_paid(tmp_path: Path) -> None:
    """The place, the reason and what is kept, with status 9; the record is whole."""
    out = tmp_path / "d"
    with generating(GeneratorServer()) as server:
        program = (
            "import resource, sys\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
            "from safehold.cli import main\n"
            "main(sys.argv[1:])\n"
        )
        run = subprocess.run(
            [
                sys.executable, "-c", program, "synth", "--constitution", str(_BIKES),
                "--generator", server.url, "--out", str(out), "--size", "small",
            ],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
    last = run.stderr.splitlines()[-1]
    assert run.returncode == 9, run.stderr
    assert "Traceback" not in run.stderr
    with CallBook(out) as book:
        kept = len(book)
    assert kept > 5
    assert last.startswith(f"safehold: error: {out / 'calls.jsonl'}: File too large; the {kept} ")


def _dead(path: Path) -> None:
    path.symlink_to("nowhere")


def _unreadable(path: Path) -> None:
    path.symlink_to("/proc/self/mem")


@pytest.mark.parametrize("source", ["folder", "beside"])
@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        (b"b.yaml", Path.mkdir, "b.yaml: expected a seed book, got a folder"),
        (b"b.YML", _dead, "b.YML: expected a seed book, got a link to nothing"),
        (b"b.yaml", _unreadable, "b.yaml: Input/output error"),
        (b"b\xff.yaml", Path.touch, r"b\xff.yaml: expected a name in UTF-8"),
        (b"wheels.yaml", Path.touch, "'wheels' twice"),
    ],
)
def test_a_book_that_can_not_be_read_is_named(
    tmp_path: Path, source: str, name: bytes, make: Callable[[Path], None], said: str
) -> None:
    """A folder, a dead link, an odd name: `synth` and `lint` end in one line, and ignore none."""
    folder = tmp_path / "seeds"
    folder.mkdir()
    (folder / "wheels.yml").write_text("clause: bicycle-mending\nside: restricted\nasks: [hello]\n")
    make(folder / os.fsdecode(name))
    path = _copy(tmp_path)
    if source == "folder":
        folder = folder.rename(tmp_path / "books")
    given = ("--seeds", folder) if source == "folder" else ()
    for words in (
        (synth, "--constitution", path, "--out", tmp_path / "d", *given),
        (constitution, "lint", path, *given),
    ):
        with pytest.raises(DataError) as caught:
            _run(*words)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_both_endings_of_a_book_are_read(tmp_path: Path) -> None:
    """`.yml` is a seed book as `.yaml` is; a folder without any is none; a dead one is said."""
    folder = tmp_path / "seeds"
    path = _copy(tmp_path)
    assert folder_beside(path) is None
    folder.mkdir()
    assert folder_beside(path) is None
    for name in ("wheels.yml", "chains.yaml", "notes.txt"):
        (folder / name).write_text(
            f"clause: bicycle-mending\nside: restricted\nasks: [How do I mend {name}?]\n"
        )
    assert folder_beside(path) == folder
    found = list(SeedFolder(load(path), folder).generate(seed=1))
    assert {one.id.split("/")[1] for one in found} == {"wheels", "chains"}
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")
    with pytest.raises(DataError, match="seeds: No such file"):
        folder_beside(path)


def test_a_key_without_rights_is_said_before_the_dataset(tmp_path: Path) -> None:
    """HTTP 403 is final, named as what it is, and leaves no dataset."""
    with (
        generating(GeneratorServer(Habit.NO_RIGHTS)) as server,
        pytest.raises(UpstreamError, match="has no right"),
    ):
        _run(synth, "--constitution", _BIKES, "--generator", server.url, "--out", tmp_path / "d")
    assert not (tmp_path / "d" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("book", "place"),
    [
        ("clause: bicycle-mending\nside: restricted\nasks: [a, b\n", "broken.yaml:"),
        ("clause: bicycle-mending\nside: bad\nasks: [hello]\n", "broken.yaml:2"),
        ("clause: bicycle-mending\nside: restricted\nask: [hello]\n", "broken.yaml:3"),
        ("clause: bicycle-mending\nside: restricted\nasks:\n  - one\n  - one\n", "broken.yaml:5"),
        ("clause: bicycle-mending\nside: restricted\n", "broken.yaml:1"),
    ],
)
def test_a_broken_book_is_named_with_its_line(tmp_path: Path, book: str, place: str) -> None:
    """A seeds folder with a broken book gives file and line, in synth and in lint."""
    folder = tmp_path / "seeds"
    folder.mkdir()
    (folder / "broken.yaml").write_text(book)
    path = _copy(tmp_path)
    with pytest.raises(DataError, match=place) as caught:
        _run(synth, "--constitution", path, "--out", tmp_path / "d")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=place):
        _run(constitution, "lint", path)


def test_seeds_beside_the_constitution_are_found(tmp_path: Path) -> None:
    """A folder `seeds` beside the file is found without an option, and its texts are examples."""
    folder = tmp_path / "seeds"
    folder.mkdir()
    asks = "\n".join(f"  - How do I true wheel {n} with {n + 3} spokes?" for n in range(9))
    (folder / "wheels.yaml").write_text(
        f"clause: bicycle-mending\nside: restricted\nasks:\n{asks}\n"
    )
    path = _copy(tmp_path)
    report = json.loads(_run(constitution, "lint", path, "--json").stdout)
    rules = {finding["rule"] for finding in report[0]["findings"]}
    assert "stage-without-seeds" in rules
    found = list(SeedFolder(load(path), folder).generate(seed=1))
    assert len(found) == 9
    assert all(one.ask and one.clause == "bicycle-mending" for one in found)


def test_an_empty_split_is_said_before_training(made: tuple[Path, int], tmp_path: Path) -> None:
    """A dataset without restricted test rows is refused at once, not after an hour."""
    out = tmp_path / "data"
    out.mkdir()
    shutil.copy(made[0] / "constitution.yaml", out)
    content = json.loads((made[0] / "manifest.json").read_text())
    del content["splits"]["test/restricted"]
    (out / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="test split has no restricted example"):
        _run(train_command, "--data", out, "--out", tmp_path / "b", "--unsigned")


def test_a_bundle_of_ones_own_is_served_without_a_key_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`serve --bundle` trusts the key that `train` made, and says what is missing where none is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    settings = Settings(bundle=str(bundle), upstream=Upstream(url="http://127.0.0.1:1/v1"))
    with pytest.raises(ConfigError, match="--bundle-key"):
        with_defaults(settings)
    key = tmp_path / ".config" / "safehold" / "bundle-key.pem"
    load_or_make_key(key)
    assert with_defaults(settings).bundle_keys == (str(key.with_suffix(".pub")),)
    pinned = Settings(
        bundle=str(bundle), bundle_sha256="0" * 64, upstream=Upstream(url="http://127.0.0.1:1/v1")
    )
    assert with_defaults(pinned).bundle_keys == ()
