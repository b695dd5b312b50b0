"""OpenAI Completions: a prompt without turns. vLLM, SGLang and llama.cpp serve it.

Source: the `openai` SDK's types (3.54). Token ids as a prompt refuse: no scorer reads them. An
`echo` comes back as text of the reply, and is scored there too. Log probabilities spell tokens that
were not released, so they are not asked for.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from safehold.errors import WireError
from safehold.exchange import Channel, Exchange, Lane, Role, TextPart, Turn
from safehold.guard.gateway.interface import (
    REFUSAL,
    BrokenReplyError,
    Closed,
    Delta,
    Notice,
    Piece,
    Rules,
    Surface,
    Tokens,
    Told,
    TooLargeError,
    UnsupportedError,
)
from safehold.guard.gateway.protocols.chat.codec import ChatCodec
from safehold.guard.gateway.protocols.chat.wire import ChatUsage, StreamOptions
from safehold.guard.gateway.protocols.json_border import Lanes, encode, identifier, model_name
from safehold.guard.gateway.protocols.sse import frame
from safehold.guard.gateway.protocols.stream_errors import told_error
from safehold.guard.gateway.protocols.unknown_fields import Strainer

FILTERED = "content_filter"
_ENDS = frozenset({"stop", "length", FILTERED})


class CompletionRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /v1/completions`."""

    model: str
    prompt: str | list[str | int | list[int]]
    suffix: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: int | None = None
    echo: bool | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    best_of: int | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    user: str | None = None


class CompletionChoice(msgspec.Struct, forbid_unknown_fields=True):
    """One text of an answer; its log probabilities are read and dropped."""

    text: str = ""
    index: int = 0
    finish_reason: str | None = None
    logprobs: Any = None


class Completion(msgspec.Struct, forbid_unknown_fields=True):
    """An answer, whole or a piece of a stream."""

    choices: list[CompletionChoice] = []
    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    usage: ChatUsage | None = None
    system_fingerprint: str | None = None
    error: Any = None


_REPLY = msgspec.json.Decoder(Completion)


class CompletionsCodec:
    """The codec of `POST /v1/completions`."""

    surface = Surface.COMPLETIONS
    upstream_path = "/completions"

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._decoder = msgspec.json.Decoder(CompletionRequest)
        self._errors = ChatCodec(clock)

    def parse(self, body: bytes, rules: Rules) -> "CompletionCall":
        """Read a request.

        Raises:
            WireError: The request is malformed, or holds what `rules` do not let pass.
        """
        strainer = Strainer(rules)
        request = strainer.request(self._decoder, body)
        prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
        if not prompts:
            raise WireError("expected at least one prompt, came none")
        if not all(isinstance(prompt, str) for prompt in prompts):
            raise UnsupportedError("prompt: token ids are text that no scorer reads; send text")
        choices = len(prompts) * (1 if request.n is None else request.n)
        if not 1 <= choices <= rules.max_choices:
            raise TooLargeError(f"expected 1 to {rules.max_choices} choices in all")
        parts = [str(prompt) for prompt in prompts]
        parts += [request.suffix] if request.suffix else []
        turns = [Turn(role=Role.USER, parts=tuple(TextPart(text=text) for text in parts))]
        if extras := strainer.texts():
            extra = tuple(TextPart(text=text) for text in extras)
            turns.insert(0, Turn(role=Role.SYSTEM, parts=extra))
        exchange = Exchange(turns=tuple(turns))
        return CompletionCall(request, exchange, choices, int(self._clock()), strainer)

    def error(self, status: int, message: str, decision_id: str, told: Told | None = None) -> bytes:
        """Return the body of an error response."""
        return self._errors.error(status, message, decision_id, told)


