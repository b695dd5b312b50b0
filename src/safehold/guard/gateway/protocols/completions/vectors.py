"""Requests whose answer is numbers: embeddings, rankings and moderation. Their texts are prompts.

Everything that the model would read is scored, with a row, before any number leaves. The answers
hold no text of the model: vectors, indices and scores are built anew.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from safehold.errors import WireError
from safehold.exchange import Exchange, Role, TextPart, Turn
from safehold.guard.gateway.interface import (
    REFUSAL,
    BrokenReplyError,
    Delta,
    Media,
    Notice,
    Rules,
    Stream,
    Surface,
    Tokens,
    Told,
    TooLargeError,
    UnsupportedError,
)
from safehold.guard.gateway.protocols.json_border import (
    decode_reply,
    decode_request,
    encode,
    model_name,
    text_of,
)
from safehold.guard.gateway.protocols.openai_endings import error_body

MAX_INPUTS = 2048
"""OpenAI's own limit for one call."""
_NO_STREAM = "this endpoint has no stream"


class EmbeddingsRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /v1/embeddings`."""

    input: str | list[str | int | list[int]]
    model: str = ""
    dimensions: int | None = None
    encoding_format: str | None = None
    user: str | None = None


class RerankRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /v1/rerank`, as vLLM, Jina and Cohere have it."""

    query: str
    documents: list[str | dict[str, str]]
    model: str = ""
    top_n: int | None = None
    return_documents: bool | None = None


class Embedding(msgspec.Struct):
    """One vector, as numbers or base64."""

    embedding: list[float] | str
    index: int = 0


class Embeddings(msgspec.Struct):
    """The vectors of an upstream."""

    data: list[Embedding]
    model: str | None = None
    usage: dict[str, int | None] | None = None


class RankedText(msgspec.Struct):
    """One document's place."""

    index: int
    relevance_score: float


class Ranking(msgspec.Struct):
    """The ranking of an upstream; the documents that some repeat are not read."""

    results: list[RankedText]
    model: str | None = None
    usage: dict[str, Any] | None = None


class Numbers:
    """An answer of numbers alone, built anew."""

    response_id: str | None = None
    items: Mapping[str, bytes] = MappingProxyType({})
    refused = False

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = dict(body)

    @property
    def tokens(self) -> Tokens:
        """The upstream's token counts."""
        usage = self._body.get("usage") or {}
        return Tokens(usage.get("prompt_tokens"), None)

    def pieces(self) -> Iterable[Delta]:
        """Yield nothing: there is no text."""
        return ()

    def render(self) -> bytes:
        """Return the answer's body."""
        return encode(self._body)


class NumbersCall:
    """One parsed request for numbers."""

    previous: str | None = None
    media: tuple[Media, ...] = ()
    streamed = False
    dropped = 0

    def __init__(self, request: EmbeddingsRequest | RerankRequest, texts: Iterable[str]) -> None:
        self._request = request
        self.model = request.model
        parts = tuple(TextPart(text=text) for text in texts)
        self.exchange = Exchange(turns=(Turn(role=Role.USER, parts=parts),))

    def body(self, model: str) -> bytes:
        """Return the request to send upstream, written anew from the parsed fields."""
        return encode(msgspec.structs.replace(self._request, model=model))

    def stream(self) -> Stream:
        """Raise: numbers do not stream."""
        raise UnsupportedError(_NO_STREAM)

    def events(self, body: bytes) -> list[bytes]:
        """Raise: numbers do not stream."""
        del body
        raise UnsupportedError(_NO_STREAM)

    def assembled(self, events: Sequence[bytes]) -> bytes:
        """Raise: numbers do not stream.

        Raises:
            BrokenReplyError: Always; the upstream answered with something else than numbers.
        """
        del events
        raise BrokenReplyError("upstream: expected numbers, came an event stream")

    def whole(self, body: bytes) -> Numbers:
        """Read a complete answer.

        Raises:
            BrokenReplyError: The body does not follow the protocol.
        """
        match self._request:
            case EmbeddingsRequest():
                return Numbers(_embeddings(body, self.model))
            case RerankRequest(documents=documents):
                return Numbers(_ranking(body, self.model, len(documents)))

    def blocked(self, notice: Notice) -> bytes:
        """Return the body of a refusal, as Azure refuses a prompt: 400, content_filter."""
        filtered = {notice.category: {"filtered": True, "severity": notice.severity}}
        error = {
            "message": REFUSAL,
            "type": "invalid_request_error",
            "param": "input",
            "code": "content_filter",
            "content_filter_results": filtered,
        }
        return encode({"error": error, "safehold": {"decision_id": notice.decision_id}})


