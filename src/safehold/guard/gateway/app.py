"""The gateway as an ASGI application: routes, admission, and one relay behind them."""

import asyncio
import contextlib
import functools
import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import msgspec

from safehold.errors import LedgerError, SafeholdError, TrustError, WireError
from safehold.exchange import Exchange
from safehold.guard.accounts.interface import LadderStep
from safehold.guard.gateway.access.admission import Gate, HttpRefusal, bearer, use_case
from safehold.guard.gateway.browser import check_head, check_host
from safehold.guard.gateway.bundles.classes import Classes
from safehold.guard.gateway.bundles.released import settings_digest
from safehold.guard.gateway.bundles.swap import Swapper
from safehold.guard.gateway.http import (
    ClientGoneError,
    RequestHead,
    SlowBodyError,
    read_body,
    read_head,
)
from safehold.guard.gateway.interface import (
    Call,
    Codec,
    Surface,
    TooLargeError,
    UnsupportedError,
)
from safehold.guard.gateway.operate.admin import Admin
from safehold.guard.gateway.operate.byte_accounting import OutgoingBytes, ReplyMeter, Unexplained
from safehold.guard.gateway.operate.canary import Canaries
from safehold.guard.gateway.operate.metrics import Metrics
from safehold.guard.gateway.operate.reloading import changed, merged
from safehold.guard.gateway.operate.shared_state import SharedState
from safehold.guard.gateway.policy import Key, Settings
from safehold.guard.gateway.protocols.chat.codec import ChatCodec
from safehold.guard.gateway.protocols.completions.codec import CompletionsCodec
from safehold.guard.gateway.protocols.completions.moderation import moderation
from safehold.guard.gateway.protocols.completions.vectors import EmbeddingsCodec, RerankCodec
from safehold.guard.gateway.protocols.messages.betas import allowed_betas
from safehold.guard.gateway.protocols.messages.codec import MessagesCodec
from safehold.guard.gateway.protocols.responses.codec import ResponsesCodec
from safehold.guard.gateway.protocols.responses.retrieval import retrieved
from safehold.guard.gateway.relaying.client_response import Outlet, Receive, Send
from safehold.guard.gateway.relaying.conversations import Histories
from safehold.guard.gateway.relaying.moderating import Moderation
from safehold.guard.gateway.relaying.relay import Relay
from safehold.guard.gateway.relaying.run_state import AdmittedRequest, RunState
from safehold.guard.gateway.relaying.turned_away import Visit, note_refusal
from safehold.guard.gateway.side_endpoints import Passing
from safehold.guard.gateway.surfaces import Surfaces
from safehold.guard.ledger.interface import (
    EventKind,
    EventRow,
)

CODECS: dict[str, Callable[[], Codec]] = {
    "/v1/chat/completions": ChatCodec,
    "/v1/responses": ResponsesCodec,
    "/v1/messages": MessagesCodec,
    "/v1/completions": CompletionsCodec,
}
NUMBERS: dict[str, Callable[[], Codec]] = {
    "/v1/embeddings": EmbeddingsCodec,
    "/v1/rerank": RerankCodec,
}
"""Doors whose answers hold no text; canaries go through the others."""
OPEN = frozenset({"/healthz", "/health", "/readyz", "/metrics"})
"""The only paths that ask for no key. Every other one asks first what all workers share."""
_RESPONSE = re.compile(r"/v1/responses/([A-Za-z0-9_.:-]{1,256})")
_FORWARDED = ("anthropic-version", "openai-organization", "openai-project")
_NO_MODEL = HttpRefusal(403, "this key may not use this model")
_SWEEP_S = 1.0


class UnsharedError(LedgerError):
    """This worker does not know what all of them share."""


