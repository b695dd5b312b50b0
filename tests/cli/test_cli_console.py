"""`safehold console` on the command line: help, and one clear line for what is wrong."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from safehold.cli.console import console
from safehold.cli.intel import intel
from safehold.cli.log import log
from safehold.console.demo.stage import DemoStage
from safehold.errors import ConfigError, LedgerError
from safehold.testing.ports import held_port


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


def _founded(folder: Path) -> Path:
    """Found a log and a ledger in a folder, and return the folder of the log's keys."""
    stage = DemoStage(folder)
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    for name, key in (("log", stage.enclave.log_key), ("emitter", stage.enclave.emitter)):
        (keys / f"{name}.key").touch(mode=0o600)
        (keys / f"{name}.key").write_text(key.text() + "\n")
    return keys


@pytest.fixture
def port() -> Iterator[int]:
    """A port for the console."""
    with held_port() as port:
        yield port


def test_clients_and_partners_are_served_only_where_it_is_asked_for(
    tmp_path: Path, port: int
) -> None:
    """The command's own process answers appeals and TAXII under the policy's host name."""
    keys = _founded(tmp_path)
    (tmp_path / "intel.yaml").write_text("organisation: Example lab\ngroup: example-group\n")
    made = CliRunner().invoke(
        intel, ["new-client", "partner", "--clients", f"{tmp_path}/clients.yaml"]
    )
    stores = {name: f"{tmp_path}/{name}.db" for name in ("ledger", "review", "monitor", "intel")}
    command = [sys.executable, "-m", "safehold", "console", "--port", str(port), "--appeals"]
    command += ["--log", f"{tmp_path}/log", "--keys", str(keys), "--store", f"{tmp_path}/own.db"]
    command += [word for name, path in stores.items() for word in (f"--{name}", path)]
    command += ["--intel-config", f"{tmp_path}/intel.yaml"]
    command += ["--clients", f"{tmp_path}/clients.yaml"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        shared = process.stderr.readline()
        assert shared.startswith("shared collection: ")
        base, head = f"http://127.0.0.1:{port}", {"host": "localhost:8443"}
        transport = httpx.HTTPTransport(retries=8)
        with httpx.Client(base_url=base, headers=head, transport=transport, timeout=60) as http:
            while not process.poll():
                with contextlib.suppress(httpx.ConnectError):
                    found = http.get("/taxii2/", auth=("partner", made.stdout.strip()))
                    break
            assert found.json()["default"] == "http://localhost:8443/taxii2/root/"
            assert http.get("/taxii2/").status_code == 401
            assert http.post("/api/v1/appeals", json={"decision_id": "x"}).status_code == 409
            assert http.get("/api/v1/overview").status_code == 401
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_what_is_told_needs_its_database(tmp_path: Path) -> None:
    """`--intel-config` alone is a configuration error before anything listens."""
    keys = _founded(tmp_path)
    (tmp_path / "intel.yaml").write_text("organisation: Example lab\ngroup: example-group\n")
    words = ["--log", f"{tmp_path}/log", "--keys", str(keys), "--ledger", f"{tmp_path}/ledger.db"]
    words += ["--review", f"{tmp_path}/r.db", "--store", f"{tmp_path}/o.db"]
    words += ["--intel-config", f"{tmp_path}/intel.yaml"]
    with pytest.raises(ConfigError, match="expected --intel beside"):
        CliRunner().invoke(console, words, catch_exceptions=False)
