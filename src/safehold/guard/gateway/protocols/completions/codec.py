"""OpenAI Completions: a prompt without turns. vLLM, SGLang and llama.cpp serve it.

Source: the `openai` SDK's types (3.54). Token ids as a prompt refuse: no scorer reads them. An
`echo` comes back as text of the reply, and is scored there too. Log probabilities spell tokens that
were not released, so they are not asked for.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from safehold.errors import WireError
from safehold.exchange import Channel, Exchange, Role, TextPart, Turn
from safehold.guard.gateway.interface import (
    REFUSAL,
    BrokenReplyError,
    Delta,
    Media,
    Notice,
    Rules,
    Surface,
    Tokens,
    Told,
    TooLargeError,
    UnsupportedError,
)
from safehold.guard.gateway.protocols.answer_stream import AnswerStream
from safehold.guard.gateway.protocols.answer_words import choice_ending
from safehold.guard.gateway.protocols.chat.wire import ChatUsage
from safehold.guard.gateway.protocols.completions.facts import CompletionFacts
from safehold.guard.gateway.protocols.completions.reader import CompletionReader
from safehold.guard.gateway.protocols.completions.wire import (
    Completion,
    CompletionRequest,
    choice_of,
    head_of,
)
from safehold.guard.gateway.protocols.completions.writer import CompletionWriter
from safehold.guard.gateway.protocols.events_as_whole import assembled, joined_chat
from safehold.guard.gateway.protocols.json_border import Lanes, encode, identifier, model_name
from safehold.guard.gateway.protocols.openai_endings import FILTERED, error_body, filtered
from safehold.guard.gateway.protocols.unknown_fields import Strainer

_REPLY = msgspec.json.Decoder(Completion)


class CompletionsCodec:
    """The codec of `POST /v1/completions`."""

    surface = Surface.COMPLETIONS
    upstream_path = "/completions"

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._decoder = msgspec.json.Decoder(CompletionRequest)

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
        if choices < 1:
            raise WireError(f"expected 1 to {rules.max_choices} choices in all, came less")
        if choices > rules.max_choices:
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
        return error_body(status, message, decision_id, told)


class CompletionCall:
    """One parsed request."""

    previous: str | None = None
    media: tuple[Media, ...] = ()

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

    def stream(self) -> AnswerStream:
        """Start reading a streamed answer."""
        options = self._request.stream_options
        return self._stream(usage=bool(options and options.include_usage))

    def _stream(self, *, usage: bool) -> AnswerStream:
        facts = CompletionFacts(self.model, self._created)
        reader = CompletionReader(facts, choices=self._choices, strainer=self._strainer)
        return AnswerStream(reader, CompletionWriter(facts, choices=self._choices, usage=usage))

    def events(self, body: bytes) -> list[bytes]:
        """Return a complete answer as the events of a stream: a piece has the same form."""
        return [body]

    def assembled(self, events: Sequence[bytes]) -> bytes:
        """Return the events of a stream as a complete answer.

        Raises:
            UpstreamError: The stream is broken, ends with an error, or ends in the middle.
        """
        return assembled(self._stream(usage=True), events, joined_chat)

    def whole(self, body: bytes) -> "CompletionWhole":
        """Read a complete answer.

        Raises:
            BrokenReplyError: The body does not follow the protocol.
            UnknownReplyError: The body holds content of an unknown kind.
        """
        reply = self._strainer.reply(_REPLY, body)
        self._strainer.drop(len(self._strainer.taken()))  # a text has no place for other fields
        if not reply.choices or len(reply.choices) > self._choices:
            raise BrokenReplyError("upstream: expected the asked number of choices")
        return CompletionWhole(reply, self.model, self._created, self._choices)

    def blocked(self, notice: Notice) -> bytes:
        """Return the body of a refusal, for a request that was not streamed."""
        choices = [
            choice_of(index, REFUSAL, FILTERED) | filtered(notice) for index in self._indices
        ]
        head = head_of(f"cmpl-{notice.decision_id}", self._created, self.model)
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
        for choice in reply.choices:
            choice.finish_reason = choice_ending(choice.finish_reason)
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
        body = head_of(identifier(reply.id, "cmpl-safehold"), reply.created or self._created, name)
        body["choices"] = [
            choice_of(choice.index, choice.text, choice.finish_reason) for choice in reply.choices
        ]
        if reply.usage is not None:
            body["usage"] = reply.usage.counts()
        return encode(body)
