"""`safehold synth`, `train` and `serve` for a class of one's own, as its users type them."""

import json
import shutil
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
from safehold.constitution import load
from safehold.errors import ConfigError, ConstitutionError, DataError, UpstreamError, UsageError
from safehold.guard.bundle.signing import load_or_make_key
from safehold.guard.gateway.policy import Settings, Upstream
from safehold.improve.synthesis import dataset
from safehold.improve.synthesis.own import SeedFolder
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
    with pytest.raises(DataError, match="names no neighbours"):
        _run(synth, "--constitution", bare, *url, *out)
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ConstitutionError, match=r"empty\.yaml:1:1"):
        _run(synth, "--constitution", tmp_path / "empty.yaml", *url, *out)


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
