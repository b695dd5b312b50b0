"""Killing a gateway in the middle of streams, and comparing what clients got with the ledger."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from gateway_wire import PATHS, body_for

from safehold.guard.ledger.interface import FinalRow, PromptRow
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.upstream import MockUpstream

TEXT = "Harmless words of an answer that is long enough to be cut off. " * 60


class Client(threading.Thread):
    """One streaming client that keeps what it received until the connection breaks."""

    def __init__(self, port: int, path: str) -> None:
        super().__init__(daemon=True)
        self.path = path
        self._port = port
        self.got = b""

    def run(self) -> None:
        """Ask, and read until the end."""
        body = json.dumps(body_for(self.path, "hi")).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=60) as sock:
                sock.sendall(head.encode() + body)
                while part := sock.recv(65536):
                    self.got += part
        except OSError:
            pass

    @property
    def decision_id(self) -> str:
        """The decision id that the response's header tells."""
        for line in self.got.split(b"\r\n\r\n")[0].split(b"\r\n"):
            name, _, value = line.partition(b": ")
            if name.lower() == b"x-safehold-decision-id":
                return value.decode()
        return ""

    @property
    def text(self) -> str:
        """The reply text that arrived, from whole events."""
        field = {PATHS[0]: "content", PATHS[1]: "text", PATHS[2]: "delta"}[self.path]
        text = []
        for block in self.got.replace(b"\r\n", b"\n").split(b"\n\n"):
            for line in block.split(b"\n"):
                if line.startswith(b"data: {"):
                    try:
                        event = json.loads(line[6:])
                    except json.JSONDecodeError:
                        continue
                    text.append(_said(event, field))
        return "".join(text)


def _said(event: dict, field: str) -> str:
    if field == "content":
        choices = event.get("choices") or [{"delta": {}}]
        return choices[0]["delta"].get("content") or ""
    if field == "text":
        return event.get("delta", {}).get("text", "")
    return event["delta"] if event["type"] == "response.output_text.delta" else ""


class Nest:
    """Forks gateways one after another, to be killed."""

    def __init__(self, upstream: MockUpstream, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "safehold.testing.crash_gateway", upstream.url, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._child = 0

    def start(self) -> int:
        """Fork a gateway; return its port once it takes requests."""
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()
        self._child, port = (int(part) for part in self._process.stdout.readline().split())
        while True:  # the socket listens before the gateway is ready
            with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
                sock.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                if b" 200 " in sock.recv(64):
                    return port

    def kill(self) -> None:
        """Kill the gateway as the kernel would."""
        os.kill(self._child, signal.SIGKILL)

    def close(self) -> None:
        """Kill what is left."""
        self.kill()
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


_AMID_TEXT = 0.7
_TEXT_S = 20.0
"""How long a busy machine may take until one of four clients has text."""


def kill_rounds(upstream: MockUpstream, folder: Path, rounds: int, seed: int) -> tuple[int, int]:
    """Kill the gateway `rounds` times amid streams; return (streams, streams with text).

    After each restart, every character that a client received is in the ledger.
    """
    dice = random.Random(seed)
    streams = spoken = 0
    nest = Nest(upstream, folder)
    try:
        port = nest.start()
        for _ in range(rounds):
            clients = [Client(port, dice.choice(PATHS)) for _ in range(4)]
            for client in clients:
                client.start()
            if dice.random() < _AMID_TEXT:  # else amid the start, with nothing delivered yet
                until = time.monotonic() + _TEXT_S
                while time.monotonic() < until and not any(client.text for client in clients):
                    time.sleep(0.01)
            time.sleep(dice.uniform(0.01, 0.35))
            nest.kill()
            for client in clients:
                client.join(60)
            port = nest.start()
            reader = LedgerReader.open(f"{folder}/ledger.db")
            for client in clients:
                if not client.got:
                    continue
                streams += 1
                spoken += bool(client.text)
                check(reader, client)
    finally:
        nest.close()
    return streams, spoken


def check(reader: LedgerReader, client: Client) -> None:
    """Compare one client's text with the rows of its exchange."""
    rows = [entry.row for entry in reader.decision(client.decision_id)]
    assert sum(isinstance(row, PromptRow) for row in rows) == 1
    finals = [row for row in rows if isinstance(row, FinalRow)]
    assert len(finals) <= 1
    if client.text:
        assert len(finals) == 1, "text was delivered and no final row tells of it"
        kept = "".join(item.text for item in finals[0].delivered)
        assert kept.startswith(client.text)
