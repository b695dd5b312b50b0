"""A server process under test: its CPU, its memory, its end."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
_START_S = 900.0


class Server(msgspec.Struct):
    """A running server and the loopback port that it listens on."""

    name: str
    process: "subprocess.Popen[bytes]"
    port: int

    def cpu_s(self) -> float:
        """Return the CPU time of the process and all its threads, by the kernel's clock of it."""
        return time.clock_gettime((~self.process.pid << 3) | 2)  # clock_getcpuclockid(3)

    def rss_mb(self) -> float:
        """Return the resident memory of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(name: str, command: list[str]) -> Server:
    """Start a server that prints its port as its first line.

    Raises:
        RuntimeError: It ended before it printed one.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=os.environ | {"DO_NOT_TRACK": "1"},
    )
    line = process.stdout.readline() if process.stdout else b""
    if not line.strip().isdigit():
        process.kill()
        raise RuntimeError(f"{name}: did not start")
    return Server(name, process, int(line))


def own(name: str, module: str, *arguments: str) -> Server:
    """Start one of this folder's modules."""
    return start(name, [sys.executable, "-m", f"bench.contestants.{module}", *arguments])


def on_free_port(
    name: str, command: list[str], port_option: str, environment: Mapping[str, str]
) -> Server:
    """Start a server that must be told its port, and wait until it takes connections.

    Raises:
        RuntimeError: It does not.
    """
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    process = subprocess.Popen(
        [*command, port_option, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | dict(environment),
    )
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return Server(name, process, port)
    process.kill()
    raise RuntimeError(f"{name}: did not start")