class CompletionCall:
    """One parsed request."""

    previous: str | None = None

    def __init__(
        self,
        request: CompletionRequest,
        exchange: Exchange,
        choices: int,
        created: int,
        strainer: Strainer,
    ) -> None:
        self._request = request
        self._choices = choices
        self._created = created
        self._strainer = strainer
        self.exchange = exchange
        self.model = request.model
        self.streamed = bool(request.stream)

    @property
    def dropped(self) -> int:
        """How many unknown fields of the request and its answer were dropped so far."""
        return self._strainer.dropped

    def body(self, model: str) -> bytes:
        """Return the request to send upstream, written anew from the parsed fields."""
        asked = msgspec.structs.replace(self._request, model=model, logprobs=None)
        return self._strainer.woven(encode(asked))

    def stream(self) -> "CompletionStream":
        """Start reading a streamed answer."""
        options = self._request.stream_options
        usage = bool(options and options.include_usage)
        return CompletionStream(
            self.model, self._created, self._choices, self._strainer, usage=usage
        )

    def events(self, body: bytes) -> list[bytes]:
        """Return a complete answer as the events of a stream: a piece has the same form."""
        return [body]

    def whole(self, body: bytes) -> "CompletionWhole":
        """Read a complete answer.

        Raises:
            BrokenReplyError: The body does not follow the protocol.
            UnknownReplyError: The body holds content of an unknown kind.
        """
        reply = self._strainer.reply(_REPLY, body)
        if not reply.choices or len(reply.choices) > self._choices:
            raise BrokenReplyError("upstream: expected the asked number of choices")
        return CompletionWhole(reply, self.model, self._created, self._choices)

    def blocked(self, notice: Notice) -> bytes:
        """Return the body of a refusal, for a request that was not streamed."""
        choices = [_choice(index, REFUSAL, FILTERED) | _found(notice) for index in self._indices]
        head = _head(f"cmpl-{notice.decision_id}", self._created, self.model)
        rest = {"usage": ChatUsage().counts(), "safehold": {"decision_id": notice.decision_id}}
        return encode(head | {"choices": choices} | rest)

    @property
    def _indices(self) -> range:
        return range(self._choices)


class CompletionWhole:
    """One complete answer."""

    response_id: str | None = None
    items: Mapping[str, bytes] = MappingProxyType({})

    def __init__(self, reply: Completion, model: str, created: int, choices: int) -> None:
        self._reply = reply
        self._model = model
        self._created = created
        self._lanes = Lanes(choices)
        if len({choice.index for choice in reply.choices}) != len(reply.choices):
            raise BrokenReplyError("upstream: expected choices of different indices")

    @property
    def tokens(self) -> Tokens:
        """The upstream's token counts."""
        usage = self._reply.usage
        return Tokens(usage.prompt_tokens, usage.completion_tokens) if usage else Tokens()

    @property
    def refused(self) -> bool:
        """Whether the model itself refused."""
        return any(choice.finish_reason == FILTERED for choice in self._reply.choices)

    def pieces(self) -> Iterable[Delta]:
        """Yield every text of the answer with its lane."""
        for choice in self._reply.choices:
            if choice.text:
                yield Delta(self._lanes.get(choice.index, Channel.TEXT, 0), choice.text)

    def render(self) -> bytes:
        """Return the answer's body, built from the fields that were scored."""
        reply = self._reply
        name = model_name(reply.model, self._model)
        body = _head(identifier(reply.id, "cmpl-safehold"), reply.created or self._created, name)
        body["choices"] = [
            _choice(choice.index, choice.text, _end(choice.finish_reason))
            for choice in reply.choices
        ]
        if reply.usage is not None:
            body["usage"] = reply.usage.counts()
        return encode(body)


