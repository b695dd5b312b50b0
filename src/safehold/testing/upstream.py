"""A deterministic model server for the three protocols, with faults on demand.

It is a plain asyncio server on a loopback port, so that a test can break HTTP itself. What it says
is a `Script`; how it breaks is a `Fault`.
"""

import asyncio
import contextlib
import gzip
import json
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import msgspec


class Fault(StrEnum):
    """How an answer breaks."""

    NONE = "none"
    HANG = "hang"
    HANG_MIDWAY = "hang_midway"
    HANG_AT_END = "hang_at_end"
    RESET = "reset"
    HALF_CLOSE = "half_close"
    ONE_BYTE = "one_byte"
    BROKEN_JSON = "broken_json"
    NOT_SSE = "not_sse"
    WRONG_TYPE = "wrong_type"
    HUGE_LINE = "huge_line"
    UNKNOWN_EVENT = "unknown_event"
    UNKNOWN_FIELD = "unknown_field"
    ERROR_EVENT = "error_event"
    STATUS_500 = "status_500"
    STATUS_400 = "status_400"
    STATUS_429 = "status_429"
    INVALID_UTF8 = "invalid_utf8"
    REDIRECT = "redirect"
    WHOLE = "whole"
    UNNAMED = "unnamed"
    GZIP = "gzip"
    CUT_GZIP = "cut_gzip"
    STREAMS = "streams"


class SaidRun(msgspec.Struct, frozen=True):
    """One run of text of an answer: its deltas on one channel.

    `channel` is `text`, `reasoning`, `refusal` or `tool`; a tool's `name` precedes its deltas,
    which are pieces of the JSON arguments.
    """

    deltas: tuple[str, ...]
    channel: str = "text"
    name: str = "lookup"
    choice: int = 0


class Script(msgspec.Struct, frozen=True):
    """What the server says, and how."""

    said: tuple[SaidRun, ...] = (SaidRun(("Hello", " from", " the", " mock", ".")),)
    fault: Fault = Fault.NONE
    delay_s: float = 0.0
    error_text: str = "the mock refuses"
    whole_frames: int = 0
    response_id: str = "resp_1"


def split(text: str, size: int) -> tuple[str, ...]:
    """Cut a text into deltas of `size` characters."""
    return tuple(text[at : at + size] for at in range(0, len(text), size))


def says(text: str, *, size: int = 4, channel: str = "text") -> Script:
    """Return a script of one text."""
    return Script(said=(SaidRun(split(text, size), channel=channel),))


# -- the older completions ----------------------------------------------------------------------

_COMPLETION = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "mock"}


def completion_events(script: Script) -> Iterator[bytes]:
    """Yield the events of Completions; every run of text is its choice's."""
    for said in script.said:
        for text in said.deltas:
            choice = {"index": said.choice, "text": text, "finish_reason": None}
            yield _frame({**_COMPLETION, "choices": [choice]})
    for at in sorted({said.choice for said in script.said}):
        choice = {"index": at, "text": "", "finish_reason": "stop"}
        yield _frame({**_COMPLETION, "choices": [choice]})
    yield b"data: [DONE]\n\n"


def completion_whole(script: Script) -> dict[str, Any]:
    """Return a whole completion."""
    texts: dict[int, str] = {}
    for said in script.said:
        texts[said.choice] = texts.get(said.choice, "") + "".join(said.deltas)
    choices = [
        {"index": at, "text": text, "finish_reason": "stop", "logprobs": {"tokens": [text]}}
        for at, text in sorted(texts.items())
    ]
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    return {**_COMPLETION, "choices": choices, "usage": usage}


# -- the three protocols, streamed ---------------------------------------------------------------


