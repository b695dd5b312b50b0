"""A real gateway in a namespace, its signed rows, its clients, and the kernel's counter."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from safehold.guard.gateway.policy import digest_key
from safehold.secure.egress.declare.plan import Local
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.explain.ledger import ChainPosition, ExplainedRow
from safehold.secure.egress.explain.senders import load_sources, new_key
from safehold.secure.egress.interface import KernelError
from safehold.secure.egress.kernel.netns import enter, run_in
from safehold.secure.egress.kernel.repeats import RepeatReader
from safehold.testing.egress import FakeClock, World, plan, register, row

KEY = "a-client-key-0123456789-abcdef"
PORT = 9000
FLOWS = register(
    row("replies", port=PORT, hour=10**9)
    .replace("purpose =", 'direction = "serve"\nreconciled = true\npurpose =')
    .replace(f"ports = [{PORT}]", f"ports = [{PORT}, 9443]")
)
UPSTREAM = """
import sys
from safehold.testing.upstream import MockUpstream, says
with MockUpstream(says("Harmless words about soap. " * 400, size=200)) as upstream:
    print(upstream.url, flush=True)
    sys.stdin.read()
"""
READY = """
import socket, sys, time
while True:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60).close()
        break
    except OSError:
        time.sleep(0.1)
"""
ASK = """
import http.client, json, sys
address, port, key, stream, count = sys.argv[1:]
link = http.client.HTTPConnection(address, int(port), timeout=300)
body = {"model": "mock", "messages": [{"role": "user", "content": "hi"}], "stream": stream == "1"}
for _ in range(int(count)):
    head = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    link.request("POST", "/v1/chat/completions", json.dumps(body), head)
    answer = link.getresponse()
    assert answer.status == 200, answer.status
    answer.read()
link.request("GET", "/nowhere")
link.getresponse().read()
link.close()
"""


@contextlib.contextmanager
def process(space: str, *command: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Run Python inside a namespace; SIGTERM at the end."""
    running = subprocess.Popen(
        enter(space, [sys.executable, *command]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=300)


class GovernedGateway:
    """A `safehold serve` inside, its clients outside, and the kernel's counter between them."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.clock = FakeClock()
        self.enforcer: Enforcer = world.enforcer(
            FLOWS,
            plan(local=Local(raw_frame_guard=False)),
            clock=self.clock,
            repeats=RepeatReader(world.pair.inside),
        )
        self.sources = load_sources(folder / "senders.toml", FLOWS)
        self.position = ChainPosition()

    def close(self) -> None:
        """End listening to the kernel."""
        if self.enforcer.repeats is not None:
            self.enforcer.repeats.close()

    def outside(self, script: str, *arguments: str) -> None:
        """Run a client."""
        command = [sys.executable, "-c", script, self.world.pair.inside_v4, *arguments]
        subprocess.run(enter(self.world.pair.outside, command), check=True, timeout=600)

    def kernel(self) -> int:
        """Bytes of the flow that left so far, as the kernel counts them."""
        return self.enforcer.tick().passed["replies"]

    def counted(self) -> tuple[int, int]:
        """Bytes of the flow that left so far, and the headers among them."""
        look = self.enforcer.tick()
        return look.passed["replies"], look.headers["replies"]

    def rows(self, items: int) -> list[ExplainedRow]:
        """The new rows, verified, once they tell of so many replies."""
        reader = self.sources.reader
        if reader is None:
            raise KernelError("nobody signs")
        found: list[ExplainedRow] = []
        deadline = time.monotonic() + 300
        while sum(row.items for row in found) < items:
            if time.monotonic() > deadline:
                raise KernelError(f"{len(found)} rows, expected {items} replies")
            time.sleep(0.2)
            path = self.sources.files["gateway"]
            for new, position in reader.follow(path, self.position, time.time()):
                self.position = position
                found.append(new)
        return found


@contextlib.contextmanager
def serving(world: World, folder: Path) -> Iterator[GovernedGateway]:
    """Run a gateway inside that signs for what it sends."""
    new_key(folder / "gateway.pem")
    (folder / "senders.toml").write_text(
        'version = 1\n[[sender]]\nname = "gateway"\nrows = "explained.jsonl"\n'
        'flows = ["replies"]\npublic_key = "gateway.pub.pem"\n'
    )
    said = "never to be said"
    rule = {"id": "r1", "clause": "restricted", "pattern": said, "example": said}
    (folder / "rules.yaml").write_text(json.dumps({"rules": [rule]}))
    inside = world.pair.inside
    with process(inside, "-c", UPSTREAM, cwd=folder) as upstream:
        if upstream.stdout is None:
            raise KernelError("the upstream has no output")
        settings = {
            "host": world.pair.inside_v4,
            "port": PORT,
            "upstream": {"url": upstream.stdout.readline().strip()},
            "bundle": "rules.yaml",
            "canary": {"enabled": False},
            "limits": {"verdict_wait_s": 60},
            "log": "none",
            "keys": [{"id": "key1", "tenant": "acct", "sha256": digest_key(KEY)}],
        }
        (folder / "safehold.yaml").write_text(json.dumps(settings))
        options = ["--config", "safehold.yaml", "--explain-to", "explained.jsonl"]
        options += ["--explain-key", "gateway.pem", "--explain-flow", "replies", "--json"]
        with process(inside, "-m", "safehold", "serve", *options, cwd=folder) as server:
            if server.stdout is None or "openai_base_url" not in server.stdout.readline():
                raise KernelError("the gateway did not start")
            run_in(inside, [sys.executable, "-c", READY, world.pair.inside_v4, str(PORT)], 300)
            made = GovernedGateway(world, folder)
            made.enforcer.apply(first=True)
            try:
                yield made
            finally:
                made.close()
