"""`safehold console` on the command line: help, and one clear line for what is wrong."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli.console import console
from safehold.cli.log import log
from safehold.errors import ConfigError, LedgerError


def test_help_has_examples() -> None:
    """The help names the demo and a gateway."""
    said = CliRunner().invoke(console, ["--help"]).output
    assert "safehold console --demo" in said
    assert "--admin-key-file" in said


def test_a_gateway_needs_its_key(tmp_path: Path) -> None:
    """An address without a key file is a configuration error, and so is an exposed demo."""
    with pytest.raises(ConfigError, match="together"):
        CliRunner().invoke(console, ["--gateway", "http://127.0.0.1:1"], catch_exceptions=False)
    words = ["--demo", "--host", "0.0.0.0", "--folder", str(tmp_path / "d")]
    with pytest.raises(ConfigError, match="stays on"):
        CliRunner().invoke(console, words, catch_exceptions=False)
    assert not (tmp_path / "d").exists()


def test_a_missing_ledger_is_named(tmp_path: Path) -> None:
    """Without a ledger the console does not start."""
    CliRunner().invoke(log, ["init", f"{tmp_path}/log", "--origin", "example.org/t"])
    words = ["--log", f"{tmp_path}/log", "--ledger", f"{tmp_path}/none.db"]
    with pytest.raises(LedgerError, match="no such file"):
        CliRunner().invoke(console, words, catch_exceptions=False)
