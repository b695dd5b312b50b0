"""`safehold demo` as a user runs it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from safehold.demo.gateways import free_port
from safehold.testing.bundles import write_tiny


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "safehold", "demo", "--port", "0", "--folder", str(folder)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [*command, *arguments],
        capture_output=True, text=True, timeout=300, check=False, env=environment,
    )  # fmt: skip


def test_demo_fails_when_a_verdict_is_wrong(tmp_path: Path) -> None:
    """With a guard that knows too few words, --once plays everything and exits non-zero."""
    write_tiny(tmp_path / "tiny")
    done = run(
        tmp_path / "run", "--json", "--bundle", str(tmp_path / "tiny"), "--unsafe-unsigned-bundle"
    )
    rows = json.loads(done.stdout)
    assert len(rows) >= 12
    assert {row["place"] for row in rows} == {"nowhere", "prompt", "reply"}
    assert all(not row["problem"] for row in rows)
    assert done.returncode == 1
    assert "exchanges went wrong" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_with_the_stock_bundle_ends_as_expected(tmp_path: Path) -> None:
    """Every exchange gets its verdict from the bundle that ships, and the exit status says so."""
    done = run(tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert all(row["place"] == row["expected"] for row in json.loads(done.stdout))


def test_demo_without_a_bundle_says_why(tmp_path: Path) -> None:
    """A bundle that is not there gives one line and an exit status."""
    missing = str(tmp_path / "none")
    done = run(tmp_path / "run", "--once", "--bundle", missing, "--bundle-key", missing)
    assert done.returncode == 1
    assert "did not start" in done.stderr
    assert "Traceback" not in done.stderr


def test_taken_port_falls_back_to_a_free_one() -> None:
    """Another program on the wanted port does not stop the demo."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        assert free_port(sock.getsockname()[1]) == 0
