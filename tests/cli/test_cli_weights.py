"""`safehold weights` and `safehold keyd`: right and wrong use."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from safehold.cli import safehold
from safehold.errors import SafeholdError, UsageError, WeightsError
from safehold.testing.weights import write_model

pytestmark = pytest.mark.filterwarnings("ignore:key files")


def _run(*words: str | Path) -> Result:
    return CliRunner().invoke(safehold, [str(word) for word in words])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a small model, a publisher and a key-file provider."""
    write_model(tmp_path / "plain", shards=1)
    (tmp_path / "unsafe.toml").write_text('kind = "unsafe-local"\nfolder = "keys"\n')
    assert _run("weights", "keygen", tmp_path / "publisher").exit_code == 0
    return tmp_path


def _seal(place: Path, *more: str) -> Result:
    words = ["--model", "brewer", "--version", "1", "--chunk-kib", "64", *more]
    return _run(
        *("weights", "seal", place / "plain", place / "sealed", "--signer", place / "publisher"),
        *("--provider", place / "unsafe.toml", *words),
    )


def test_seal_verify_and_info(place: Path) -> None:
    """A folder is sealed, verifies with public keys alone, and tells its content id."""
    sealed = _seal(place, "--json")
    assert sealed.exit_code == 0, sealed.output
    verified = _run(
        "weights", "verify", place / "sealed", "--publisher", place / "publisher", "--json"
    )
    assert json.loads(verified.stdout)["depth"] == "every sealed byte"
    told = _run("weights", "info", place / "sealed", "--publisher", place / "publisher", "--json")
    last = sealed.stdout.splitlines()[-1]
    assert json.loads(told.stdout)["content_sha256"] == json.loads(last)["content_sha256"]


def test_unsafe_provider_warns_in_one_line(place: Path) -> None:
    """A warning is one line of ours, without file names and source text of the program."""
    words = [
        *("weights", "seal", place / "plain", place / "sealed", "--signer", place / "publisher"),
        *("--provider", place / "unsafe.toml", "--model", "brewer", "--version", "1", "--json"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "safehold", *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
    )
    warned = [line for line in done.stderr.splitlines() if "key files" in line]
    assert len(warned) == 1
    assert warned[0].startswith("safehold: warning: key files in ")
    assert "config.py" not in done.stderr


def test_verify_names_the_changed_file(place: Path) -> None:
    """A flipped bit ends in an error that names its file."""
    _seal(place)
    path = place / "sealed" / "config.json.sealed"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = _run("weights", "verify", place / "sealed", "--publisher", place / "publisher")
    assert isinstance(found.exception, WeightsError)
    assert "config.json" in str(found.exception)


def test_load_without_a_key_service_is_one_clear_line(place: Path) -> None:
    """Nothing loads without the key service."""
    _seal(place)
    (place / "log.json").write_text('{"origin":"o","key":"k","emitters":[]}')
    found = _run(
        *("weights", "load", place / "sealed", "--publisher", place / "publisher"),
        *("--keyd", place / "none.sock", "--grant", "ab" * 32, "--log-keys", place / "log.json"),
    )
    assert isinstance(found.exception, WeightsError)
    assert "no key service" in str(found.exception)


def test_unsafe_rewrap_between_key_files(place: Path) -> None:
    """Key files may be rewrapped without the key service, by an option that says unsafe."""
    _seal(place)
    (place / "other.toml").write_text('kind = "unsafe-local"\nfolder = "other"\n')
    done = _run(
        *("weights", "rewrap", place / "sealed", "--signer", place / "publisher", "--json"),
        *("--unsafe-without-keyd", place / "unsafe.toml", "--provider", place / "other.toml"),
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["revision"] == 2


def test_hsm_does_not_open_without_the_key_service(place: Path) -> None:
    """An HSM, Vault or KMS is never unwrapped from outside keyd."""
    _seal(place)
    (place / "hsm.toml").write_text('kind = "pkcs11"\nmodule = "m"\ntoken = "t"\npin_file = "p"\n')
    found = _run(
        *("weights", "rewrap", place / "sealed", "--signer", place / "publisher"),
        *("--unsafe-without-keyd", place / "hsm.toml", "--provider", place / "unsafe.toml"),
    )
    assert isinstance(found.exception, UsageError)


@pytest.mark.parametrize(
    "text", ['kind = "floppy"', 'kind = "unsafe-local"\nfolder = "k"\ncolour = 1']
)
def test_wrong_provider_file_is_refused(place: Path, text: str) -> None:
    """An unknown kind or member of a provider file is an error that lists the kinds."""
    (place / "unsafe.toml").write_text(text)
    found = _seal(place)
    assert isinstance(found.exception, SafeholdError)
    assert "pkcs11" in str(found.exception)
    (place / "unsafe.toml").write_text("nonsense")
    assert "expected TOML" in _seal(place).output


@pytest.mark.parametrize("words", [["--budget", "lots"], [], ["--budget", "1GB", "--grant", "x"]])
def test_meter_wants_one_sound_budget(place: Path, words: list[str]) -> None:
    """No budget, two budgets, or nonsense: usage errors."""
    _seal(place)
    found = _run("weights", "meter", place / "sealed", *words)
    assert isinstance(found.exception, UsageError)


def test_keyd_host_and_workload_print_digests(place: Path) -> None:
    """Both print one digest of 64 digits, the same every time."""
    one = _run("keyd", "host").stdout.strip()
    assert len(one) == 64
    words = ("keyd", "workload", "--exe", place / "unsafe.toml", "--code", place / "plain")
    assert _run(*words).stdout == _run(*words).stdout


def test_keyd_refuses_a_configuration_with_unknown_members(place: Path) -> None:
    """Unknown keys are errors."""
    (place / "keyd.toml").write_text("surprise = true\n")
    found = _run("keyd", "run", "--config", place / "keyd.toml")
    assert isinstance(found.exception, SafeholdError)


@pytest.mark.parametrize(
    "words",
    [
        ["weights", name]
        for name in ("keygen", "seal", "verify", "info", "request", "load", "rewrap", "shred")
    ]
    + [["weights", "meter"]]
    + [["keyd", name] for name in ("run", "host", "workload", "memory")],
)
def test_every_command_has_help_with_examples(words: list[str]) -> None:
    """`--help` of every command shows how it is used."""
    found = _run(*words, "--help")
    assert found.exit_code == 0
    assert "Example" in found.output
