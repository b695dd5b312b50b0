"""CPU, memory and delay of the gateway, against a direct connection and a bare proxy.

One mock upstream (200 deltas), one raw-socket client, the configurations interleaved round by
round. CPU time comes from `/proc/PID/stat` of the server process, so a busy machine disturbs it
little. The delay of a withheld stream is measured at 20 ms a token: what comes on top of a direct
connection and of the tokens that `hold` waits for.

Run: `python -m bench.gateway [--rounds N] [--memory] [--install] [--json]`.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from bench.tables import Table

DELTAS = 200
STREAMS = 40
PACED_STREAMS = 50
PACED_MS = 10
FIRST_STREAMS = 10
FIRST_DELTAS = 60
FIRST_MS = 20
MEMORY_STREAMS = 200
MEMORY_DELTAS = 4000
HOLD = 16
HERE = Path(__file__).resolve().parent


class Server(msgspec.Struct):
    """A server process under test."""

    name: str
    process: "subprocess.Popen[bytes]"
    port: int

    def cpu_s(self) -> float:
        """Return the CPU time that the process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        """Return the resident memory of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def stop(self) -> None:
        """End the process."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def start(name: str, *arguments: str) -> Server:
    """Start one of this module's servers and wait for its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.gateway", "--server", name, *arguments],
        stdout=subprocess.PIPE,
        cwd=HERE.parent,
    )
    if process.stdout is None:
        raise RuntimeError("no pipe")
    return Server(name, process, int(process.stdout.readline()))


# -- the client ----------------------------------------------------------------------------------


def request(deltas: int, delay_ms: int) -> bytes:
    """Return a streamed chat request; the mock reads its size and pace from the model's name."""
    body = {
        "model": f"mock-{deltas}-{delay_ms}",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
    }
    data = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + data


async def stream(port: int, asked: bytes) -> tuple[float, int]:
    """Run one stream; return the seconds to its first text and its bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.perf_counter()
    writer.write(asked)
    first = 0.0
    size = 0
    tail = b""
    while data := await reader.read(65536):
        size += len(data)
        tail = (tail + data)[-400:]
        if not first and b'"content":"w' in data.replace(b": ", b":"):
            first = time.perf_counter() - began
        if b"[DONE]" in tail:
            break
    writer.close()
    if b"[DONE]" not in tail:
        raise RuntimeError("a stream did not end")
    return first, size


async def burst(port: int, count: int) -> list[float]:
    """Run streams one after another, as fast as they come."""
    asked = request(DELTAS, 0)
    return [(await stream(port, asked))[0] for _ in range(count)]


async def paced(port: int, count: int) -> list[float]:
    """Run many streams at once, each at the pace of a model."""
    asked = request(DELTAS, PACED_MS)
    return [
        first for first, _ in await asyncio.gather(*(stream(port, asked) for _ in range(count)))
    ]


async def first_text(port: int) -> float:
    """Return the median delay to the first text of streams at a model's pace, in seconds."""
    asked = request(FIRST_DELTAS, FIRST_MS)
    found = await asyncio.gather(*(stream(port, asked) for _ in range(FIRST_STREAMS)))
    return statistics.median(first for first, _ in found)


async def crowd(server: Server) -> float:
    """Run many long streams at once; return the highest resident memory seen."""
    asked = request(MEMORY_DELTAS, 0)
    tasks = [asyncio.ensure_future(stream(server.port, asked)) for _ in range(MEMORY_STREAMS)]
    highest = 0.0
    while not all(task.done() for task in tasks):
        highest = max(highest, server.rss_mb())
        await asyncio.sleep(0.05)
    await asyncio.gather(*tasks)
    return highest


# -- the servers ---------------------------------------------------------------------------------


