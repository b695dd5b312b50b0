"""Gateways as a user starts them: `safehold serve` in a process of its own, awaited until ready."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec

from safehold.errors import SafeholdError
from safehold.http_ask import ask

_START_S = 240.0
_STOP_S = 20.0


class DemoGateway(msgspec.Struct, frozen=True):
    """A running gateway: its process, its base URL and its ledger."""

    process: "subprocess.Popen[bytes]"
    url: str
    ledger: Path


@contextlib.contextmanager
def gateway(
    folder: Path, name: str, upstream: str, port: int, guard: tuple[str, ...]
) -> Iterator[DemoGateway]:
    """Run a gateway; `guard` are the options that name the bundle.

    Raises:
        SafeholdError: It did not start; the message holds its own last line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ledger, log = folder / f"{name}.db", folder / f"{name}.log"
    command = [sys.executable, "-m", "safehold", "serve", "--json", "--upstream", upstream]
    command += ["--port", str(port), "--ledger", str(ledger), *guard]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
    try:
        url = _announced(process, log)
        _await_ready(process, url, log)
        yield DemoGateway(process, url, ledger)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def free_port(wanted: int) -> int:
    """Return the wanted port of 127.0.0.1, or 0 (any) where another program has it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


def _announced(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Read the line in which the gateway says where it listens."""
    if process.stdout is None:
        raise SafeholdError("the gateway's process has no pipe")
    ready, _, _ = select.select([process.stdout], [], [], _START_S)
    line = process.stdout.readline() if ready else b""
    if not line:
        raise _not_started(log)
    return str(json.loads(line)["anthropic_base_url"])


def _await_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            ask(f"{url}/readyz", timeout_s=2)
            return
        time.sleep(0.1)
    raise _not_started(log)


def _not_started(log: Path) -> SafeholdError:
    """Return an error with the last thing that the gateway said about itself."""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line for line in lines if line and "startup failed" not in line]
        if said:
            return SafeholdError(f"the gateway did not start: {said[-1].split('error: ')[-1]}")
    return SafeholdError(f"the gateway did not start; see {os.fspath(log)}")
