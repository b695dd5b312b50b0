"""`safehold intel`: out without content, in on trial, each with its leaf."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli.intel import intel
from safehold.cli.log import log
from safehold.errors import ConfigError, UsageError
from safehold.testing.intel import SOURCE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a log, a configuration, a group's key and a template."""
    made = CliRunner().invoke(log, ["init", f"{tmp_path}/log", "--origin", "example.org/t"])
    assert made.exit_code == 0
    (tmp_path / "intel.yaml").write_text("organisation: Example lab\ngroup: example-group\n")
    (tmp_path / "template.txt").write_text(SOURCE)
    _run(tmp_path, "new-key", f"{tmp_path}/group.key")
    return tmp_path


def _run(folder: Path, *words: str) -> str:
    places = ["--config", f"{folder}/intel.yaml", "--intel", f"{folder}/i.db"]
    places += ["--log", f"{folder}/log"]
    done = CliRunner().invoke(intel, [*places, *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def _add(folder: Path, *more: str) -> str:
    key = ["--text", f"{folder}/template.txt", "--group-key", f"{folder}/group.key"]
    return _run(folder, "add", "lighthouse-letter", *key, "--band", "high", *more)


def test_a_technique_goes_out_without_its_text(folder: Path) -> None:
    """Added, listed, exported in both forms; the store holds no word of the template."""
    name = _add(folder, "--chain", "base64", "--seen", "2026-W47:3").strip()
    assert name.startswith("attack-pattern--")
    assert json.loads(_run(folder, "list"))[0]["family"] == "lighthouse-letter"
    bundle = json.loads(_run(folder, "export", "--by", "ann"))
    assert name in {one["id"] for one in bundle["objects"]}
    event = json.loads(_run(folder, "export", "--by", "ann", "--format", "misp"))
    assert event["Event"]["Attribute"]
    assert b"nephew" not in (folder / "i.db").read_bytes()
    listed = CliRunner().invoke(log, ["list", f"{folder}/log", "--json"])
    assert listed.output.count("intel-out") >= 2


def test_what_is_typed_wrongly_is_said(folder: Path) -> None:
    """A sentence as a family, a week that is none, a feed that is not there."""
    with pytest.raises(UsageError, match="--seen"):
        _add(folder, "--seen", "yesterday:3")
    with pytest.raises(UsageError, match="rm"):
        _add(folder, "--seen", "2026-W47:3", "--chain", "rm")
    with pytest.raises(UsageError, match="no feed x"):
        _run(folder, "pull", "x")
    (folder / "intel.yaml").write_text("organisation: x\ngroup: y\nsecret: z\n")
    with pytest.raises(ConfigError, match="unknown field"):
        _run(folder, "export", "--by", "ann")


def test_a_client_gets_a_password_whose_digest_alone_is_kept(folder: Path) -> None:
    """The same name twice is refused."""
    clients = ["--clients", f"{folder}/clients.yaml"]
    password = _run(folder, "new-client", "partner-lab", *clients).strip()
    assert len(password) > 40
    assert password not in (folder / "clients.yaml").read_text()
    with pytest.raises(UsageError, match="already"):
        _run(folder, "new-client", "partner-lab", *clients)
    with pytest.raises(UsageError, match="name"):
        _run(folder, "new-client", "Partner Lab", *clients)