def chat_events(script: Script, *, usage: bool) -> Iterator[bytes]:
    """Yield the events of Chat Completions."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "mock"}

    def event(choice: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        body = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _frame({**head, "choices": [body]})

    choices = sorted({said.choice for said in script.said})
    tools: dict[int, int] = {}
    for choice in choices:
        yield event(choice, {"role": "assistant", "content": ""})
    for said in script.said:
        field = {"text": "content", "reasoning": "reasoning_content", "refusal": "refusal"}
        if said.channel == "tool":
            at = tools[said.choice] = tools.get(said.choice, -1) + 1
            call = {
                "index": at,
                "id": f"call_{at}",
                "type": "function",
                "function": {"name": said.name, "arguments": ""},
            }
            yield event(said.choice, {"tool_calls": [call]})
            for text in said.deltas:
                more = {"index": at, "function": {"arguments": text}}
                yield event(said.choice, {"tool_calls": [more]})
        else:
            for text in said.deltas:
                yield event(said.choice, {field[said.channel]: text})
    for choice in choices:
        yield event(choice, {}, "tool_calls" if choice in tools else "stop")
    if usage:
        counts = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        yield _frame({**head, "choices": [], "usage": counts})
    yield b"data: [DONE]\n\n"


def messages_events(script: Script) -> Iterator[bytes]:
    """Yield the events of Anthropic Messages."""

    def event(kind: str, **fields: object) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()

    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "mock",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 1},
    }
    yield event("message_start", message=message)
    yield event("ping")
    for index, said in enumerate(script.said):
        block: dict[str, Any] = {"type": "text", "text": ""}
        kind, field = "text_delta", "text"
        if said.channel == "reasoning":
            block = {"type": "thinking", "thinking": "", "signature": ""}
            kind, field = "thinking_delta", "thinking"
        elif said.channel == "tool":
            block = {"type": "tool_use", "id": f"toolu_{index}", "name": said.name, "input": {}}
            kind, field = "input_json_delta", "partial_json"
        yield event("content_block_start", index=index, content_block=block)
        for text in said.deltas:
            yield event("content_block_delta", index=index, delta={"type": kind, field: text})
        if said.channel == "reasoning":
            signature = {"type": "signature_delta", "signature": "c2lnbmF0dXJl"}
            yield event("content_block_delta", index=index, delta=signature)
        yield event("content_block_stop", index=index)
    tool = any(said.channel == "tool" for said in script.said)
    stop = {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None}
    yield event("message_delta", delta=stop, usage={"output_tokens": 5})
    yield event("message_stop")


def responses_events(script: Script) -> Iterator[bytes]:
    """Yield the events of OpenAI Responses."""
    number = iter(range(10**9))

    def event(kind: str, **fields: object) -> bytes:
        body = {"type": kind, "sequence_number": next(number), **fields}
        return f"event: {kind}\ndata: {json.dumps(body)}\n\n".encode()

    base = {"id": script.response_id, "object": "response", "created_at": 1, "model": "mock"}
    yield event("response.created", response={**base, "status": "in_progress", "output": []})
    yield event("response.in_progress", response={**base, "status": "in_progress", "output": []})
    output = []
    for index, said in enumerate(script.said):
        item, kind, more = _response_item(index, said)
        whole = "".join(said.deltas)
        place = {"item_id": item["id"], "output_index": index} | more
        yield event("response.output_item.added", output_index=index, item=item)
        if kind in ("output_text", "refusal", "reasoning_text"):
            part = {"type": kind, ("refusal" if kind == "refusal" else "text"): ""}
            if kind == "output_text":
                part["annotations"] = []  # type: ignore[assignment]
            yield event("response.content_part.added", part=part, **place)
        for text in said.deltas:
            yield event(f"response.{kind}.delta", delta=text, **place)
        done = {"refusal": "refusal", "function_call_arguments": "arguments"}.get(kind, "text")
        yield event(f"response.{kind}.done", **{done: whole}, **place)
        finished = _finished_item(item, kind, whole)
        output.append(finished)
        yield event("response.output_item.done", output_index=index, item=finished)
    usage = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
    final = {**base, "status": "completed", "output": output, "usage": usage}
    yield event("response.completed", response=final)


def _response_item(index: int, said: SaidRun) -> tuple[dict[str, Any], str, dict[str, Any]]:
    item: dict[str, Any]
    if said.channel == "tool":
        item = {
            "type": "function_call",
            "id": f"fc_{index}",
            "call_id": f"call_{index}",
            "name": said.name,
            "arguments": "",
            "status": "in_progress",
        }
        return item, "function_call_arguments", {}
    if said.channel == "reasoning":
        item = {"type": "reasoning", "id": f"rs_{index}", "summary": []}
        return item, "reasoning_text", {"content_index": 0}
    item = {
        "type": "message",
        "id": f"msg_{index}",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    kind = "refusal" if said.channel == "refusal" else "output_text"
    return item, kind, {"content_index": 0}


def _finished_item(item: dict[str, Any], kind: str, whole: str) -> dict[str, Any]:
    match kind:
        case "function_call_arguments":
            return {**item, "arguments": whole, "status": "completed"}
        case "reasoning_text":
            return {**item, "content": [{"type": "reasoning_text", "text": whole}]}
        case "refusal":
            return {**item, "content": [{"type": "refusal", "refusal": whole}]}
        case _:
            part = {"type": "output_text", "text": whole, "annotations": []}
            return {**item, "status": "completed", "content": [part]}


# -- the three protocols, whole ------------------------------------------------------------------


def chat_whole(script: Script) -> dict[str, Any]:
    """Return a Chat Completions answer."""
    choices: dict[int, dict[str, Any]] = {}
    for said in script.said:
        message = choices.setdefault(said.choice, {"role": "assistant", "content": None})
        text = "".join(said.deltas)
        if said.channel == "tool":
            calls = message.setdefault("tool_calls", [])
            function = {"name": said.name, "arguments": text}
            calls.append({"id": f"call_{len(calls)}", "type": "function", "function": function})
        else:
            field = {"text": "content", "reasoning": "reasoning_content", "refusal": "refusal"}
            name = field[said.channel]
            message[name] = (message.get(name) or "") + text
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [
            {
                "index": index,
                "message": message,
                "finish_reason": "tool_calls" if "tool_calls" in message else "stop",
                "logprobs": None,
            }
            for index, message in sorted(choices.items())
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }


def messages_whole(script: Script) -> dict[str, Any]:
    """Return an Anthropic message."""
    blocks: list[dict[str, Any]] = []
    for index, said in enumerate(script.said):
        text = "".join(said.deltas)
        match said.channel:
            case "tool":
                given = json.loads(text or "{}")
                block = {"type": "tool_use", "id": f"toolu_{index}", "name": said.name}
                blocks.append({**block, "input": given})
            case "reasoning":
                blocks.append({"type": "thinking", "thinking": text, "signature": "c2ln"})
            case _:
                blocks.append({"type": "text", "text": text})
    tool = any(said.channel == "tool" for said in script.said)
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "mock",
        "content": blocks,
        "stop_reason": "tool_use" if tool else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 5},
    }


def responses_whole(script: Script) -> dict[str, Any]:
    """Return a Responses answer."""
    output = []
    for index, said in enumerate(script.said):
        item, kind, _ = _response_item(index, said)
        output.append(_finished_item(item, kind, "".join(said.deltas)))
    return {
        "id": script.response_id,
        "object": "response",
        "created_at": 1,
        "model": "mock",
        "status": "completed",
        "output": output,
        "usage": {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12},
    }


def _frame(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


WHOLE: dict[str, Callable[[Script], dict[str, Any]]] = {
    "/v1/chat/completions": chat_whole,
    "/v1/completions": completion_whole,
    "/v1/messages": messages_whole,
    "/v1/responses": responses_whole,
}


class MockUpstream:
    """The server; use as a context manager. It runs on a thread of its own.

    `script` may be changed between requests; `requests` holds the bodies that came, as JSON, and
    `seen` their paths and headers, unless `keep` is off.
    """

    keep = True

    def __init__(self, script: Script | None = None, *, host: str = "127.0.0.1") -> None:
        """Take the script, and where to listen (a namespace reaches no loopback of ours)."""
        self._host = host
        self.script = script or Script()
        self.requests: list[dict[str, Any]] = []
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="mock-upstream", daemon=True)
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(60)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, self._host, 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # aborted transports close in the next turns of the loop

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
                while await self._request(reader, writer):
                    pass
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()  # the test is over

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        path = head[0].split(" ")[1]
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        given = json.loads(body) if body else {}
        if self.keep:
            self.requests.append(given)
            self.seen.append((path, headers))
        return await self._answer(path, given, writer)

    async def _answer(self, path: str, given: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        script = self.script
        status = {Fault.STATUS_500: 500, Fault.STATUS_400: 400, Fault.STATUS_429: 429}.get(
            script.fault
        )
        if script.fault is Fault.HANG:
            await asyncio.sleep(3600)
        if script.fault is Fault.REDIRECT:
            writer.write(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n")
            return True
        if status is not None:
            error = {"error": {"message": script.error_text, "type": "x", "code": None}}
            return await _json(writer, error, status)
        if path == "/v1/models":
            entry = {"id": "mock", "object": "model", "created": 1, "owned_by": "mock"}
            entry |= {"max_model_len": 32_768, "permission": [{"allow_sampling": True}]}
            return await _json(writer, {"object": "list", "data": [entry]})
        if path == "/v1/messages/count_tokens":
            return await _json(writer, {"input_tokens": 7})
        if path == "/v1/responses/input_tokens":
            return await _json(writer, {"object": "response.input_tokens", "input_tokens": 9})
        if path == "/v1/rerank":
            ranked = {"index": 0, "relevance_score": 0.5, "document": {"text": "unread"}}
            return await _json(writer, {"id": "r", "model": "mock", "results": [ranked]})
        if path == "/v1/embeddings":
            vector = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
            return await _json(writer, {"object": "list", "data": [vector], "model": "mock"})
        if path not in WHOLE:
            error = {"error": {"message": f"no {path} here", "type": "x", "code": None}}
            return await _json(writer, error, 404)
        streams = given.get("stream") or script.fault is Fault.STREAMS
        if streams and script.fault is not Fault.WHOLE:
            return await self._stream(path, given, script, writer)
        answer = WHOLE[path](script)
        if script.fault is Fault.UNKNOWN_FIELD:
            answer["choices" if "choices" in answer else "content"][0]["thoughts"] = "x"
        return await _json(writer, answer, broken=script.fault)

    async def _stream(
        self, path: str, given: dict[str, Any], script: Script, writer: asyncio.StreamWriter
    ) -> bool:
        kind = _TYPES.get(script.fault, "text/event-stream")
        packed = script.fault in (Fault.GZIP, Fault.CUT_GZIP)
        encoding = "content-encoding: gzip\r\n" if packed else ""
        writer.write(
            f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{encoding}"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )
        if path == "/v1/messages":
            events = list(messages_events(script))
        elif path == "/v1/responses":
            events = list(responses_events(script))
        elif path == "/v1/completions":
            events = list(completion_events(script))
        else:
            usage = bool((given.get("stream_options") or {}).get("include_usage"))
            events = list(chat_events(script, usage=usage))
        if packed:
            events = packed_events(events, whole=script.fault is Fault.GZIP)
        return await _play(script, events, writer)


_TYPES = {Fault.WRONG_TYPE: "text/html", Fault.UNNAMED: "text/plain"}


def packed_events(events: Sequence[bytes], *, whole: bool) -> list[bytes]:
    """Return events as one gzip stream, a flush after each; without its end if not `whole`."""
    pack = zlib.compressobj(wbits=31)
    packed = [pack.compress(event) + pack.flush(zlib.Z_SYNC_FLUSH) for event in events]
    return [*packed, pack.flush()] if whole else packed[: len(packed) // 2]


async def _play(script: Script, events: Sequence[bytes], writer: asyncio.StreamWriter) -> bool:
    """Send the events of a stream, breaking as the script says at two thirds of them."""
    breaking = len(events) * 2 // 3
    for at, event in enumerate(events):
        if at == breaking and script.fault is not Fault.NONE:
            if script.fault is Fault.HANG_MIDWAY:
                await asyncio.sleep(3600)
            if script.fault is Fault.RESET:
                await writer.drain()
                writer.transport.abort()
                return False
            if script.fault is Fault.HALF_CLOSE:
                writer.write(b"0\r\n\r\n")
                await writer.drain()
                return False
            await _write(writer, _BROKEN.get(script.fault, b""))
            if script.fault is Fault.HUGE_LINE:
                for _ in range(100):
                    await _write(writer, b"x" * (1 << 20))
        if script.fault is Fault.ONE_BYTE:
            for byte in event:
                await _write(writer, bytes([byte]))
        else:
            await _write(writer, event)
        if script.delay_s:
            await asyncio.sleep(script.delay_s)
    if script.fault is Fault.HANG_AT_END:
        await asyncio.sleep(3600)
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


_BROKEN = {
    Fault.BROKEN_JSON: b'data: {"choices": [\n\n',
    Fault.NOT_SSE: b"<html>this is no event stream</html>\n\n",
    Fault.HUGE_LINE: b"data: ",
    Fault.UNKNOWN_EVENT: b'event: novel\ndata: {"type": "novel", "novel": 1}\n\n',
    Fault.UNKNOWN_FIELD: (
        b'data: {"type": "content_block_delta", "index": 0, "choices": '
        b'[{"index": 0, "delta": {"content": "a", "thoughts": "x"}}], '
        b'"delta": {"type": "text_delta", "text": "a", "thoughts": "x"}}\n\n'
    ),
    Fault.ERROR_EVENT: (
        b'event: error\ndata: {"type": "error", "error": {"type": "x", "message": "secret"}}\n\n'
    ),
    Fault.INVALID_UTF8: b'data: {"choices": [{"index": 0, "delta": {"content": "\xff\xfe"}}]}\n\n',
}


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if data:
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await writer.drain()


async def _json(
    writer: asyncio.StreamWriter,
    body: dict[str, Any],
    status: int = 200,
    broken: Fault = Fault.NONE,
) -> bool:
    data = json.dumps(body).encode()
    if broken in (Fault.BROKEN_JSON, Fault.NOT_SSE):
        data = data[:-1]
    if broken is Fault.INVALID_UTF8:
        data = data.replace(b"mock", b"\xff\xfe")
    kind = _TYPES.get(broken, "application/json")
    extra = "retry-after: 3\r\n" if status == 429 else ""
    if broken in (Fault.GZIP, Fault.CUT_GZIP):
        data = gzip.compress(data)[: -20 if broken is Fault.CUT_GZIP else None]
        extra += "content-encoding: gzip\r\n"
    size = len(data) + (10 if broken in (Fault.HALF_CLOSE, Fault.RESET) else 0)
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {size}\r\n{extra}\r\n"
    writer.write(head.encode() + data)
    await writer.drain()
    return size == len(data)
