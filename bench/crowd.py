"""Many streams at once through workers with the stock guard: first text and refusals, by cores.

Run `python -m bench.crowd [--streams 100,1000] [--workers 1,2]`. Each stream is a connection of its
own that asks at once and reads to its end; who is refused is counted, and does not come again. The
gateway's cores are set by affinity; client and upstream have what is left to them. Meanwhile
another process asks for health, readiness and the admin's status; when all is over, one more stream
tells whether the gateway is as it was.
"""

import argparse
import asyncio
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from bench.contestants import client
from bench.contestants.server import Server, own, start
from bench.tables import Table

from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.gateway.policy import digest_key

DELTAS = 100
PACE_MS = 20
STREAM_S = 300
AFTER_S = 1.0
ADMIN = "sk-safehold-zyxwvutsrqponmlkjihgfedcba98"
_SAYS = re.compile(rb'"content": ?"[^"]')
SIDE = ("/healthz", "/readyz", "/admin/status")
_CONFIG = """\
port: {port}
workers: {workers}
upstream: {{url: "{url}"}}
bundle: {bundle}
bundle_sha256: "{digest}"
ledger: {folder}/ledger.db
store: sqlite:///{folder}/store.db
journal: {folder}/journal
canary: {{enabled: false}}
limits: {{max_streams: 4096}}
keys: [{{id: ops, sha256: {admin}, admin: true}}]
log: none
"""
_STARTER = """\
import signal, subprocess, sys, time, urllib.request
child = subprocess.Popen({command!r}, stdout=subprocess.DEVNULL)
signal.signal(signal.SIGTERM, lambda *_: child.terminate())
while child.poll() is None:
    try:
        urllib.request.urlopen('http://127.0.0.1:{port}/readyz', timeout=5)
        break
    except OSError:
        time.sleep(0.2)
print({port}, flush=True)
child.wait()
"""


class Told(msgspec.Struct, frozen=True):
    """What one client saw: seconds to the first text (0: none), and how it ended."""

    status: int
    first_s: float = 0.0
    whole: bool = False
    says_when: bool = False


def gateway(folder: Path, url: str, workers: int) -> Server:
    """Start a gateway with the stock bundle on so many workers and cores."""
    bundle, pinned = stock_bundle()
    port = _free_port()
    text = _CONFIG.format(
        port=port,
        workers=workers,
        url=url,
        bundle=bundle,
        digest=pinned.sha256,
        folder=folder,
        admin=digest_key(ADMIN),
    )
    config = folder / "safehold.yaml"
    config.write_text(text)
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:workers]))
    serve = ["taskset", "-c", cores, sys.executable, "-m", "safehold", "serve"]
    program = _STARTER.format(command=[*serve, "--config", str(config)], port=port)
    return start("gateway", [sys.executable, "-c", program])


def _free_port() -> int:
    import socket  # noqa: PLC0415 - once

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def one(port: int, asked: bytes) -> Told:
    """Ask once and read to the end; a connection that breaks is a status of 0."""
    try:
        async with asyncio.timeout(STREAM_S):
            return await _one(port, asked)
    except (OSError, EOFError, TimeoutError):
        return Told(0)


async def _one(port: int, asked: bytes) -> Told:
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(asked)
        head = await reader.readuntil(b"\r\n\r\n")
        status, first, tail = int(head.split(b" ")[1]), 0.0, b""
        while data := await reader.read(65536):
            tail = (tail + data)[-400:]
            if not first and status == 200 and _SAYS.search(data):
                first = time.perf_counter() - began
        says_when = b"\r\nretry-after:" in head.lower()
        return Told(status, first, b"[DONE]" in tail and b'"error"' not in tail, says_when)
    finally:
        writer.close()


async def crowd(port: int, count: int) -> list[Told]:
    """Open so many streams at once."""
    body = {
        "model": f"prose-{DELTAS}-{PACE_MS}",
        "messages": [{"role": "user", "content": "What did you do this morning?"}],
        "stream": True,
    }
    asked = client.post("/v1/chat/completions", body)
    return await asyncio.gather(*(one(port, asked) for _ in range(count)))


