"""Requests that bring no model text back: model lists and token counts."""

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from safehold.errors import UpstreamError
from safehold.exchange import Channel, Exchange, Lane
from safehold.guard.gateway.interface import (
    BrokenReplyError,
    Codec,
    SilentUpstreamError,
    Surface,
    Told,
    UnsupportedError,
)
from safehold.guard.gateway.policy import Key, Settings
from safehold.guard.gateway.protocols.json_border import (
    IDENTIFIER,
    decode_reply,
    encode,
    identifier,
    model_name,
)
from safehold.guard.gateway.protocols.messages.codec import CountCodec, MessagesCodec
from safehold.guard.gateway.protocols.responses.codec import ResponsesCodec
from safehold.guard.gateway.relaying.client_response import Outlet
from safehold.guard.gateway.relaying.relay import Relay
from safehold.guard.gateway.relaying.upstream_errors import (
    PLAIN,
    cleared,
    hints,
    is_clients,
    said,
    told,
)
from safehold.guard.gateway.upstreams.http import Answer, read_all
from safehold.guard.interface import SessionPolicy

_MODEL_PATH = re.compile(r"/v1/models(/[A-Za-z0-9._:/-]{1,200})?")


Entry = dict[str, Any]
_ENTRY_DEPTH = 4


class ModelList(msgspec.Struct):
    """The models of an upstream."""

    data: list[Entry]


class Count(msgspec.Struct):
    """A token count."""

    input_tokens: int


class Passing:
    """Passes such requests on, each written anew from known fields."""

    def __init__(self, relay: Relay, settings: Settings) -> None:
        self._relay = relay
        self._settings = settings
        self._counts = CountCodec()
        self._messages = MessagesCodec()
        self._responses = ResponsesCodec()

    def configure(self, settings: Settings) -> None:
        """Take new settings."""
        self._settings = settings

    async def models(
        self,
        path: str,
        headers: Mapping[str, str],
        out: Outlet,
        decision_id: str,
        shape: Codec,
        may_ask: Callable[[str], bool],
    ) -> None:
        """Answer with the models that this client may ask for; `shape` is that of an error."""
        if _MODEL_PATH.fullmatch(path) is None or ".." in path:
            raise UnsupportedError("expected a plain model name")
        name = path.removeprefix("/v1/models/")
        if path != "/v1/models" and not may_ask(name):
            refused = "this key may not use this model"
            await out.whole(403, shape.error(403, refused, decision_id, None))
            return
        if name in self._routed():
            await out.whole(200, encode(_model({"id": name})))
            return
        try:
            body = await self._get(path.removeprefix("/v1"), headers)
            if path == "/v1/models":
                listed = decode_reply(msgspec.json.Decoder(ModelList), body).data
                known = {entry.get("id") for entry in listed}
                listed += [{"id": name} for name in self._routed() if name not in known]
                answer: dict[str, Any] = {
                    "object": "list",
                    "data": [_model(one) for one in listed if may_ask(str(one.get("id", "")))],
                    "has_more": False,
                }
            else:
                answer = _model(decode_reply(msgspec.json.Decoder(Entry), body))
        except UpstreamError as error:
            await self._failed(out, shape, decision_id, error)
            return
        await out.whole(200, encode(answer))

    def _routed(self) -> tuple[str, ...]:
        """Return the models that routes name, in order."""
        names = [model for route in self._settings.routes for model in route.models]
        return tuple(name for name in names if "*" not in name)

    async def count(
        self,
        body: bytes,
        headers: Mapping[str, str],
        out: Outlet,
        decision_id: str,
        key: Key | None,
    ) -> None:
        """Answer with the upstream's token count."""
        rules = self._settings.policy(Surface.MESSAGES, key).rules
        request = self._counts.parse(body, rules)
        try:
            answer = await self._post("/messages/count_tokens", request, headers)
            count = decode_reply(msgspec.json.Decoder(Count), answer)
        except UpstreamError as error:
            await self._failed(out, self._messages, decision_id, error)
            return
        await out.whole(200, encode({"input_tokens": count.input_tokens}))

    async def input_tokens(
        self,
        body: bytes,
        headers: Mapping[str, str],
        out: Outlet,
        decision_id: str,
        key: Key | None,
    ) -> None:
        """Answer with the upstream's token count of a request of Responses."""
        rules = self._settings.policy(Surface.RESPONSES, key).rules
        call = self._responses.parse(body, rules)
        try:
            asked = call.body(call.model)
            answer = await self._post("/responses/input_tokens", asked, headers)
            count = decode_reply(msgspec.json.Decoder(Count), answer)
        except UpstreamError as error:
            await self._failed(out, self._responses, decision_id, error)
            return
        counted = {"object": "response.input_tokens", "input_tokens": count.input_tokens}
        await out.whole(200, encode(counted))

    async def _get(self, path: str, headers: Mapping[str, str]) -> bytes:
        return await self._read(await self._relay.client.get(path, headers), headers)

    async def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        return await self._read(await self._relay.client.post(path, body, headers), headers)

    async def _read(self, answer: Answer, headers: Mapping[str, str]) -> bytes:
        try:
            body = await read_all(answer, self._relay.limits)
        finally:
            answer.abort()
        if answer.status == HTTPStatus.OK:
            return body
        if not is_clients(answer.status, headers):
            raise UpstreamError(f"upstream: expected status 200, came {answer.status}")
        message, named = told(body)
        raise RefusedError(message, answer.status, named, hints(answer.headers))

    async def _failed(
        self, out: Outlet, codec: Codec, decision_id: str, error: UpstreamError
    ) -> None:
        """Answer with an error in the surface's own shape; an upstream's own words are scored."""
        status = 504 if isinstance(error, SilentUpstreamError) else 502
        message, named, sent = str(error), None, {}
        if isinstance(error, RefusedError):
            status, sent, named = error.status, error.hints, error.told
            if not await self._clears(message, named):
                message, named = PLAIN, None
        body = codec.error(status, message, decision_id, named)
        headers = [(name.encode(), value.encode()) for name, value in sent.items()]
        await out.whole(status, body, headers=headers)

    async def _clears(self, message: str, named: Told) -> bool:
        relay = self._relay
        with relay.holder.use() as held:
            session = held.guard.session(Exchange(turns=()), SessionPolicy(), None, relay.hot)
            lane = Lane(channel=Channel.TEXT)
            return await cleared(session, held.stage2, lane, said(message, named))


