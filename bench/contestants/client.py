"""The client of the benchmark: one raw socket a stream, as little work as possible."""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence

from bench.contestants.server import Server

DELTAS = 200
PACED_STREAMS = 50
PACED_MS = 10
FIRST_STREAMS = 10
FIRST_DELTAS = 60
FIRST_MS = 20
MEMORY_STREAMS = 200
MEMORY_DELTAS = 4000
STREAM_S = 600


def request(*numbers: int) -> bytes:
    """Return a streamed chat request; the mock reads what to do from the model's name."""
    body = {
        "model": "mock-" + "-".join(str(number) for number in numbers),
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
    }
    return post("/v1/chat/completions", body)


def post(path: str, body: object) -> bytes:
    """Return a request that closes its connection."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + data


async def stream(port: int, asked: bytes) -> float:
    """Run one stream; return the seconds to its first text.

    Raises:
        RuntimeError: It ended in the middle.
        TimeoutError: It did not end within ten minutes.
    """
    async with asyncio.timeout(STREAM_S):
        return await _stream(port, asked)


async def _stream(port: int, asked: bytes) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.perf_counter()
    writer.write(asked)
    first = 0.0
    tail = b""
    while data := await reader.read(65536):
        tail = (tail + data)[-400:]
        if not first and b'"content":"w' in data.replace(b": ", b":"):
            first = time.perf_counter() - began
        if b"[DONE]" in tail:
            break
    writer.close()
    if b"[DONE]" not in tail:
        raise RuntimeError("a stream did not end")
    return first


async def burst(port: int, count: int) -> list[float]:
    """Run streams one after another, as fast as they come; return the delays to first texts.

    A stream that did not end is not among them.
    """
    asked = request(DELTAS, 0)
    return _ended([await _tried(port, asked) for _ in range(count)])


async def paced(port: int, count: int) -> list[float]:
    """Run many streams at once, each at the pace of a model."""
    asked = request(DELTAS, PACED_MS)
    return _ended(await asyncio.gather(*(_tried(port, asked) for _ in range(count))))


async def _tried(port: int, asked: bytes) -> float | None:
    try:
        return await stream(port, asked)
    except TimeoutError:
        return None


def _ended(firsts: Sequence[float | None]) -> list[float]:
    return [first for first in firsts if first is not None]


async def first_text(port: int) -> float:
    """Return the median delay to the first text of streams at a model's pace, in seconds."""
    asked = request(FIRST_DELTAS, FIRST_MS)
    found = await asyncio.gather(*(_tried(port, asked) for _ in range(FIRST_STREAMS)))
    return statistics.median(_ended(found) or [STREAM_S])


async def crowd(server: Server, limit_s: float) -> tuple[float, bool]:
    """Run many long streams at once; return the highest resident memory, and whether all ended.

    What is not done after `limit_s` seconds is cut off: a slow server would take an hour.
    """
    asked = request(MEMORY_DELTAS, 0)
    tasks = [asyncio.ensure_future(stream(server.port, asked)) for _ in range(MEMORY_STREAMS)]
    highest = 0.0
    deadline = time.monotonic() + limit_s
    while not all(task.done() for task in tasks) and time.monotonic() < deadline:
        highest = max(highest, server.rss_mb())
        await asyncio.sleep(0.05)
    whole = all(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    if any(isinstance(error, Exception) for error in ended):
        raise RuntimeError("a stream broke")
    return highest, whole