def poll(port: int) -> None:
    """Ask the side doors for as long as this process lives; then print what each took."""
    took: dict[str, list[float]] = {path: [] for path in SIDE}
    wrong: dict[str, int] = dict.fromkeys(SIDE, 0)
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    print("asking", flush=True)
    while not ended:
        for path in SIDE:
            began = time.perf_counter()
            try:
                asked = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                asked.request("GET", path, headers={"x-api-key": ADMIN})
                wrong[path] += asked.getresponse().status != 200
                asked.close()
            except (OSError, http.client.HTTPException):
                wrong[path] += 1
            took[path].append(time.perf_counter() - began)
        time.sleep(0.1)
    print(json.dumps([{path: max(each) for path, each in took.items() if each}, wrong]))


class Polling:
    """A process that asks the side doors until it is told to end."""

    def __init__(self, port: int) -> None:
        asked = [sys.executable, "-m", "bench.crowd", "--poll", str(port)]
        self._process = subprocess.Popen(asked, stdout=subprocess.PIPE, text=True)
        if self._process.stdout is not None:
            self._process.stdout.readline()

    def ended(self) -> tuple[dict[str, float], dict[str, int]]:
        """End it; return the slowest answer of each door, and how many were none."""
        self._process.terminate()
        said, _ = self._process.communicate(timeout=120)
        took, wrong = json.loads(said)
        return took, wrong


def p99(values: Sequence[float]) -> float:
    """Return the value that one of a hundred is above."""
    return sorted(values)[len(values) * 99 // 100]


def measured(workers: int, sizes: tuple[int, ...]) -> list[tuple[str, ...]]:
    """Return a row for each number of streams."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="shc-") as name:
        mock = own("mock", "mock")
        server = gateway(Path(name), f"http://127.0.0.1:{mock.port}/v1", workers)
        try:
            asyncio.run(crowd(server.port, 3 * workers))  # warm
            for count in sizes:
                polling = Polling(server.port)
                try:
                    began = time.perf_counter()
                    found = asyncio.run(crowd(server.port, count))
                    lasted = time.perf_counter() - began
                finally:
                    took, wrong = polling.ended()
                time.sleep(AFTER_S)
                after = asyncio.run(crowd(server.port, 1))[0]
                rows.append(_row(workers, count, lasted, found, took, wrong, after))
                print(*rows[-1], sep=" | ", flush=True)
        finally:
            server.stop()
            mock.stop()
    return rows


def _row(
    workers: int,
    count: int,
    lasted: float,
    found: Sequence[Told],
    took: dict[str, float],
    wrong: dict[str, int],
    after: Told,
) -> tuple[str, ...]:
    taken = [one for one in found if one.status == 200]
    refused = [one for one in found if one.status == 503]
    firsts = [one.first_s for one in taken if one.first_s]
    whole = sum(one.whole for one in taken)
    return (
        f"{workers}",
        f"{count:,}",
        f"{len(taken):,}, {whole:,} whole",
        f"{len(refused):,} ({sum(one.says_when for one in refused):,} told when)",
        f"{count - len(taken) - len(refused):,}",
        f"{statistics.median(firsts):.2f}" if firsts else "-",
        f"{p99(firsts):.2f}" if firsts else "-",
        f"{lasted:.0f}",
        f"{max(took.values(), default=0.0):.2f} ({sum(wrong.values())} none)",
        f"{after.first_s:.2f}" if after.whole else "-",
    )


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - the runner's interface
    """Measure 100 and 1,000 streams on one and two cores; `quick` takes 10 and 100."""
    sizes = (10, 100) if quick else (100, 1_000)
    return [table(sizes, (1, 2))]


def table(sizes: tuple[int, ...], workers: tuple[int, ...]) -> Table:
    """Measure some numbers of streams on some numbers of workers."""
    rows = [row for count in workers for row in measured(count, sizes)]
    return Table(
        title="Many streams at once, stock guard",
        columns=(
            "workers and cores",
            "streams",
            "taken",
            "refused",
            "else",
            "first text p50 s",
            "p99 s",
            "all ended s",
            "slowest of health, readiness, admin s",
            "one stream after it: first text s",
        ),
        rows=tuple(rows),
        note=f"Replies of {DELTAS} deltas, {PACE_MS} ms apart; who is refused stays away.",
    )


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="100,1000")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--poll", type=int, default=None, help="a gateway's port, asked for health")
    given = parser.parse_args()
    if given.poll is not None:
        poll(given.poll)
        return
    sizes = tuple(map(int, given.streams.split(",")))
    print(table(sizes, tuple(map(int, given.workers.split(",")))).markdown())


if __name__ == "__main__":
    main()
