"""Synthetic canaries: requests that must be blocked, sent through each surface on a timer.

A canary takes the same path as a client's request (codec, session, ledger, outlet), with an
upstream that answers from memory. A surface that lets one pass is closed and alarmed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import msgspec

from safehold.errors import LedgerError, SafeholdError
from safehold.guard.gateway.interface import REFUSAL, Codec, Surface
from safehold.guard.gateway.operate.shared_state import SharedState
from safehold.guard.gateway.policy import Settings
from safehold.guard.gateway.protocols.json_border import encode
from safehold.guard.gateway.protocols.sse import frame, named
from safehold.guard.gateway.relaying.client_response import Outlet
from safehold.guard.gateway.relaying.relay import Relay
from safehold.guard.gateway.relaying.run_state import AdmittedRequest
from safehold.guard.interface import Block, DeliveryMode
from safehold.guard.ledger.interface import EventKind, EventRow

if TYPE_CHECKING:
    from safehold.guard.gateway.operate.metrics import Metrics
    from safehold.guard.gateway.surfaces import Surfaces


class CanaryText(msgspec.Struct, frozen=True):
    """A prompt and the reply that the canary's upstream gives; the pair must be blocked."""

    prompt: str
    reply: str


class MemoryAnswer:
    """An upstream's answer that was in memory all along."""

    status = 200
    content_type = "text/event-stream"
    headers: Mapping[str, str] = {}

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        yield self._body

    def abort(self) -> None:
        """Do nothing: there is no connection."""


class CanaryClient:
    """An upstream that answers every request with one reply."""

    def __init__(self, reply: str) -> None:
        self._reply = reply

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> MemoryAnswer:
        """Return the reply as the stream that the path's protocol has."""
        del body, headers
        return MemoryAnswer(STREAMS[path](self._reply))

    async def get(self, path: str, headers: Mapping[str, str]) -> MemoryAnswer:
        """Return an empty list."""
        del path, headers
        return MemoryAnswer(b'{"data":[]}')

    async def close(self) -> None:
        """Do nothing."""


def _chat(text: str) -> bytes:
    first = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    events = [frame(encode({"id": "canary", "choices": [choice]})) for choice in (first, last)]
    return b"".join(events) + frame(b"[DONE]")


def _messages(text: str) -> bytes:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"content": [], "id": "canary"}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": text},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
        {"type": "message_stop"},
    ]
    return b"".join(named(event["type"], encode(event)) for event in events)


def _responses(text: str) -> bytes:
    item = {"type": "message", "id": "msg_canary", "role": "assistant", "content": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "resp_canary"}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_text.delta", "item_id": "msg_canary", "delta": text},
        {"type": "response.output_text.done", "item_id": "msg_canary", "text": text},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"status": "completed", "output": []}},
    ]
    return b"".join(named(event["type"], encode(event)) for event in events)


def _completions(text: str) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": "stop"}
    return frame(encode({"id": "canary", "choices": [choice]})) + frame(b"[DONE]")


STREAMS: dict[str, Callable[[str], bytes]] = {
    "/chat/completions": _chat,
    "/messages": _messages,
    "/responses": _responses,
    "/completions": _completions,
}


def request_body(surface: Surface, prompt: str) -> bytes:
    """Return a streamed request that holds a prompt."""
    message = {"role": "user", "content": prompt}
    if surface is Surface.RESPONSES:
        return encode({"model": "canary", "input": prompt, "stream": True})
    if surface is Surface.COMPLETIONS:
        return encode({"model": "canary", "prompt": prompt, "stream": True})
    body = {"model": "canary", "messages": [message], "stream": True}
    return encode(body | ({"max_tokens": 16} if surface is Surface.MESSAGES else {}))