class Gateway:
    """The ASGI application of one worker."""

    def __init__(
        self,
        *,
        settings: Settings,
        relay: Relay,
        gate: Gate,
        metrics: Metrics,
        surfaces: Surfaces,
        histories: Histories,
        admin: Admin,
        state: SharedState,
        log: logging.Logger,
        background: tuple[Callable[[], Awaitable[None]], ...] = (),
        first: Callable[[], Awaitable[object]] | None = None,
        on_stop: tuple[Callable[[], Awaitable[None]], ...] = (),
        known: Callable[[str], bool] = lambda _: False,
        classes: Classes | None = None,
        outgoing: OutgoingBytes | None = None,
        release_mode: str = "UnsafeUnreleased",
        swapper: Swapper,
        canaries: Canaries,
        declared: Settings | None = None,
        admit_settings: Callable[[Settings], None] | None = None,
    ) -> None:
        self.settings = settings
        self.classes = classes
        self.relay = relay
        self.gate = gate
        self.metrics = metrics
        self.surfaces = surfaces
        self.histories = histories
        self.admin = admin
        self.state = state
        self._codecs = {path: make() for path, make in (CODECS | NUMBERS).items()}
        self._moderation = Moderation(relay)
        self._passing = Passing(relay, settings)
        self._log = log
        self._background = background
        self._first = first
        self._on_stop = on_stop
        self._known = known
        self._tasks: list[asyncio.Task[None]] = []
        self._open: dict[asyncio.Task[Any], Outlet] = {}
        self._meter = ReplyMeter(outgoing or Unexplained(), clock=relay.clock, log=log)
        self.release_mode = release_mode
        self.canaries = canaries
        self._swapper = swapper
        self._declared = declared or settings
        self._admit_settings = admit_settings
        self.ready = False

    async def reload(self, declared: Settings) -> tuple[str, ...]:
        """Take the settings that may change while the gateway runs; all of them, or none.

        Open streams keep the policy that they began with.

        Raises:
            ConfigError: A setting differs that can't change now.
            BundleError: The bundle they name can't be used.
            TrustError: They are not those that were released.
            LedgerError: The change can't be written down.
        """
        names = changed(self._declared, declared)
        if self._admit_settings is not None:
            await asyncio.to_thread(self._admit_settings, declared)
        if "bundle" in names and declared.bundle is not None:
            await self._swapper.swap(Path(declared.bundle), tell=False)
        digest = settings_digest(declared)
        await self._event(
            EventKind.POLICY,
            {"change": "reloaded", "settings": digest, "names": ",".join(names)},
        )
        self._declared = declared
        self.settings = merged(self.settings, declared)
        self.relay.limits = self.settings.limits
        self._passing.configure(self.settings)
        self.canaries.configure(self.settings)
        if self.classes is not None:
            self.classes.configure(self.settings.classes)
        self.surfaces.configure(self.settings)
        self.gate.use(self.settings.keys, self.settings.tenants)
        self.admin.settings = digest
        return names

    # -- ASGI ------------------------------------------------------------------------------------

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one connection's request, or follow the server's life."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1003})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except SafeholdError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        """Recover what a killed worker left, then take requests.

        Raises:
            LedgerError: The ledger can't take rows.
        """
        await self._recover()
        await self._event(EventKind.START, {"bundle": self.relay.holder.current.digest})
        if self._first is not None:
            await self._first()
        self._tasks = [asyncio.ensure_future(self._sweep())]
        self._tasks.append(asyncio.ensure_future(self.relay.load.beat()))
        self._tasks += [asyncio.ensure_future(start()) for start in self._background]
        self.ready = True

    async def stop(self) -> None:
        """Stop background work and close what was opened; open exchanges have ended by then."""
        self.ready = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._meter.tell()
        await self.relay.repay(self._known)
        with contextlib.suppress(LedgerError):
            await self._event(EventKind.STOP, {})
        for close in self._on_stop:
            await close()

    async def _recover(self) -> None:
        journal = self.relay.journal
        if journal is None:
            return
        for row in journal.leftovers(self.relay.clock()):
            if not self._known(row.decision_id):
                await self.relay.ledger.append(row)
        journal.forget()

    async def _event(
        self, kind: EventKind, detail: dict[str, str | int | float | bool | None]
    ) -> None:
        await self.relay.ledger.append(EventRow(at=self.relay.clock(), kind=kind, detail=detail))

    async def _sweep(self) -> None:
        """Cut clients that stopped reading; their exchanges still get their final rows."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = self.relay.ticks()
            for task, out in list(self._open.items()):
                since = out.sending_since
                if since is not None and now - since > self.settings.limits.stall_timeout_s:
                    task.cancel()
            await self.relay.repay(self._known)
            await self._meter.tell()

    # -- routes ----------------------------------------------------------------------------------

    async def _http(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        decision_id = f"sh_{secrets.token_hex(16)}"
        mark = (b"x-safehold-decision-id", decision_id.encode())
        chunks = scope.get("http_version") != "1.0"
        out = Outlet(send, self.relay.ticks, (mark,), knows_chunks=chunks)
        scope["path"] = scope["path"].rstrip("/") or "/"
        codec = self._codecs.get(scope["path"])
        visit = Visit(decision_id, scope["path"], looks_only=scope["method"] == "HEAD")
        visit.anthropic |= any(name == b"anthropic-version" for name, _ in scope["headers"])
        with self._meter.counted(decision_id, out):
            await self._answered(codec, scope, receive, out, visit)

    async def _answered(
        self,
        codec: Codec | None,
        scope: MutableMapping[str, Any],
        receive: Receive,
        out: Outlet,
        visit: Visit,
    ) -> None:
        try:
            head = read_head(scope, self.settings.limits)
            if head.path not in OPEN:  # keys among other things: one may be revoked elsewhere
                await self._know_what_is_shared()
            if codec is not None:
                await self._guarded(codec, head, receive, out, visit)
            else:
                await self._other(head, receive, out, visit)
        except (WireError, TrustError) as error:
            refusal = HttpRefusal(_status(error), str(error))
            await self._refuse(codec, out, visit, refusal, type(error).__name__)
        except UnsharedError as error:
            refusal = HttpRefusal(503, str(error), 1)
            await self._refuse(codec, out, visit, refusal)
        except LedgerError:
            refusal = HttpRefusal(503, "the store of the gateway does not answer", 1)
            await self._refuse(codec, out, visit, refusal, "LedgerError")

    async def _other(self, head: RequestHead, receive: Receive, out: Outlet, visit: Visit) -> None:
        # A HEAD is answered as a GET whose body the server leaves out; it never leaves a row.
        method = "GET" if head.method == "HEAD" else head.method
        match method, head.path:
            case "GET", "/healthz" | "/health":
                await out.whole(200, b'{"status":"alive"}')
            case "GET", "/readyz":
                await self._readyz(out)
            case "GET", "/metrics":
                await out.start(200, b"text/plain; version=0.0.4; charset=utf-8")
                await out.end(self.metrics.text())
            case _, path if path.startswith("/admin/"):
                who = self.gate.admin(_token(head))
                check_host(head, needs_key=self.gate.needs_key)
                body = await self._body(head, receive, self.gate.admin)
                status, answer = await self.admin.answer(
                    head.method, path, body, who, raw_path=head.raw_path
                )
                await out.whole(status, answer)
            case "GET", path if path == "/v1/models" or path.startswith("/v1/models/"):
                visit.key = self.gate.client(_token(head))
                out.account = _account(visit.key)
                check_host(head, needs_key=self.gate.needs_key)
                suspended = self.gate.suspended(visit.key)
                if suspended is not None:
                    await self._refuse(None, out, visit, suspended)
                    return
                forwarded, shape = self._forwarded(head), self._shape(visit)
                may_ask = functools.partial(self.gate.ring.may_ask, visit.key)
                await self._passing.models(path, forwarded, out, visit.decision_id, shape, may_ask)
            case "POST", "/v1/messages/count_tokens" | "/v1/responses/input_tokens" as path:
                await self._pass(path, head, receive, out, visit)
            case "POST", "/v1/moderations":
                await self._moderate(head, receive, out, visit)
            case "GET", path if (found := _RESPONSE.fullmatch(path)) is not None:
                await self._retrieve(found.group(1), head, out, visit)
            case _:
                unknown = HttpRefusal(404, "no such path on this gateway")
                await self._refuse(None, out, visit, unknown, "NoSuchPath")

    async def _pass(
        self, path: str, head: RequestHead, receive: Receive, out: Outlet, visit: Visit
    ) -> None:
        key = visit.key = self.gate.client(_token(head))
        out.account = _account(key)
        check_head(head, needs_key=self.gate.needs_key)
        surface = Surface.RESPONSES if path.startswith("/v1/responses") else Surface.MESSAGES
        refusal = await self._admit(key, surface)
        if refusal is not None:
            await self._refuse(None, out, visit, refusal)
            return
        body = await self._body(head, receive, self.gate.client)
        if (refusal := self.gate.suspended(key)) is not None:
            await self._refuse(None, out, visit, refusal)
            return
        forwarded = self._forwarded(head)
        if surface is Surface.RESPONSES:
            body = await self.histories.filled(body, key.id if key else "")
            await self._passing.input_tokens(body, forwarded, out, visit.decision_id, key)
        else:
            await self._passing.count(body, forwarded, out, visit.decision_id, key)

    async def _moderate(
        self, head: RequestHead, receive: Receive, out: Outlet, visit: Visit
    ) -> None:
        """Judge each input as a prompt; a flag counts against the key's budget as any other."""
        key = visit.key = self.gate.client(_token(head))
        out.account = _account(key)
        check_head(head, needs_key=self.gate.needs_key)
        refusal = await self._admit(key, Surface.MODERATIONS)
        if refusal is not None:
            await self._refuse(None, out, visit, refusal)
            return
        body = await self._body(head, receive, self.gate.client)
        if (refusal := self.gate.suspended(key)) is not None:
            await self._refuse(None, out, visit, refusal)
            return
        case = use_case(head.headers.get("x-safehold-use-case"))
        policy = self.settings.policy(Surface.MODERATIONS, key)
        calls = self._moderation.calls(body)
        if not self.gate.ring.may_ask(key, calls[0].model):
            await self._refuse(
                None, out, visit, HttpRefusal(403, "this key may not use this model")
            )
            return
        visit.admitted = True
        judged = await self._moderation.judged(calls, visit.decision_id, policy, key, case)
        if judged is None:
            await self._refuse(None, out, visit, HttpRefusal(500, "an input could not be judged"))
            return
        for flagged in judged:
            await self.gate.charge(key, flagged=flagged, tokens=0)
        answer = moderation(visit.decision_id, calls[0].model, policy.category, judged)
        await out.whole(200, answer)

    async def _retrieve(self, name: str, head: RequestHead, out: Outlet, visit: Visit) -> None:
        """Tell again what a response said to this key: what was delivered, from our own store."""
        key = visit.key = self.gate.client(_token(head))
        out.account = _account(key)
        check_host(head, needs_key=self.gate.needs_key)
        refusal = self.gate.suspended(key)
        turn = await self.histories.answer(name, key.id if key else "")
        if refusal is None and turn is None:
            refusal = HttpRefusal(404, "expected the id of a response that this gateway gave")
        if refusal is not None or turn is None:
            refused = refusal or HttpRefusal(404, "no such response")
            await self._refuse(None, out, visit, refused, "NoSuchResponse")
            return
        await out.whole(200, retrieved(name, turn))

    async def _readyz(self, out: Outlet) -> None:
        closed = {
            str(surface): reason
            for surface in Surface
            if (reason := self.surfaces.reason(surface)) is not None
        }
        sound = self.relay.ledger.trouble is None
        told = await self._is_shared()
        is_open = any(
            codec.surface
            for codec in self._codecs.values()
            if self.surfaces.reason(codec.surface) is None
        )
        ready = self.ready and sound and is_open and told
        body = {
            "ready": ready,
            "ledger": "sound" if sound else "not writable",
            "store": "sound" if told else "not answering",
            "bundle": self.relay.holder.current.digest,
            "classes": self._class_states(),
            "releases": self.release_mode,
            "closed_surfaces": closed,
        }
        await out.whole(200 if ready else 503, json.dumps(body).encode())

    def _class_states(self) -> dict[str, str]:
        """Return the state of every class, the first one's too."""
        first = self.settings.class_name
        if self.classes is None:
            return {first: "on"}
        return {name: self.classes.state(name) for name in (first, *self.settings.classes)}

    # -- the guarded protocols -------------------------------------------------------------------

    async def _guarded(
        self, codec: Codec, head: RequestHead, receive: Receive, out: Outlet, visit: Visit
    ) -> None:
        surface = codec.surface
        if head.method != "POST":
            await self._refuse(codec, out, visit, HttpRefusal(405, "expected POST"))
            return
        key = visit.key = self.gate.client(_token(head))
        out.account = _account(key)
        check_head(head, needs_key=self.gate.needs_key)
        case = use_case(head.headers.get("x-safehold-use-case"))
        refusal = await self._admit(key, surface)
        if refusal is not None:
            await self._refuse(codec, out, visit, refusal)
            return
        if surface is Surface.EMBEDDINGS and self.settings.embeddings != "pass":
            raise UnsupportedError("embeddings are refused by this gateway's configuration")
        body = await self._body(head, receive, self.gate.client)
        # Once more: those who were let in and sent their bodies later are a crowd all the same.
        if (refusal := self.gate.suspended(key) or self._busy()) is not None:
            await self._refuse(codec, out, visit, refusal)
            return
        policy = self.settings.policy(surface, key)
        standing = self.gate.standing(key)
        if standing is not None and standing.level.rank >= LadderStep.STEP_UP.rank:
            policy = policy.stepped_up()
        if surface is Surface.RESPONSES:
            body = await self.histories.filled(body, key.id if key else "")
        call = codec.parse(body, policy.rules)
        if call.media and self.relay.media is not None:
            self.relay.media.check(call.media)
        if not self.gate.ring.may_ask(key, call.model):
            await self._refuse(
                codec, out, visit, HttpRefusal(403, "this key may not use this model")
            )
            return
        exchange = await self._history(call, key)
        del body
        left = await self.gate.unreadable_left(key)
        if left is not None and left < policy.unreadable_chars:
            policy = msgspec.structs.replace(policy, unreadable_chars=left)
        ask = AdmittedRequest(
            decision_id=visit.decision_id,
            surface=surface,
            codec=codec,
            call=call,
            exchange=exchange,
            policy=policy,
            key=key,
            use_case=case,
            headers=self._forwarded(head),
        )
        visit.admitted = True
        await self._relay(ask, receive, out)

    async def _relay(self, ask: AdmittedRequest, receive: Receive, out: Outlet) -> None:
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        gone.add_done_callback(lambda _: out.hang_up())
        listener = asyncio.ensure_future(_listen(receive, gone))
        task = asyncio.current_task()
        if task is not None:
            self._open[task] = out
        self.metrics.streams.inc()
        try:
            state = await self.relay.serve(ask, out, gone)
        finally:
            listener.cancel()
            self.metrics.streams.dec()
            if task is not None:
                self._open.pop(task, None)
        out.tokens = state.tokens.written
        flagged = state.block is not None
        used = (state.tokens.read or 0) + (state.tokens.written or 0)
        unread = min(state.report().unreadable, ask.policy.unreadable_chars)
        with contextlib.suppress(LedgerError):
            await self.gate.charge(ask.key, flagged=flagged, tokens=used, unreadable=unread)
        if self._log.isEnabledFor(logging.INFO):
            self._log.info("exchange", extra={"fields": log_fields(state)})

    async def _history(self, call: Call, key: Key | None) -> Exchange:
        """Return the exchange with the turns that an earlier response id stands for."""
        if call.previous is None:
            return call.exchange
        earlier = await self.histories.get(call.previous, key.id if key else "")
        if earlier is None:
            raise WireError("previous_response_id: expected a response that this gateway gave")
        return Exchange(turns=(*earlier.turns, *call.exchange.turns))

    async def _body(
        self, head: RequestHead, receive: Receive, whose: Callable[[str | None], object]
    ) -> bytes:
        """Read a body; a key that was revoked while its client took its time is one no more.

        Raises:
            WireError: The body is too large, too slow, or cut off.
            TrustError: Whoever asks has no key any more.
            UnsharedError: The store does not answer any more.
        """
        body = await read_body(head, receive, self.settings.limits)
        await self._know_what_is_shared()
        whose(_token(head))
        return body

    async def _know_what_is_shared(self) -> None:
        """Return once this worker knows what all of them share, as of the last second.

        Raises:
            UnsharedError: The store does not answer: nobody's key is looked at.
        """
        try:
            await self.state.fresh()
        except LedgerError as error:
            raise UnsharedError("the gateway's shared state does not answer") from error

    async def _is_shared(self) -> bool:
        try:
            await self._know_what_is_shared()
        except UnsharedError:
            return False
        return True

    async def _admit(self, key: Key | None, surface: Surface) -> HttpRefusal | None:
        reason = self.surfaces.reason(surface)
        if reason is not None:
            return HttpRefusal(503, f"this surface is closed: {reason}", 60)
        if (busy := self._busy()) is not None:
            return busy
        try:
            return await self.gate.admit(key, surface)
        except LedgerError:
            return HttpRefusal(503, "the store of budgets does not answer", 1)

    def _busy(self) -> HttpRefusal | None:
        """Return why no exchange may begin now, with when to come again; None: one may."""
        if len(self._open) >= self.settings.limits.max_streams:
            return HttpRefusal(503, "the gateway is at its limit of open exchanges", 1)
        return self.relay.load.refusal(self.settings.limits.verdict_wait_s)

    # -- checks ----------------------------------------------------------------------------------

    def _forwarded(self, head: RequestHead) -> dict[str, str]:
        """Return the headers that go upstream; the client's key only where it is not ours."""
        names: tuple[str, ...] = _FORWARDED
        if not self.gate.needs_key and self.settings.upstream.api_key_file is None:
            names = (*names, "authorization", "x-api-key")
        sent = {name: head.headers[name] for name in names if name in head.headers}
        betas = allowed_betas(head.headers.get("anthropic-beta", ""))
        return sent | ({"anthropic-beta": betas} if betas else {})

    async def _refuse(
        self,
        codec: Codec | None,
        out: Outlet,
        visit: Visit,
        refusal: HttpRefusal,
        reason: str | None = None,
    ) -> None:
        """Keep a row of a request that never reached the guard, then answer it."""
        self.metrics.refused(visit.label, refusal.status)
        if not visit.admitted and not visit.looks_only:
            why = reason or refusal.message
            await note_refusal(self.relay, self.settings, visit, why)
        if out.started:
            return
        shape = codec or self._shape(visit)
        wait = refusal.retry_after_s
        headers = [(b"retry-after", str(wait).encode())] if wait else []
        body = shape.error(refusal.status, refusal.message, visit.decision_id)
        await out.whole(refusal.status, body, headers=headers)

    def _shape(self, visit: Visit) -> Codec:
        """Return the codec whose errors a client of this path and these headers reads."""
        return self._codecs["/v1/messages" if visit.anthropic else "/v1/chat/completions"]


async def _listen(receive: Receive, gone: "asyncio.Future[None]") -> None:
    """Resolve `gone` when the client hangs up."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            if not gone.done():
                gone.set_result(None)
            return


def _account(key: Key | None) -> str:
    """Return whom bytes are sent to, as `tenant/key`."""
    return f"{key.tenant}/{key.id}" if key else ""


def _token(head: RequestHead) -> str | None:
    return bearer(head.headers.get("authorization"), head.headers.get("x-api-key"))


def _status(error: SafeholdError) -> int:
    match error:
        case TooLargeError():
            return 413
        case SlowBodyError():
            return 408
        case ClientGoneError():
            return 499
        case TrustError():
            return 401
        case _:
            return 400


def log_fields(state: RunState) -> dict[str, Any]:
    """Return what the log says about an exchange: ids, counts and times, never content."""
    ask, latency = state.ask, state.timing.latency()
    return {
        "decision_id": ask.decision_id,
        "surface": str(ask.surface),
        "tenant": ask.key.tenant if ask.key else None,
        "key": ask.key.id if ask.key else None,
        "status": state.out.status,
        "action": str(state.action),
        "blocked": state.block is not None,
        "delivered_bytes": state.out.text_bytes,
        "scored_bytes": state.bytes_fed,
        "dropped_fields": ask.call.dropped,
        "total_ms": latency.total_ms,
        "first_byte_ms": latency.first_byte_ms,
        "guard_ms": latency.guard_ms,
        "error": state.error,
    }