class _NumbersCodec:
    """What both codecs have in common."""

    surface = Surface.EMBEDDINGS
    refused_status = 400
    """A prompt that is refused has no answer to stand in for: it is an error."""

    def error(self, status: int, message: str, decision_id: str, told: Told | None = None) -> bytes:
        """Return the body of an error response."""
        return error_body(status, message, decision_id, told)


class EmbeddingsCodec(_NumbersCodec):
    """The codec of `POST /v1/embeddings`."""

    upstream_path = "/embeddings"
    _decoder = msgspec.json.Decoder(EmbeddingsRequest)

    def parse(self, body: bytes, rules: Rules) -> NumbersCall:
        """Read a request.

        Raises:
            WireError: The request is malformed, or its input is no text.
        """
        del rules
        request = decode_request(self._decoder, body)
        inputs = [request.input] if isinstance(request.input, str) else request.input
        _check(len(inputs))
        texts = [text for text in inputs if isinstance(text, str)]
        if len(texts) != len(inputs):
            raise UnsupportedError("input: token ids are text that no scorer reads; send text")
        return NumbersCall(request, texts)


class RerankCodec(_NumbersCodec):
    """The codec of `POST /v1/rerank`."""

    upstream_path = "/rerank"
    _decoder = msgspec.json.Decoder(RerankRequest)

    def parse(self, body: bytes, rules: Rules) -> NumbersCall:
        """Read a request.

        Raises:
            WireError: The request is malformed.
        """
        del rules
        request = decode_request(self._decoder, body)
        _check(len(request.documents))
        return NumbersCall(request, [request.query, *(text_of(one) for one in request.documents)])


def _check(count: int) -> None:
    if count == 0:
        raise WireError("expected at least one text, came none")
    if count > MAX_INPUTS:
        raise TooLargeError(f"expected at most {MAX_INPUTS} inputs")


def _embeddings(body: bytes, asked: str) -> dict[str, Any]:
    given = decode_reply(_EMBEDDINGS, body)
    data = [
        {"object": "embedding", "index": item.index, "embedding": _vector(item.embedding)}
        for item in given.data
    ]
    model = model_name(given.model, asked)
    return {"object": "list", "data": data, "model": model, "usage": _usage(given.usage)}


def _ranking(body: bytes, asked: str, count: int) -> dict[str, Any]:
    given = decode_reply(_RANKING, body)
    if not all(0 <= item.index < count for item in given.results):
        raise BrokenReplyError("upstream: expected places of the documents that were sent")
    results = [
        {"index": item.index, "relevance_score": item.relevance_score} for item in given.results
    ]
    return {
        "model": model_name(given.model, asked),
        "results": results,
        "usage": _usage(given.usage),
    }


def _usage(given: Mapping[str, Any] | None) -> dict[str, int]:
    names = ("prompt_tokens", "total_tokens")
    return {name: given[name] for name in names if given and isinstance(given.get(name), int)}


def _vector(value: list[float] | str) -> list[float] | str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9+/=]*", value) is None:
        raise BrokenReplyError("upstream: expected a vector, came other text")
    return value


_EMBEDDINGS = msgspec.json.Decoder(Embeddings)
_RANKING = msgspec.json.Decoder(Ranking)
