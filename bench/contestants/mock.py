"""The mock upstream: `mock-DELTAS-MILLISECONDS` streams as many words, one at a time.

`mock-DELTAS-MILLISECONDS-POSITION-PARTS` says the marker before that word, in so many deltas.
`prose-DELTAS-MILLISECONDS` says sentences: a guard that decodes takes `wa wb wc` for a code.
Run: `python -m bench.contestants.mock`; prints its port.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator

from bench.contestants.leaks import cut

HEAD = '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"mock","choices":'


PROSE = (
    "We walked along the river in the morning and watched the boats pass under the old bridge. "
    "The weather was mild, so we sat on a bench and talked about the summer before."
)


def event(delta: dict[str, str], finish: str) -> bytes:
    """Return one event in a chunk of its own."""
    written = json.dumps(delta, separators=(",", ":"))
    body = f'[{{"index":0,"delta":{written},"logprobs":null,"finish_reason":{finish}}}]}}'
    return chunk(f"data: {HEAD}{body}\n\n".encode())


def chunk(data: bytes) -> bytes:
    """Return data as HTTP's chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def words(deltas: int, position: int = -1, parts: int = 1) -> Iterator[str]:
    """Yield the texts of an answer."""
    for number in range(deltas):
        if number == position:
            yield from cut(parts)
        yield f"w{'abcdefghij'[number % 10]} "


def prose(deltas: int) -> Iterator[str]:
    """Yield the words of sentences."""
    said = PROSE.split()
    for number in range(deltas):
        yield f"{said[number % len(said)]} "


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a connection's requests until it closes."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            top = await reader.readuntil(b"\r\n\r\n")
            at = top.lower().index(b"content-length: ") + 16
            body = await reader.readexactly(int(top[at : top.index(b"\r", at)]))
            kind, *numbers = json.loads(body)["model"].split("-")
            deltas, delay, *rest = map(int, numbers)
            said = prose(deltas) if kind == "prose" else words(deltas, *rest)
            await play(writer, list(said), delay / 1000)
    writer.close()


async def play(writer: asyncio.StreamWriter, texts: list[str], delay_s: float) -> None:
    """Send one answer."""
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    writer.write(event({"role": "assistant", "content": ""}, "null"))
    for number, text in enumerate(texts):
        writer.write(event({"content": text}, "null"))
        if delay_s:
            await asyncio.sleep(delay_s)
        elif number % 64 == 0:
            await writer.drain()
    writer.write(event({}, '"stop"') + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    await writer.drain()


async def main() -> None:
    """Serve for ever."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
