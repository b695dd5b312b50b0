"""`safehold up`: what stops it is one line, and nothing foreign is removed."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli._up import _clear, _fits
from safehold.cli.constitution import constitution
from safehold.cli.up import up
from safehold.errors import BundleError, ConstitutionError, DataError, UpstreamError, UsageError
from safehold.testing.generator import GeneratorServer, Habit, generating

_BIKES = Path(__file__).parents[2] / "examples" / "classes" / "bicycle-repair.yaml"


def _run(*arguments: object) -> None:
    result = CliRunner().invoke(up, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception


def test_an_unfilled_constitution_is_named_with_its_line(tmp_path: Path) -> None:
    """A template as `new` writes it stops before anything is asked or made."""
    path = tmp_path / "glue.yaml"
    CliRunner().invoke(
        constitution, ["new", "glue", "--restricted", "glue-making", "-o", str(path)]
    )
    with generating(GeneratorServer()) as server:
        with pytest.raises(ConstitutionError, match=r"glue\.yaml:\d+:\d+: .*more: ") as caught:
            _run(path, "--generator", server.url, "--out", tmp_path / "g")
        assert server.asked == []
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "g").exists()


def test_no_generator_and_no_seeds_is_a_usage_error(tmp_path: Path) -> None:
    """Without anything that makes text, `up` says which two options there are, and makes no key."""
    key = tmp_path / "key.pem"
    with pytest.raises(UsageError, match="--generator URL"):
        _run(_BIKES, "--out", tmp_path / "g", "--signing-key", key)
    assert not key.exists()
    with pytest.raises(UsageError, match="--upstream"):
        _run(_BIKES, "--port", 8400)


def test_a_generator_that_only_refuses_ends_it_with_the_upstream_status(tmp_path: Path) -> None:
    """A useless generator is exit status 4, before any training."""
    with (
        generating(GeneratorServer(Habit.REFUSES)) as server,
        pytest.raises(UpstreamError) as caught,
    ):
        _run(_BIKES, "--generator", server.url, "--out", tmp_path / "g", "--rounds", 1)
    assert caught.value.exit_status == 4
    assert not (tmp_path / "g" / "bundle").exists()


def test_too_little_traffic_is_said_before_the_generator_is_asked(tmp_path: Path) -> None:
    """What would end the calibration costs no call and no training."""
    traffic = tmp_path / "traffic.jsonl"
    traffic.write_text('{"text": "When does the museum open?"}\n')
    with generating(GeneratorServer()) as server:
        with pytest.raises(DataError, match=r"bound needs .* benign prompts .*, got 1"):
            _run(_BIKES, "--generator", server.url, "--out", tmp_path / "g", "--benign", traffic)
        assert server.asked == []


def test_only_an_earlier_bundle_is_removed(tmp_path: Path) -> None:
    """A folder with something else in it is left alone; a half-written draft goes."""
    notes = tmp_path / "bundle"
    notes.mkdir()
    (notes / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="something else"):
        _clear(notes)
    assert (notes / "notes.txt").read_text() == "mine"
    assert not _fits(notes, "0" * 64, "safehold train", (0.02, 0.06))
    draft = tmp_path / ".other.draft-1"
    draft.mkdir()
    _clear(tmp_path / "other")
    assert not draft.exists()
