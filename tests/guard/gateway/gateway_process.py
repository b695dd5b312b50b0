"""A gateway as its user starts it: `safehold serve`, in processes of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import msgspec
from gateway_wire import post

from safehold.testing.guards import MARKER


class Served(msgspec.Struct):
    """A running `safehold serve`."""

    process: "subprocess.Popen[bytes]"
    port: int
    ledger: str

    def stop(self) -> None:
        """Ask it to end."""
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def served(
    folder: Path,
    upstream: str,
    *options: str,
    ledger: str | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    **settings: object,
) -> Iterator[Served]:
    """Start the command on a free port and wait until it is ready."""
    rule = {"id": "marker", "clause": "test/marker", "pattern": MARKER, "example": MARKER}
    (folder / "rules.yaml").write_text(json.dumps({"rules": [rule]}))
    given = {
        "canary": {"enabled": False},
        "log": "none",
        "limits": {"verdict_wait_s": 60},
    } | settings
    (folder / "safehold.yaml").write_text(json.dumps(given))
    ledger = ledger or f"{folder}/ledger.db"
    command = [sys.executable, "-m", "safehold", "serve", "--config", str(folder / "safehold.yaml")]
    command += ["--upstream", upstream, "--port", "0", "--bundle", str(folder / "rules.yaml")]
    command += ["--ledger", ledger, "--journal", str(folder / "journal"), "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **environment})
    try:
        base = json.loads(process.stdout.readline())["anthropic_base_url"]
        at = Served(process, int(base.rpartition(":")[2]), ledger)
        wait_ready(at.port)
        yield at
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def wait_ready(port: int) -> None:
    """Return when the gateway says that it is ready."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if get(port, "/readyz").startswith(b"HTTP/1.1 200"):
            return
        time.sleep(0.05)
    raise TimeoutError("the gateway did not become ready")


def get(port: int, path: str) -> bytes:
    """Return the whole response to a GET, empty if none came."""
    got = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            head = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
            sock.sendall(head.encode())
            while part := sock.recv(65536):
                got += part
    except OSError:
        return b""
    return got


def metric(port: int, name: str) -> float:
    """Return the sum of a metric over its labels."""
    lines = get(port, "/metrics").decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def ask(port: int, path: str, body: dict) -> int:
    """Post a request and return its status."""
    return post(port, path, json.dumps(body).encode())[0]