class Canaries:
    """Runs canaries through the surfaces of one worker."""

    def __init__(
        self,
        *,
        relay: Relay,
        codecs: tuple[Codec, ...],
        settings: Settings,
        surfaces: "Surfaces",
        metrics: "Metrics",
        state: SharedState,
    ) -> None:
        self._relay = relay
        self._codecs = codecs
        self._settings = settings
        self._surfaces = surfaces
        self._metrics = metrics
        self._state = state
        self._count = 0

    def configure(self, settings: Settings) -> None:
        """Take new settings."""
        self._settings = settings

    def every_s(self) -> float:
        """Return how often canaries are sent; 0 where none are."""
        return self._settings.canary.every_s if self._settings.canary.enabled else 0.0

    async def watch(self) -> None:
        """Run all canaries now and then on the timer."""
        while True:
            await asyncio.sleep(self._settings.canary.every_s)
            await self.run_all()

    def texts(self) -> tuple[CanaryText, ...]:
        """Return the canaries: the configured prompts, else those of the bundle in use."""
        given = self._settings.canary.prompts or self._relay.holder.current.canaries
        return tuple(CanaryText(prompt=prompt, reply="canary") for prompt in given)

    async def run_all(self) -> dict[Surface, bool]:
        """Send one canary through each surface; close those that let it pass."""
        texts = self.texts()
        if not texts or not self._settings.canary.enabled:
            return {}
        text = texts[self._count % len(texts)]
        self._count += 1
        results: dict[Surface, bool] = {}
        for codec in self._codecs:
            try:
                caught = await self._caught(codec, text)
            except SafeholdError:
                caught = None
            results[codec.surface] = caught is True
            await self._conclude(codec.surface, caught=caught)
        return results

    async def _caught(self, codec: Codec, text: CanaryText) -> bool | None:
        """Send one canary; True if it was stopped (or, where nothing is stopped, noticed).

        None where it was not judged: a row could not be kept, or a scorer broke.
        """
        relay = Relay(
            client=CanaryClient(text.reply),
            holder=self._relay.holder,
            ledger=self._relay.ledger,
            watcher=self._relay.watcher,
            exemptions=self._relay.exemptions,
            limits=self._relay.limits,
            clock=self._relay.clock,
            ticks=self._relay.ticks,
            load=self._relay.load,  # so that a gateway knows what a prompt costs when it begins
        )
        policy = self._settings.policy(codec.surface, None)
        call = codec.parse(request_body(codec.surface, text.prompt), policy.rules)
        self._count += 1
        ask = AdmittedRequest(
            decision_id=f"canary_{codec.surface}_{int(self._relay.clock() * 1e6)}",
            surface=codec.surface,
            codec=codec,
            call=call,
            exchange=call.exchange,
            policy=policy,
            use_case="canary",
            canary=True,
        )
        sent = bytearray()

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.extend(message.get("body", b""))

        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        state = await relay.serve(ask, Outlet(send, relay.ticks), gone)
        if state.verdict is None or (state.error is not None and state.block is None):
            return None
        noticed = state.block is not None or isinstance(state.verdict, Block)
        if policy.shadow or policy.mode is DeliveryMode.AUDIT or policy.on_block == "fallback":
            return noticed
        return noticed and REFUSAL.encode() in bytes(sent)

    async def _conclude(self, surface: Surface, *, caught: bool | None) -> None:
        result = {True: "blocked", False: "passed", None: "unjudged"}[caught]
        self._metrics.canaries.labels(str(surface), result).inc()
        rows = [
            self._event(EventKind.CANARY, surface, {"blocked": caught is True, "result": result})
        ]
        if not caught:
            why = "passed unblocked" if caught is False else "could not be judged"
            self._surfaces.close(surface, f"its canary {why}")
            with contextlib.suppress(LedgerError):  # told again when the store answers
                await self._state.set("surface", str(surface), f"its canary {why}")
            self._metrics.alarms.labels("canary").inc()
            rows.append(self._event(EventKind.ALARM, surface, {"alarm": "canary"}))
            rows.append(self._event(EventKind.SURFACE_CLOSED, surface, {"by": "canary"}))
        try:
            await self._relay.ledger.append(rows[0], *rows[1:])
        except LedgerError:
            self._metrics.alarms.labels("ledger").inc()

    def _event(self, kind: EventKind, surface: Surface, detail: dict[str, str | bool]) -> EventRow:
        return EventRow(at=self._relay.clock(), kind=kind, surface=str(surface), detail=detail)
