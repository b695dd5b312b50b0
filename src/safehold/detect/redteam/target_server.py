"""The always-complying target as an OpenAI-compatible server, for a gateway to stand before."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
from aiohttp import web

from safehold.detect.redteam.interface import MODEL
from safehold.detect.redteam.run import deltas
from safehold.detect.redteam.target import Complier
from safehold.exchange import Exchange, Role, TextPart, Turn

_MAX_BODY = 4 << 20
_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
}


class _TargetPart(msgspec.Struct):
    text: str = ""


class _TargetMessage(msgspec.Struct):
    role: str
    content: str | list[_TargetPart] | None = None


class _Request(msgspec.Struct):
    messages: Annotated[list[_TargetMessage], msgspec.Meta(min_length=1)]
    stream: bool = False


def _exchange(request: _Request) -> Exchange:
    turns: list[Turn] = []
    for message in request.messages:
        parts = message.content or ""
        texts = [parts] if isinstance(parts, str) else [part.text for part in parts]
        role = _ROLES.get(message.role, Role.USER)
        turns.append(Turn(role=role, parts=tuple(TextPart(text=text) for text in texts)))
    return Exchange(turns=tuple(turns))


def app(complier: Complier) -> web.Application:
    """Return the server's application: Chat Completions, streamed or whole, and its model."""

    async def complete(request: web.Request) -> web.StreamResponse:
        try:
            asked = msgspec.json.decode(await request.read(), type=_Request)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            body = {"error": {"message": str(error), "type": "invalid_request_error"}}
            return web.json_response(body, status=400)
        reply = complier.answer(_exchange(asked))
        if asked.stream:
            return await _streamed(request, reply.text)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": reply.text},
            "finish_reason": "stop",
        }
        words = len(reply.text.split())
        usage = {"prompt_tokens": 0, "completion_tokens": words, "total_tokens": words}
        return web.json_response({**_head("chat.completion"), "choices": [choice], "usage": usage})

    async def models(request: web.Request) -> web.Response:
        del request
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    server = web.Application(client_max_size=_MAX_BODY)
    server.add_routes([web.post("/v1/chat/completions", complete), web.get("/v1/models", models)])
    return server


def _head(kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-redteam", "object": kind, "created": 0, "model": MODEL}


async def _streamed(request: web.Request, text: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)

    async def send(delta: dict[str, str], finish: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        event = json.dumps({**_head("chat.completion.chunk"), "choices": [choice]})
        await response.write(f"data: {event}\n\n".encode())

    await send({"role": "assistant", "content": ""}, None)
    for delta in deltas(text):
        await send({"content": delta}, None)
    await send({}, "stop")
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


@asynccontextmanager
async def serving(complier: Complier, *, port: int = 0) -> AsyncIterator[str]:
    """Serve on a loopback port (0: a free one); yield the base URL."""
    runner = web.AppRunner(app(complier), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        host, bound = runner.addresses[0][:2]
        yield f"http://{host}:{bound}/v1"
    finally:
        await runner.cleanup()
