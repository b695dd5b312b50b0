"""The process in which a Hugging Face model serves; started by `hf.py`, ends with its stdin.

Chat Completions, streamed or whole, one choice, text only, plus `POST /activations` for a reply
that is already written. A request that names a probe in `x-safehold-probe` gets `heard` with every
piece of text: the probe's logit of each token. Thousands of activations become one number here,
where they are. One thread computes; requests take turns token by token.
"""

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from aiohttp import web

from safehold.errors import BundleError, ConfigError, SafeholdError, ScorerError
from safehold.guard.gateway.upstreams.hf_wire import (
    PROBE,
    ROWS,
    ActivationsRequest,
    ChatBody,
    Probes,
    messages_of,
)
from safehold.guard.served.model import HfModel, Sampling, Spoken

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_MAX_BODY = 8 << 20
_NAME = "hf"


class Server:
    """Answers requests with one model."""

    def __init__(self, model: HfModel, key: str, probes: Probes) -> None:
        """Take the model, the key that clients must present, and the probes there are."""
        self._model = model
        self._key = key
        self._probes = probes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    def application(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=_MAX_BODY, middlewares=[self._guarded])
        app.add_routes(
            [
                web.get("/v1/models", self._models),
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/activations", self._activations),
            ]
        )
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("authorization") != f"Bearer {self._key}":
            return _error(401, "wrong key")
        try:
            return await handler(request)
        except (ConfigError, BundleError, ScorerError, msgspec.MsgspecError, ValueError) as error:
            # msgspec names the place and the kinds, never the content.
            return _error(400, str(error))

    async def _models(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"object": "list", "data": [{"id": _NAME, "object": "model"}]})

    async def _activations(self, request: web.Request) -> web.Response:
        asked = msgspec.json.decode(await request.read(), type=ActivationsRequest)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._thread, self._model.read, asked.said, asked.reply, asked.layers
        )
        body = found.activations.astype("<f4").tobytes()
        return web.Response(body=body, headers={ROWS: str(len(found.activations))})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = msgspec.json.decode(await request.read(), type=ChatBody)
        said = messages_of(asked)
        named = request.headers.get(PROBE)
        probe = None if named is None else self._probes.get(named)
        sampling = Sampling(
            most=asked.max_completion_tokens or asked.max_tokens or Sampling.most,
            temperature=asked.temperature if asked.temperature is not None else 1.0,
            top_p=asked.top_p if asked.top_p is not None else 1.0,
            seed=asked.seed or 0,
        )
        parts = self._turns(self._model.write(said, sampling, probe))
        first = await anext(parts, None)  # what can't be answered fails before a status is sent
        if asked.stream:
            usage = bool(asked.stream_options and asked.stream_options.include_usage)
            return await self._streamed(request, first, parts, sampling.most, usage=usage)
        found = [] if first is None else [first, *[part async for part in parts]]
        tokens = sum(part.tokens for part in found)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(part.text for part in found)},
            "finish_reason": "length" if tokens >= sampling.most else "stop",
        } | _heard(found)
        body = {**_head("chat.completion"), "choices": [choice], "usage": _usage(tokens)}
        return web.json_response(body)

    async def _streamed(
        self,
        request: web.Request,
        first: Spoken | None,
        parts: AsyncIterator[Spoken],
        most: int,
        *,
        usage: bool,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)

        async def send(body: dict[str, object]) -> None:
            event = json.dumps({**_head("chat.completion.chunk"), **body})
            await response.write(f"data: {event}\n\n".encode())

        async def choice(delta: dict[str, str], finish: str | None, spoken: list[Spoken]) -> None:
            shown = {"index": 0, "delta": delta, "finish_reason": finish} | _heard(spoken)
            await send({"choices": [shown]})

        await choice({"role": "assistant", "content": ""}, None, [])
        tokens = 0
        spoken = first
        while spoken is not None:
            tokens += spoken.tokens
            await choice({"content": spoken.text}, None, [spoken])
            spoken = await anext(parts, None)
        await choice({}, "length" if tokens >= most else "stop", [])
        if usage:
            await send({"choices": [], "usage": _usage(tokens)})
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _turns(self, parts: Iterator[Spoken]) -> AsyncIterator[Spoken]:
        """Compute one step at a time: requests take turns, and a lost client ends its own."""
        loop = asyncio.get_running_loop()
        while True:
            part = await loop.run_in_executor(self._thread, next, parts, None)
            if part is None:
                return
            yield part


def _heard(spoken: list[Spoken]) -> dict[str, list[float]]:
    """Return what the probe heard of the text beside it, where one was named."""
    heard = [logit for part in spoken for logit in part.heard]
    return {"heard": heard} if heard else {}


def _usage(written: int) -> dict[str, int]:
    return {"prompt_tokens": 0, "completion_tokens": written, "total_tokens": written}


def _head(kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-hf", "object": kind, "created": 0, "model": _NAME}


def _error(status: int, message: str) -> web.Response:
    body = {"error": {"message": message, "type": "invalid_request_error"}}
    return web.json_response(body, status=status)


async def _serve(settings: dict[str, object]) -> None:
    model = HfModel(
        Path(str(settings["model"])),
        dtype=str(settings["dtype"]),
        threads=int(str(settings["threads"])),
    )
    probes = Probes(Path(str(settings["probes"])))
    server = Server(model, str(settings["key"]), probes)
    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(str(settings["port"]))).start()
    started = {"port": runner.addresses[0][1], "digest": model.digest, "dtype": model.dtype}
    sys.stdout.write(json.dumps(started) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def main() -> None:
    """Serve the model that the first line of stdin describes, until stdin ends."""
    settings = json.loads(sys.stdin.buffer.readline())

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    try:
        asyncio.run(_serve(settings))
    except SafeholdError as error:
        sys.stdout.write(json.dumps({"error": str(error)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
