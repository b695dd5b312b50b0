"""A gateway reached over HTTP, as a submitter reaches it; and one of our own for a replay.

Our own keeps its rows in memory and forgets them, so that a replay leaves no plaintext on a disk.
A gateway of yours keeps a replay in its ledger as it keeps everything.
"""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import aiohttp
import msgspec
import uvicorn

from safehold.detect.bounty.interface import SubmittedTurn
from safehold.detect.bounty.replay import ReplayReply
from safehold.errors import SafeholdError
from safehold.guard.gateway.bundles.active_guard import Held
from safehold.guard.gateway.bundles.swap import Loader
from safehold.guard.gateway.policy import Settings, Upstream
from safehold.guard.gateway.server import Parts, build_app, listen, server_config
from safehold.guard.ledger.interface import Row
from safehold.http_words import wait_asked_s, why_no_answer

USE_CASE = "bounty"
_MAX_ANSWER = 4 << 20
_FILTERED = "content_filter"
_BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.1, 10.0


class HttpDoor:
    """Speaks to `/v1/chat/completions`, streamed, as the use case `bounty` or another."""

    def __init__(
        self,
        base_url: str,
        *,
        model: str,
        api_key: str = "",
        use_case: str = USE_CASE,
        timeout_s: float = 120.0,
    ) -> None:
        """Take the base URL (it ends in `/v1`), the model's name, and a key if one is needed."""
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self._headers = {"x-safehold-use-case": use_case}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def say(self, turns: Sequence[SubmittedTurn]) -> ReplayReply:
        """Send a conversation and return what was delivered until its end or its block.

        A gateway that has too much to do says when to come again: that is no answer.
        """
        until = time.monotonic() + (self._timeout.total or 0.0)
        while True:
            said = await self._once(turns)
            if isinstance(said, ReplayReply):
                return said
            if time.monotonic() + said > until:
                return ReplayReply(error="the gateway was busy all the time")
            await asyncio.sleep(said)

    async def _once(self, turns: Sequence[SubmittedTurn]) -> ReplayReply | float:
        """Send it once; the seconds after which to come again where the gateway is busy."""
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        body = {"model": self._model, "messages": messages, "stream": True}
        try:
            async with (
                aiohttp.ClientSession(timeout=self._timeout, headers=self._headers) as session,
                session.post(self._url, json=body) as response,
            ):
                told = response.headers.get("retry-after")
                wait_s = wait_asked_s(told, now=time.time(), most_s=_LONGEST_WAIT_S)
                if response.status in _BUSY and wait_s is not None:
                    return max(wait_s, _SHORTEST_WAIT_S)
                if response.status != HTTPStatus.OK:
                    return ReplayReply(error=f"the gateway answered {response.status}")
                said = await _heard(response)
                decision_id = response.headers.get("x-safehold-decision-id", "")
                return msgspec.structs.replace(said, decision_id=decision_id)
        except (aiohttp.ClientError, TimeoutError) as error:
            return ReplayReply(error=f"the gateway can't be reached: {why_no_answer(error)}")


async def _heard(response: aiohttp.ClientResponse) -> ReplayReply:
    out: list[str] = []
    stopped, ended, size = False, False, 0
    buffer = b""
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > _MAX_ANSWER:
            return ReplayReply(delivered="".join(out), error="the answer is too long")
        buffer += piece
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                ended = True
                continue
            try:
                event = json.loads(data)
            except ValueError:
                return ReplayReply(delivered="".join(out), error="an event is no JSON")
            if "error" in event:
                return ReplayReply(delivered="".join(out), error="the stream ended in an error")
            for choice in event.get("choices", ()):
                out.append(choice.get("delta", {}).get("content") or "")
                stopped = stopped or choice.get("finish_reason") == _FILTERED
    if not ended:
        return ReplayReply(delivered="".join(out), error="the stream broke off")
    return ReplayReply(delivered="".join(out), stopped=stopped)


class ForgottenRows:
    """A ledger that keeps nothing; for replays alone."""

    trouble: str | None = None

    def __init__(self) -> None:
        self._count = 0

    async def append(self, row: Row, *more: Row) -> int:
        """Count the rows."""
        self._count += 1 + len(more)
        del row
        return self._count

    async def close(self) -> None:
        """Do nothing."""


@asynccontextmanager
async def own_gateway(
    upstream: str, *, loader: Loader, bundle: Path | None, held: Held | None = None
) -> AsyncIterator[tuple[str, str]]:
    """Run a whole gateway on a loopback port; yield its base URL and its bundle's digest.

    Raises:
        SafeholdError: it did not start.
    """
    settings = Settings(
        port=0, upstream=Upstream(url=upstream), log="none", bundle=str(bundle) if bundle else None
    )
    parts = Parts(loader=loader, ledger=ForgottenRows(), held=held)
    sock = listen(settings)
    config = server_config(settings, parts)
    application = build_app(settings, parts)
    config.app, config.factory = application, False
    server = uvicorn.Server(config)
    task = asyncio.create_task(_serve(server, sock))
    try:
        while not server.started:
            if task.done():
                await task
                raise SafeholdError("the gateway for the replay did not start")
            await asyncio.sleep(0.01)
        gateway = application.gateway
        if gateway is None:
            raise SafeholdError("the gateway for the replay did not start")
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/v1", gateway.relay.holder.current.digest
    finally:
        server.should_exit = True
        # Why it did not start was said already.
        with contextlib.suppress(SafeholdError):
            await task
        sock.close()


async def _serve(server: uvicorn.Server, sock: socket.socket) -> None:
    try:
        await server.serve(sockets=[sock])
    except SystemExit as error:  # uvicorn's word for a start that failed
        raise SafeholdError(
            "the gateway for the replay did not start; the line above says why"
        ) from error
