"""How much of a forbidden phrase a client receives, wherever it stands and however it is cut."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

MARKER = "purple elephant protocol"
"""The phrase that every contestant's one rule forbids: 24 characters, nothing of it elsewhere."""
DELTAS = 60
POSITIONS = (0, 2, 30, DELTAS - 1)
PARTS = (1, 2, 3, 4, 5)


def cut(parts: int) -> Iterator[str]:
    """Yield the marker in so many deltas."""
    size = -(-len(MARKER) // parts)
    for start in range(0, len(MARKER), size):
        yield MARKER[start : start + size]


def cases() -> list[tuple[int, int]]:
    """Return every position and number of parts."""
    return [(position, parts) for position in POSITIONS for parts in PARTS]


def leaked(text: str) -> int:
    """Return how many characters of the marker's beginning a text holds."""
    return max((size for size in range(1, len(MARKER) + 1) if MARKER[:size] in text), default=0)


def said(reply: bytes) -> str:
    """Return the model's text in a response of any of the three protocols."""
    texts = []
    for line in reply.replace(b"\r\n", b"\n").split(b"\n"):
        if not line.startswith(b"data: {"):
            continue
        try:
            event: dict[str, Any] = json.loads(line[6:])
        except json.JSONDecodeError:
            continue
        match event:
            case {"choices": [{"delta": {"content": str(text)}}, *_]}:
                texts.append(text)
            case {"type": "content_block_delta", "delta": {"text": str(text)}}:
                texts.append(text)
            case {"type": "response.output_text.delta", "delta": str(text)}:
                texts.append(text)
    return "".join(texts)


async def ask(port: int, asked: bytes, position: int) -> int:
    """Send a request and return how many of the marker's characters came.

    Raises:
        RuntimeError: No word came though the marker stands far behind the first ones.
    """
    text = said(await reply(port, asked))
    if position >= DELTAS // 2 and "w" not in text:
        raise RuntimeError("no text came: nothing can be said about leaks")
    return leaked(text)


async def reply(port: int, asked: bytes) -> bytes:
    """Return all that comes for a request, its chunks' sizes left between lines."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(asked)
    got = await asyncio.wait_for(reader.read(-1), 60)
    writer.close()
    return got
