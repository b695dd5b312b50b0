"""OpenAI Chat Completions: requests to exchanges, answers to lanes, and every ending."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from safehold.errors import WireError
from safehold.exchange import Channel, Exchange, Part, Role, TextPart, Turn
from safehold.exchange import Lane as LaneOf
from safehold.guard.gateway.interface import (
    REFUSAL,
    BrokenReplyError,
    Delta,
    Notice,
    Rules,
    Surface,
    Tokens,
    Told,
    TooLargeError,
)
from safehold.guard.gateway.protocols.answer_stream import AnswerStream
from safehold.guard.gateway.protocols.answer_words import choice_ending
from safehold.guard.gateway.protocols.chat import wire as w
from safehold.guard.gateway.protocols.chat.dialects import mend
from safehold.guard.gateway.protocols.chat.facts import ChatFacts
from safehold.guard.gateway.protocols.chat.logprobs import ChosenTokens
from safehold.guard.gateway.protocols.chat.reader import ChatReader
from safehold.guard.gateway.protocols.chat.wire import ChatMessage, ChatReply, ChatRequest
from safehold.guard.gateway.protocols.chat.writer import ChatWriter
from safehold.guard.gateway.protocols.events_as_whole import assembled, joined_chat
from safehold.guard.gateway.protocols.json_border import (
    Lanes,
    encode,
    identifier,
    model_name,
    text_of,
)
from safehold.guard.gateway.protocols.openai_endings import FILTERED, error_body, filtered
from safehold.guard.gateway.protocols.parts import Unread
from safehold.guard.gateway.protocols.passed_fields import PassedFields, field_texts, woven
from safehold.guard.gateway.protocols.tools import client_tools, runs_at_chat_client
from safehold.guard.gateway.protocols.unknown_fields import Strainer
from safehold.guard.gateway.protocols.whole_as_events import chat_events

ROLES = {
    "developer": Role.SYSTEM,
    "system": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,
}


class ChatCodec:
    """The codec of `POST /v1/chat/completions`."""

    surface = Surface.CHAT
    upstream_path = "/chat/completions"

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._decoder = msgspec.json.Decoder(ChatRequest)

    def parse(self, body: bytes, rules: Rules) -> "ChatCall":
        """Read a request.

        Raises:
            WireError: The request is malformed, or holds what `rules` do not let pass.
        """
        strainer = Strainer(rules)
        request = strainer.request(self._decoder, body)
        if not request.messages:
            raise WireError("expected at least one message, came none")
        if request.n is not None and request.n < 1:
            raise WireError(f"expected n from 1 to {rules.max_choices}, came less")
        if request.n is not None and request.n > rules.max_choices:
            raise TooLargeError(f"expected n from 1 to {rules.max_choices}, came more")
        request.tools = client_tools(
            request.tools, request.tool_choice, runs_at_chat_client, rules, strainer
        )
        unread = Unread(rules)
        exchange = exchange_of(request, unread, strainer.texts())
        return ChatCall(request, exchange, unread, int(self._clock()), strainer)

    def error(self, status: int, message: str, decision_id: str, told: Told | None = None) -> bytes:
        """Return the body of an error response."""
        return error_body(status, message, decision_id, told)


def exchange_of(request: ChatRequest, unread: Unread, extras: Sequence[str] = ()) -> Exchange:
    """Return everything that the model will read as turns; tools and formats come first."""
    turns: list[Turn] = []
    offered = (
        request.tools,
        request.functions,
        request.response_format,
        request.tool_choice,
        request.function_call,
        request.prediction,
    )
    texts = [TextPart(text=text_of(value)) for value in offered if value]
    texts += [TextPart(text=text) for text in extras]
    if texts:
        turns.append(Turn(role=Role.SYSTEM, parts=tuple(texts)))
    turns += [
        Turn(role=ROLES[message.role], parts=tuple(parts_of(message, unread)))
        for message in request.messages
    ]
    return Exchange(turns=tuple(turns))


def parts_of(message: ChatMessage, unread: Unread) -> Iterator[Part]:
    """Yield the parts of one message, every channel of it."""
    plain = Channel.TOOL_RESULT if ROLES[message.role] is Role.TOOL else Channel.TEXT
    if message.name:
        yield TextPart(text=message.name)
    for thought in (message.reasoning_content, message.reasoning):
        if thought:
            yield TextPart(text=thought, channel=Channel.REASONING)
    if isinstance(message.content, str):
        yield TextPart(text=message.content, channel=plain)
    elif isinstance(message.content, list):
        for part in message.content:
            yield from _part(part, plain, unread)
    if message.refusal:
        yield TextPart(text=message.refusal, channel=Channel.REFUSAL)
    calls = [(call.function, call.custom) for call in message.tool_calls or ()]
    if message.function_call:
        calls.append((message.function_call, None))
    for function, custom in calls:
        if function is not None:
            yield TextPart(text=function.name or "", channel=Channel.TOOL_NAME)
            yield TextPart(text=function.arguments or "", channel=Channel.TOOL_ARGUMENTS)
        if custom is not None:
            yield TextPart(text=custom.name or "", channel=Channel.TOOL_NAME)
            yield TextPart(text=custom.input or "", channel=Channel.TOOL_ARGUMENTS)


def _part(part: w.Content, plain: Channel, unread: Unread) -> Iterator[Part]:
    match part:
        case w.TextContent(text=text):
            yield TextPart(text=text, channel=plain)
        case w.RefusalContent(refusal=text):
            yield TextPart(text=text, channel=Channel.REFUSAL)
        case w.ImageContent(image_url=value):
            yield from unread.parts("image", value)
        case w.AudioContent(input_audio=value):
            yield from unread.parts("audio", value)
        case w.FileContent(file=value):
            yield from unread.parts("file", value)


class ChatCall:
    """One parsed chat request."""

    previous: str | None = None

    def __init__(
        self,
        request: ChatRequest,
        exchange: Exchange,
        unread: Unread,
        created: int,
        strainer: Strainer,
    ) -> None:
        self._request = request
        self._strainer = strainer
        self._rules = unread.rules
        self.media = tuple(unread.media)
        self._created = created
        self.exchange = exchange
        self.model = request.model
        self.streamed = bool(request.stream)

    @property
    def dropped(self) -> int:
        """How many unknown fields of the request and its answer were dropped so far."""
        return self._strainer.dropped

    def body(self, model: str) -> bytes:
        """Return the request to send upstream, written anew from the parsed fields."""
        changes: dict[str, Any] = {"model": model}
        if self._rules.logprobs == "strip":
            changes |= {"logprobs": None, "top_logprobs": None}
        elif self._request.top_logprobs:
            changes["top_logprobs"] = 0
        return self._strainer.woven(encode(msgspec.structs.replace(self._request, **changes)))

    def stream(self) -> AnswerStream:
        """Start reading a streamed answer."""
        options = self._request.stream_options
        return self._stream(usage=bool(options and options.include_usage))

    def _stream(self, *, usage: bool) -> AnswerStream:
        choices = self._request.n or 1
        chosen = bool(self._request.logprobs) and self._rules.logprobs == "chosen"
        facts = ChatFacts(
            self.model,
            self._created,
            ChosenTokens() if chosen else None,
            fields=PassedFields(self._strainer.drop),
        )
        reader = ChatReader(
            facts, choices=choices, max_lanes=self._rules.max_lanes, strainer=self._strainer
        )
        return AnswerStream(reader, ChatWriter(facts, choices=choices, usage=usage))

    def events(self, body: bytes) -> list[bytes]:
        """Return a complete answer as the events of a stream.

        Raises:
            BrokenReplyError: The body is no JSON object.
        """
        return chat_events(body)

    def assembled(self, events: Sequence[bytes]) -> bytes:
        """Return the events of a stream as a complete answer.

        Raises:
            UpstreamError: The stream is broken, ends with an error, or ends in the middle.
        """
        return assembled(self._stream(usage=True), events, joined_chat)

    def whole(self, body: bytes) -> "ChatWhole":
        """Read a complete answer.

        Raises:
            BrokenReplyError: The body does not follow the protocol.
            UnknownReplyError: The body holds content of an unknown kind.
        """
        keep = bool(self._request.logprobs) and self._rules.logprobs == "chosen"
        limit = self._rules.max_lanes
        reply = self._strainer.reply(_REPLY, body, mend)
        if not reply.choices or len(reply.choices) > (self._request.n or 1):
            raise BrokenReplyError("upstream: expected the asked number of choices")
        return ChatWhole(
            reply,
            self.model,
            self._created,
            keep_logprobs=keep,
            max_lanes=limit,
            strainer=self._strainer,
        )

    def blocked(self, notice: Notice) -> bytes:
        """Return the body of a refusal, for a request that was not streamed."""
        choices = [
            {
                "index": index,
                "finish_reason": FILTERED,
                "logprobs": None,
                "message": {"role": "assistant", "content": REFUSAL, "refusal": None},
                **filtered(notice),
            }
            for index in range(self._request.n or 1)
        ]
        return encode(
            {
                "id": f"chatcmpl-{notice.decision_id}",
                "object": "chat.completion",
                "created": self._created,
                "model": self.model,
                "choices": choices,
                "usage": w.ChatUsage().counts(),
                "safehold": {"decision_id": notice.decision_id},
            }
        )


class ChatWhole:
    """One complete chat answer."""

    response_id: str | None = None
    items: Mapping[str, bytes] = MappingProxyType({})

    def __init__(
        self,
        reply: ChatReply,
        model: str,
        created: int,
        *,
        keep_logprobs: bool,
        max_lanes: int,
        strainer: Strainer,
    ) -> None:
        self._reply = reply
        self._model = model
        self._created = created
        self._keep_logprobs = keep_logprobs
        self._lanes = Lanes(max_lanes)
        self._strainer = strainer
        self._fields = strainer.taken()
        for choice in reply.choices:
            choice.finish_reason = choice_ending(choice.finish_reason)
            for call in choice.message.tool_calls or ():
                if getattr(call, call.type) is None:
                    raise BrokenReplyError("upstream: expected a call of its own kind")

    @property
    def tokens(self) -> Tokens:
        """The upstream's token counts."""
        usage = self._reply.usage
        return Tokens(usage.prompt_tokens, usage.completion_tokens) if usage else Tokens()

    @property
    def refused(self) -> bool:
        """Whether the model itself refused."""
        return any(
            choice.message.refusal or choice.finish_reason == FILTERED
            for choice in self._reply.choices
        )

    def pieces(self) -> Iterable[Delta]:
        """Yield every text of the answer with its lane."""
        for choice in self._reply.choices:
            message, at = choice.message, choice.index
            yield from self._texts(at, Channel.REASONING, message.reasoning_content, 0)
            yield from self._texts(at, Channel.REASONING, message.reasoning, 1)
            for delta in self._texts(at, Channel.TEXT, message.content, 0):
                yield Delta(delta.lane, delta.text, choice.heard)
            yield from self._texts(at, Channel.REFUSAL, message.refusal, 0)
            for index, call in enumerate(message.tool_calls or ()):
                name, given = _name_and_input(call)
                yield from self._texts(at, Channel.TOOL_NAME, name, index)
                yield from self._texts(at, Channel.TOOL_ARGUMENTS, given, index)
            if message.function_call is not None:
                function = message.function_call
                last = len(message.tool_calls or ())
                yield from self._texts(at, Channel.TOOL_NAME, function.name, last)
                yield from self._texts(at, Channel.TOOL_ARGUMENTS, function.arguments, last)
        yield from field_texts(self._fields, self._lanes, self._strainer.drop)

    def _texts(self, choice: int, channel: Channel, text: str | None, index: int) -> list[Delta]:
        lane: LaneOf = self._lanes.get(choice, channel, index)
        return [Delta(lane, text)] if text else []

    def render(self) -> bytes:
        """Return the answer's body, built from the fields that were scored."""
        reply = self._reply
        body = {
            "id": identifier(reply.id, "chatcmpl-safehold"),
            "object": "chat.completion",
            "created": reply.created or self._created,
            "model": model_name(reply.model, self._model),
            "choices": [self._choice(choice) for choice in reply.choices],
        }
        if reply.usage is not None:
            body["usage"] = reply.usage.counts()
        self._strainer.dropped += woven(body, self._fields)
        return encode(body)

    def _choice(self, choice: w.ReplyChoice) -> dict[str, Any]:
        message = choice.message
        said: dict[str, Any] = {
            "role": "assistant",
            "content": message.content,
            "refusal": message.refusal,
        }
        for name in ("reasoning_content", "reasoning"):
            if getattr(message, name):
                said[name] = getattr(message, name)
        if message.tool_calls:
            said["tool_calls"] = [
                _call(call, index) for index, call in enumerate(message.tool_calls)
            ]
        if message.function_call:
            said["function_call"] = message.function_call
        return {
            "index": choice.index,
            "message": said,
            "finish_reason": choice.finish_reason,
            "logprobs": self._logprobs(choice),
        }

    def _logprobs(self, choice: w.ReplyChoice) -> dict[str, Any] | None:
        """Return the chosen tokens' numbers if they spell the text that was scored."""
        given = choice.logprobs.content if choice.logprobs and self._keep_logprobs else None
        if not given or "".join(item.token for item in given) != (choice.message.content or ""):
            return None
        entries: list[dict[str, Any]] = [
            {"token": item.token, "logprob": item.logprob, "bytes": None, "top_logprobs": []}
            for item in given
        ]
        return {"content": entries, "refusal": None}


def _name_and_input(call: w.ToolCall) -> tuple[str | None, str | None]:
    """Return a call's name, and what the tool is given."""
    if call.type == "custom":
        return (call.custom.name, call.custom.input) if call.custom else (None, None)
    return (call.function.name, call.function.arguments) if call.function else (None, None)


def _call(call: w.ToolCall, index: int) -> dict[str, Any]:
    name, given = _name_and_input(call)
    field = "input" if call.type == "custom" else "arguments"
    return {
        "id": identifier(call.id, f"call_{index}"),
        "type": call.type,
        call.type: {"name": name or "", field: given or ""},
    }


_REPLY = msgspec.json.Decoder(ChatReply)