class CompletionStream:
    """One streamed answer; writes fresh frames around text that was cleared."""

    response_id: str | None = None
    items: Mapping[str, bytes] = MappingProxyType({})

    def __init__(
        self, model: str, created: int, choices: int, strainer: Strainer, *, usage: bool
    ) -> None:
        self._model = model
        self._created = created
        self._choices = choices
        self._strainer = strainer
        self._want_usage = usage
        self._lanes = Lanes(choices)
        self._id: str | None = None
        self._finish: dict[int, str] = {}
        self._usage: ChatUsage | None = None

    def read(self, event: bytes) -> Sequence[Piece]:
        """Take the data of one upstream event.

        Raises:
            BrokenReplyError: The event does not follow the protocol.
            UnknownReplyError: The event or its content is of an unknown kind.
        """
        if event == b"[DONE]":
            return ()
        chunk = self._strainer.reply(_REPLY, event)
        if chunk.error is not None:
            raise told_error(chunk.error)
        if self._id is None and chunk.id:
            self._id = identifier(chunk.id, "")
            self._model = model_name(chunk.model, self._model)
            self._created = chunk.created or self._created
        self._usage = chunk.usage or self._usage
        pieces: list[Piece] = []
        for choice in chunk.choices:
            if not 0 <= choice.index < self._choices:
                raise BrokenReplyError("upstream: expected the asked number of choices, came more")
            if choice.index in self._finish and choice.text:
                raise BrokenReplyError("upstream: expected nothing after a choice's finish reason")
            lane = self._lanes.get(choice.index, Channel.TEXT, 0)
            if choice.text:
                pieces.append(Delta(lane, choice.text))
            if choice.finish_reason is not None and choice.index not in self._finish:
                self._finish[choice.index] = _end(choice.finish_reason) or "stop"
                pieces.append(Closed(lane))
        return pieces

    @property
    def complete(self) -> bool:
        """Whether every choice was finished; `[DONE]` alone is no finish."""
        return len(self._finish) >= self._choices

    @property
    def tokens(self) -> Tokens:
        """The upstream's token counts so far."""
        usage = self._usage
        return Tokens(usage.prompt_tokens, usage.completion_tokens) if usage else Tokens()

    @property
    def refused(self) -> bool:
        """Whether the model itself refused."""
        return FILTERED in self._finish.values()

    def begin(self) -> bytes:
        """Return nothing: a piece of text is the first frame."""
        return b""

    def release(self, lane: Lane, text: str) -> bytes:
        """Return the frames that carry cleared text of a lane."""
        return self._frame([_choice(lane.choice, text, None)])

    def close(self, lane: Lane) -> bytes:
        """Return nothing: the ends of all choices come last."""
        del lane
        return b""

    def end(self, mark: Notice | None = None) -> bytes:
        """Return the final frames; `mark` says what an audit would have blocked."""
        more: dict[str, Any] = {}
        if mark is not None:
            found = {"filtered": False, "detected": True, "severity": mark.severity}
            more = {"content_filter_results": {mark.category: found}}
        ends = [_choice(index, "", self._finish.get(index)) | more for index in self._indices]
        frames = [self._frame([end]) for end in ends]
        if self._want_usage and self._usage is not None:
            frames.append(self._frame([], usage=self._usage.counts()))
        return b"".join((*frames, b"data: [DONE]\n\n"))

    def block(self, notice: Notice) -> bytes:
        """Return the frames that end every choice with the refusal."""
        usage = (self._usage or ChatUsage()).counts()
        told = {"safehold": {"decision_id": notice.decision_id}, "usage": usage}
        frames = []
        for index in self._indices:
            end = _choice(index, REFUSAL, FILTERED) | _found(notice)
            frames.append(self._frame([end], **told))
        return b"".join((*frames, b"data: [DONE]\n\n"))

    def fail(self, message: str, decision_id: str, told: Told | None = None) -> bytes:
        """Return the frames that end the stream with an error."""
        told = told or Told()
        kind = told.kind or "api_error"
        error = {"message": message, "type": kind, "param": None, "code": told.code}
        body = {"error": error, "safehold": {"decision_id": decision_id}}
        return frame(encode(body)) + b"data: [DONE]\n\n"

    @property
    def _indices(self) -> range:
        return range(self._choices)

    def _frame(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        head = _head(self._id or "cmpl-safehold", self._created, self._model)
        return frame(encode(head | {"choices": choices} | more))


def _head(name: str, created: int, model: str) -> dict[str, Any]:
    return {"id": name, "object": "text_completion", "created": created, "model": model}


def _choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


def _end(reason: str | None) -> str | None:
    """Return a finish reason that the protocol has; another is told as `stop`."""
    return reason if reason is None or reason in _ENDS else "stop"


def _found(notice: Notice) -> dict[str, Any]:
    filtered = {notice.category: {"filtered": True, "severity": notice.severity}}
    return {"content_filter_results": filtered}
