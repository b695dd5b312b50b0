"""Requests that bring no model text back: model lists, token counts, and embeddings by policy."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from safehold.errors import UpstreamError
from safehold.guard.gateway.interface import (
    BrokenReplyError,
    Surface,
    TooLargeError,
    UnsupportedError,
)
from safehold.guard.gateway.policy import Key, Settings
from safehold.guard.gateway.protocols.json_border import (
    decode_reply,
    decode_request,
    encode,
    identifier,
    model_name,
)
from safehold.guard.gateway.protocols.messages.codec import CountCodec
from safehold.guard.gateway.relaying.client_response import Outlet
from safehold.guard.gateway.relaying.relay import Relay
from safehold.guard.gateway.upstreams.http import Answer, read_all

_MAX_INPUTS = 2048  # OpenAI's own limit for one call
_MODEL_PATH = re.compile(r"/v1/models(/[A-Za-z0-9._:/-]{1,200})?")


class ModelEntry(msgspec.Struct):
    """A model in a list; other fields are not read."""

    id: str
    created: float | None = None
    owned_by: str | None = None
    display_name: str | None = None


class ModelList(msgspec.Struct):
    """The models of an upstream."""

    data: list[ModelEntry]


class Count(msgspec.Struct):
    """A token count."""

    input_tokens: int


class EmbeddingsRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /v1/embeddings`."""

    input: str | list[str | int | list[int]]
    model: str = ""
    dimensions: int | None = None
    encoding_format: str | None = None
    user: str | None = None


class Embedding(msgspec.Struct):
    """One vector, as numbers or base64."""

    embedding: list[float] | str
    index: int = 0


class Embeddings(msgspec.Struct):
    """The vectors of an upstream."""

    data: list[Embedding]
    model: str | None = None
    usage: dict[str, int | None] | None = None


class Passing:
    """Passes such requests on, each written anew from known fields."""

    def __init__(self, relay: Relay, settings: Settings) -> None:
        self._relay = relay
        self._settings = settings
        self._counts = CountCodec()
        self._embeddings = msgspec.json.Decoder(EmbeddingsRequest)

    def configure(self, settings: Settings) -> None:
        """Take new settings."""
        self._settings = settings

    async def models(
        self, path: str, headers: Mapping[str, str], out: Outlet, decision_id: str
    ) -> None:
        """Answer with the upstream's models: ids and owners only."""
        if _MODEL_PATH.fullmatch(path) is None or ".." in path:
            raise UnsupportedError("expected a plain model name")
        try:
            body = await self._get(path.removeprefix("/v1"), headers)
            if path == "/v1/models":
                listed = decode_reply(msgspec.json.Decoder(ModelList), body).data
                answer: dict[str, Any] = {
                    "object": "list",
                    "data": [_model(entry) for entry in listed],
                    "has_more": False,
                }
            else:
                answer = _model(decode_reply(msgspec.json.Decoder(ModelEntry), body))
        except UpstreamError as error:
            await _failed(out, decision_id, error)
            return
        await out.whole(200, encode(answer))

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
            await _failed(out, decision_id, error)
            return
        await out.whole(200, encode({"input_tokens": count.input_tokens}))

    async def embeddings(
        self,
        body: bytes,
        headers: Mapping[str, str],
        out: Outlet,
        decision_id: str,
        key: Key | None,
    ) -> None:
        """Answer with vectors, if the configuration lets embeddings pass."""
        del key
        if self._settings.embeddings != "pass":
            raise UnsupportedError("embeddings are refused by this gateway's configuration")
        request = decode_request(self._embeddings, body)
        if isinstance(request.input, list) and len(request.input) > _MAX_INPUTS:
            raise TooLargeError(f"expected at most {_MAX_INPUTS} inputs")
        try:
            answer = await self._post("/embeddings", encode(request), headers)
            given = decode_reply(msgspec.json.Decoder(Embeddings), answer)
        except UpstreamError as error:
            await _failed(out, decision_id, error)
            return
        usage = {
            name: value
            for name, value in (given.usage or {}).items()
            if name in ("prompt_tokens", "total_tokens")
        }
        data = [
            {"object": "embedding", "index": item.index, "embedding": _vector(item.embedding)}
            for item in given.data
        ]
        model = model_name(given.model, request.model)
        await out.whole(
            200, encode({"object": "list", "data": data, "model": model, "usage": usage})
        )

    async def _get(self, path: str, headers: Mapping[str, str]) -> bytes:
        return await self._read(await self._relay.client.get(path, headers))

    async def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        return await self._read(await self._relay.client.post(path, body, headers))

    async def _read(self, answer: Answer) -> bytes:
        try:
            if answer.status != HTTPStatus.OK:
                raise UpstreamError(f"upstream: expected status 200, came {answer.status}")
            return await read_all(answer, self._relay.limits)
        finally:
            answer.abort()


def _vector(value: list[float] | str) -> list[float] | str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9+/=]*", value) is None:
        raise BrokenReplyError("upstream: expected a vector, came other text")
    return value


def _model(entry: ModelEntry) -> dict[str, Any]:
    return {
        "id": identifier(entry.id, "model"),
        "object": "model",
        "type": "model",
        "created": int(entry.created or 0),
        "created_at": "1970-01-01T00:00:00Z",
        "display_name": model_name(entry.display_name, entry.id),
        "owned_by": model_name(entry.owned_by, "upstream"),
    }


async def _failed(out: Outlet, decision_id: str, error: UpstreamError) -> None:
    body = {
        "error": {"message": str(error), "type": "api_error", "param": None, "code": None},
        "safehold": {"decision_id": decision_id},
    }
    await out.whole(502, encode(body))