async def mock() -> None:
    """Serve streams of `w` words; the model's name says how many and how fast."""
    head = (
        '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"mock","choices":'
    )

    def event(delta: str, finish: str) -> bytes:
        body = f'[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]}}'
        return f"data: {head}{body}\n\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                top = await reader.readuntil(b"\r\n\r\n")
                at = top.lower().index(b"content-length: ") + 16
                body = await reader.readexactly(int(top[at : top.index(b"\r", at)]))
                _, deltas, delay = json.loads(body)["model"].split("-")
                await play(writer, int(deltas), int(delay) / 1000)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def chunk(data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data)

    async def play(writer: asyncio.StreamWriter, deltas: int, delay_s: float) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        writer.write(chunk(event('{"role":"assistant","content":""}', "null")))
        for number in range(deltas):
            writer.write(chunk(event(f'{{"content":"w{"abcdefghij"[number % 10]} "}}', "null")))
            if delay_s:
                await asyncio.sleep(delay_s)
            elif number % 64 == 0:
                await writer.drain()
        writer.write(chunk(event("{}", '"stop"')) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def gateway(upstream: str, guard: str, folder: str) -> None:
    """Serve the gateway with one regex rule, or with a rule-less pass-through guard."""
    from safehold.guard.gateway.holder import Held  # noqa: PLC0415 - an extra, or for one process only
    from safehold.guard.gateway.policy import Canary, Settings, SurfacePolicy, Upstream  # noqa: PLC0415 - an extra, or for one process only
    from safehold.guard.gateway.server import Parts, listen, run  # noqa: PLC0415 - an extra, or for one process only
    from safehold.testing.guards import UnsafeOpenGuard, rule_guard  # noqa: PLC0415 - an extra, or for one process only

    held = Held(UnsafeOpenGuard() if guard == "none" else rule_guard())
    settings = Settings(
        port=0,
        upstream=Upstream(url=upstream),
        ledger=f"{folder}/ledger.db",
        journal=None if guard == "none" else f"{folder}/journal",
        default=SurfacePolicy(hold_tokens=0 if guard == "none" else HOLD),
        canary=Canary(enabled=False),
        log="none",
    )
    sock = listen(settings)
    print(sock.getsockname()[1], flush=True)
    run(settings, Parts(loader=_no_loader, held=held), sock)


def bare(upstream: str) -> None:
    """Serve a proxy that only copies bytes: the floor of this stack (uvicorn and aiohttp)."""
    import socket  # noqa: PLC0415 - an extra, or for one process only

    import aiohttp  # noqa: PLC0415 - an extra, or for one process only
    import uvicorn  # noqa: PLC0415 - an extra, or for one process only

    session: list[aiohttp.ClientSession] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        if scope["type"] != "http":
            return
        if not session:
            session.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        body = (await receive())["body"]
        headers = {"content-type": "application/json"}
        url = f"{upstream}/chat/completions"
        async with session[0].post(url, data=body, headers=headers) as response:
            kind = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": kind})
            while data := await response.content.readany():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(1024)
    print(sock.getsockname()[1], flush=True)
    config = uvicorn.Config(
        app, lifespan="off", http="httptools", loop="uvloop", log_config=None, access_log=False
    )
    uvicorn.Server(config).run(sockets=[sock])


def _no_loader(path: Path) -> Any:  # noqa: ANN401 - never called
    raise RuntimeError(path)


# -- the measurement -----------------------------------------------------------------------------


def cpu_per_token(
    server: Server, run: Callable[[int, int], Any], count: int
) -> tuple[float, list[float]]:
    """Return µs of the server's CPU per streamed token, and the delays to the first text."""
    before = server.cpu_s()
    firsts = asyncio.run(run(server.port, count))
    return (server.cpu_s() - before) / (count * DELTAS) * 1e6, firsts


def measure(rounds: int, folder: str, *, memory: bool) -> dict[str, Any]:
    """Run every configuration, interleaved, and return medians."""
    upstream = start("mock")
    url = f"http://127.0.0.1:{upstream.port}/v1"
    servers = [
        start("bare", url),
        start("gateway", url, "none", f"{folder}/none"),
        start("gateway", url, "rule", f"{folder}/rule"),
    ]
    names = ["bare proxy", "safehold, pass-through", f"safehold, one regex rule, hold({HOLD})"]
    burst_us: dict[str, list[float]] = {name: [] for name in names}
    paced_us: dict[str, list[float]] = {name: [] for name in names}
    firsts: dict[str, list[float]] = {name: [] for name in [*names, "direct"]}
    try:
        for server in servers:
            asyncio.run(burst(server.port, 5))
        for _ in range(rounds):
            firsts["direct"] += asyncio.run(paced(upstream.port, PACED_STREAMS))
            for name, server in zip(names, servers, strict=True):
                burst_us[name].append(cpu_per_token(server, burst, STREAMS)[0])
                cost, delays = cpu_per_token(server, paced, PACED_STREAMS)
                paced_us[name].append(cost)
                firsts[name] += delays
        direct_s = asyncio.run(first_text(upstream.port))
        held_s = asyncio.run(first_text(servers[2].port))
        idle = servers[2].rss_mb()
        highest = asyncio.run(crowd(servers[2])) if memory else None
    finally:
        for server in [*servers, upstream]:
            server.stop()
    rows = {
        name: {
            "burst_us_per_token": round(statistics.median(burst_us[name]), 1),
            "paced_us_per_token": round(statistics.median(paced_us[name]), 1),
            "first_text_ms": round(statistics.median(firsts[name]) * 1000, 1),
        }
        for name in names
    }
    return {
        "deltas": DELTAS,
        "rounds": rounds,
        "rows": rows,
        "direct_first_text_ms": round(statistics.median(firsts["direct"]) * 1000, 1),
        "first_text_over_direct_and_hold_ms": round(
            (held_s - direct_s - HOLD * FIRST_MS / 1000) * 1000, 1
        ),
        "idle_mb": round(idle, 1),
        f"mb_at_{MEMORY_STREAMS}_streams_of_{MEMORY_DELTAS}": None
        if highest is None
        else round(highest, 1),
    }


def install_mb(folder: str) -> float:
    """Install the package without extras into a new virtual environment; return its size."""
    place = Path(folder) / "install"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    target = next((place / "lib").glob("python*")) / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target)]
    subprocess.run([*pip, str(HERE.parent)], check=True, stdout=sys.stderr)
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e6


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - what `bench.__main__` calls
    """Return the tables of this benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(1 if quick else 3, folder, memory=not quick)
        size = None if quick else install_mb(folder)
    rows = [
        (
            name,
            f"{row['burst_us_per_token']:.1f}",
            f"{row['paced_us_per_token']:.1f}",
            f"{row['first_text_ms']:.1f}",
        )
        for name, row in found["rows"].items()
    ]
    streamed = Table(
        title="CPU per streamed token",
        columns=("configuration", "burst, µs", "paced, µs", "first text, ms"),
        rows=tuple(rows),
        note=(
            f"{DELTAS} deltas; burst: one stream after another; paced: {PACED_STREAMS} streams at "
            f"{PACED_MS} ms a token. Medians of {found['rounds']} rounds. Targets: pass-through "
            "20 and 60 µs, one rule 40 and 90 µs."
        ),
        bars="burst, µs",
    )
    facts = [
        (
            f"first text over direct and {HOLD} held tokens, {FIRST_MS} ms a token",
            f"{found['first_text_over_direct_and_hold_ms']} ms",
            "60 ms",
        )
    ]
    memory = found[f"mb_at_{MEMORY_STREAMS}_streams_of_{MEMORY_DELTAS}"]
    if memory is not None:
        facts.append(
            (
                f"memory, {MEMORY_STREAMS} streams of {MEMORY_DELTAS} tokens",
                f"{memory} MB",
                "150 MB",
            )
        )
    if size is not None:
        facts.append(("installed size of the gateway alone", f"{size:.0f} MB", "150 MB"))
    return [
        streamed,
        Table(
            title="Delay, memory, size", columns=("measure", "ours", "at most"), rows=tuple(facts)
        ),
    ]


def main() -> None:
    """Measure and print, or be one of the servers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="the long run of 200 streams too")
    parser.add_argument("--install", action="store_true", help="the installed size too")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--server", nargs="+", help=argparse.SUPPRESS)
    given, rest = parser.parse_known_args()
    if given.server:
        name, *arguments = [*given.server, *rest]
        if name == "mock":
            asyncio.run(mock())
        elif name == "bare":
            bare(arguments[0])
        else:
            Path(arguments[2]).mkdir(parents=True, exist_ok=True)
            gateway(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.rounds, folder, memory=given.memory)
        if given.install:
            found["installed_mb"] = round(install_mb(folder))
    if given.as_json:
        print(json.dumps(found))
        return
    print(f"{'configuration':44} {'burst':>9} {'paced':>9} {'first text':>11}")
    for name, row in found["rows"].items():
        print(
            f"{name:44} {row['burst_us_per_token']:6.1f} µs {row['paced_us_per_token']:6.1f} µs "
            f"{row['first_text_ms']:8.1f} ms"
        )
    rest = {
        name: value for name, value in found.items() if name not in ("rows", "rounds", "deltas")
    }
    for name, value in rest.items():
        print(f"{name:44} {value}")


if __name__ == "__main__":
    main()
