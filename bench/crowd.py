"""Many streams at once through workers with the stock guard: first text and refusals, by cores.

Run `python -m bench.crowd [--streams 100,1000] [--workers 1,2]`. Each stream is a connection of its
own that asks at once and reads to its end; who is refused is counted, and does not come again. The
gateway's cores are set by affinity; client and upstream have what is left to them.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.contestants import client
from bench.contestants.server import Server, own, start
from bench.tables import Table

from safehold.guard.bundle.stock import stock_bundle

DELTAS = 100
PACE_MS = 20
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
log: none
"""


def gateway(folder: Path, url: str, workers: int) -> Server:
    """Start a gateway with the stock bundle on so many workers and cores."""
    bundle, pinned = stock_bundle()
    port = _free_port()
    text = _CONFIG.format(
        port=port, workers=workers, url=url, bundle=bundle, digest=pinned.sha256, folder=folder
    )
    config = folder / "safehold.yaml"
    config.write_text(text)
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:workers]))
    program = (
        "import subprocess, sys, time, urllib.request\n"
        f"serve = ['taskset', '-c', {cores!r}, sys.executable, '-m', 'safehold', 'serve',"
        f" '--config', {str(config)!r}]\n"
        "child = subprocess.Popen(serve, stdout=subprocess.DEVNULL)\n"
        "import signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: child.terminate())\n"
        "while child.poll() is None:\n"
        "    try:\n"
        f"        urllib.request.urlopen('http://127.0.0.1:{port}/readyz', timeout=5)\n"
        "        break\n"
        "    except OSError:\n"
        "        time.sleep(0.2)\n"
        f"print({port}, flush=True)\n"
        "child.wait()\n"
    )
    return start("gateway", [sys.executable, "-c", program])


def _free_port() -> int:
    import socket  # noqa: PLC0415 - once

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def _one(port: int, asked: bytes) -> tuple[float, bool, bool]:
    """Return the seconds to the first text, whether it was refused, and told when to come again."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.perf_counter()
    writer.write(asked)
    head = await reader.readuntil(b"\r\n\r\n")
    first = 0.0
    if not head.startswith(b"HTTP/1.1 200"):
        writer.close()
        return 0.0, True, b"retry-after:" in head.lower()
    while data := await reader.read(65536):
        if not first and b'"content":"w' in data.replace(b": ", b":"):
            first = time.perf_counter() - began
    writer.close()
    return first, False, False


async def crowd(port: int, count: int) -> list[tuple[float, bool, bool]]:
    """Open so many streams at once."""
    asked = client.request(DELTAS, PACE_MS)
    return await asyncio.gather(*(_one(port, asked) for _ in range(count)))


def measured(workers: int, sizes: tuple[int, ...]) -> list[tuple[str, ...]]:
    """Return a row for each number of streams."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="shc-") as name:
        mock = own("mock", "mock")
        server = gateway(Path(name), f"http://127.0.0.1:{mock.port}/v1", workers)
        try:
            asyncio.run(crowd(server.port, 3 * workers))  # warm
            for count in sizes:
                found = asyncio.run(crowd(server.port, count))
                taken = sorted(first for first, refused, _ in found if not refused)
                refused = [told for _, one, told in found if one]
                rows.append(
                    (
                        f"{workers}",
                        f"{count:,}",
                        f"{len(taken):,}",
                        f"{len(refused):,} ({sum(refused):,} told when)",
                        f"{statistics.median(taken):.2f}" if taken else "-",
                        f"{taken[len(taken) * 99 // 100]:.2f}" if taken else "-",
                    )
                )
                print(*rows[-1], sep="  ", flush=True)
        finally:
            server.stop()
            mock.stop()
    return rows


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - the runner's interface
    """Measure 100 and 1,000 streams on one and two cores; `quick` takes 10 and 100."""
    sizes = (10, 100) if quick else (100, 1_000)
    return [table(sizes, (1, 2))]


def table(sizes: tuple[int, ...], workers: tuple[int, ...]) -> Table:
    """Measure some numbers of streams on some numbers of workers."""
    rows = [row for count in workers for row in measured(count, sizes)]
    return Table(
        title="Many streams at once, stock guard",
        columns=("workers and cores", "streams", "taken", "refused", "first text p50 s", "p99 s"),
        rows=tuple(rows),
        note=f"Replies of {DELTAS} deltas, {PACE_MS} ms apart; who is refused stays away.",
    )


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="100,1000")
    parser.add_argument("--workers", default="1,2")
    given = parser.parse_args()
    sizes = tuple(map(int, given.streams.split(",")))
    print(table(sizes, tuple(map(int, given.workers.split(",")))).markdown())


if __name__ == "__main__":
    main()