class RefusedError(UpstreamError):
    """The model server refused; its words are not scored yet."""

    def __init__(self, message: str, status: int, named: Told, sent: dict[str, str]) -> None:
        """Take the message, the status, what the error names, and the headers a client acts on."""
        super().__init__(message)
        self.status, self.told, self.hints = status, named, sent


def _model(entry: Entry) -> Entry:
    """Return an entry whole, but for texts: only what looks like a name goes on, unscored."""
    name = entry.get("id")
    if not isinstance(name, str):
        raise BrokenReplyError("upstream: expected a model's id")
    created = entry.get("created")
    shown, owner = entry.get("display_name"), entry.get("owned_by")
    kept = {
        field: value
        for field, given in entry.items()
        if IDENTIFIER.fullmatch(field) and (value := _plain(given)) is not None
    }
    return kept | {
        "id": identifier(name, "model"),
        "object": "model",
        "type": "model",
        "created": int(created) if isinstance(created, int | float) else 0,
        "created_at": "1970-01-01T00:00:00Z",
        "display_name": model_name(shown if isinstance(shown, str) else None, name),
        "owned_by": model_name(owner if isinstance(owner, str) else None, "upstream"),
    }


def _plain(value: object, depth: int = 0) -> object:
    """Return numbers, switches and names as they are, and None for all else."""
    match value:
        case bool() | int() | float():
            return value
        case str() if IDENTIFIER.fullmatch(value):
            return value
        case list() if depth < _ENTRY_DEPTH:
            return [kept for one in value if (kept := _plain(one, depth + 1)) is not None]
        case dict() if depth < _ENTRY_DEPTH:
            return {
                name: kept
                for name, one in value.items()
                if IDENTIFIER.fullmatch(name) and (kept := _plain(one, depth + 1)) is not None
            }
        case _:
            return None
