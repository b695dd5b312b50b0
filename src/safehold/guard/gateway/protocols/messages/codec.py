"""Anthropic Messages: requests to exchanges, answers to lanes, and every ending."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, assert_never

import msgspec

from safehold.errors import WireError
from safehold.exchange import Channel, Exchange, Part, Role, TextPart, Turn
from safehold.guard.gateway.interface import (
    REFUSAL,
    Delta,
    Notice,
    Rules,
    Surface,
    Tokens,
    Told,
    UnknownReplyError,
    UnsupportedError,
)
from safehold.guard.gateway.protocols.answer_stream import AnswerStream
from safehold.guard.gateway.protocols.answer_words import ending
from safehold.guard.gateway.protocols.events_as_whole import assembled, joined_messages
from safehold.guard.gateway.protocols.json_border import (
    SEALED,
    Lanes,
    encode,
    identifier,
    model_name,
    sealed,
    text_of,
)
from safehold.guard.gateway.protocols.messages import wire as w
from safehold.guard.gateway.protocols.messages.facts import MessagesFacts
from safehold.guard.gateway.protocols.messages.reader import MessagesReader
from safehold.guard.gateway.protocols.messages.writer import MessagesWriter, refusal_details
from safehold.guard.gateway.protocols.parts import Unread
from safehold.guard.gateway.protocols.passed_fields import Field, PassedFields, field_texts, woven
from safehold.guard.gateway.protocols.tools import client_tools, runs_at_messages_client
from safehold.guard.gateway.protocols.unknown_fields import Strainer
from safehold.guard.gateway.protocols.whole_as_events import messages_events

ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM}
ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
KINDS = (*ERRORS.values(), "api_error", "billing_error", "timeout_error")
_REPLY = msgspec.json.Decoder(w.Reply)


class MessagesCodec:
    """The codec of `POST /v1/messages`."""

    surface = Surface.MESSAGES
    upstream_path = "/messages"

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(w.MessagesRequest)

    def parse(self, body: bytes, rules: Rules) -> "MessagesCall":
        """Read a request.

        Raises:
            WireError: The request is malformed, or holds what `rules` do not let pass.
        """
        strainer = Strainer(rules)
        request = strainer.request(self._decoder, _without_sealed(body, rules, strainer))
        if not request.messages:
            raise WireError("expected at least one message, came none")
        request.tools = client_tools(
            request.tools, request.tool_choice, runs_at_messages_client, rules, strainer
        )
        unread = Unread(rules)
        exchange = exchange_of(request, unread, strainer.texts())
        return MessagesCall(request, exchange, unread, strainer)

    def error(self, status: int, message: str, decision_id: str, told: Told | None = None) -> bytes:
        """Return the body of an error response."""
        default = (
            "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "api_error"
        )
        kind = told.kind if told is not None and told.kind in KINDS else None
        error = {"type": kind or ERRORS.get(status, default), "message": message}
        return encode({"type": "error", "error": error, "request_id": decision_id})


class CountCodec:
    """Reads token counting requests, so that what goes upstream is what was parsed."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(w.CountRequest)

    def parse(self, body: bytes, rules: Rules) -> bytes:
        """Return the request written anew.

        Raises:
            WireError: The request is malformed, or holds what `rules` do not let pass.
        """
        strainer = Strainer(rules)
        request = strainer.request(self._decoder, _without_sealed(body, rules, strainer))
        request.tools = client_tools(
            request.tools, request.tool_choice, runs_at_messages_client, rules, strainer
        )
        exchange_of(request, Unread(rules))
        return strainer.woven(encode(request))


def _without_sealed(body: bytes, rules: Rules, strainer: Strainer) -> bytes:
    """Return a body without reasoning that only the vendor can read, where the rules say so."""
    if rules.opaque_reasoning != "drop" or b"redacted_thinking" not in body:
        return body
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body  # the decoder says what is wrong with it
    messages = value.get("messages") if isinstance(value, dict) else None
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            kept = [one for one in content if not _is_sealed(one)]
            strainer.dropped += len(content) - len(kept)
            message["content"] = kept
    return encode(value)


def _is_sealed(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") == "redacted_thinking"


def exchange_of(
    request: w.MessagesRequest | w.CountRequest, unread: Unread, extras: Sequence[str] = ()
) -> Exchange:
    """Return everything that the model will read as turns; tools and formats come first."""
    turns: list[Turn] = []
    texts = [
        TextPart(text=text_of(value)) for value in (request.tools, request.output_config) if value
    ]
    texts += [TextPart(text=text) for text in extras]
    if isinstance(request.system, str):
        texts.append(TextPart(text=request.system))
    else:
        texts += [TextPart(text=block.text) for block in request.system or ()]
    if texts:
        turns.append(Turn(role=Role.SYSTEM, parts=tuple(texts)))
    turns += [
        Turn(role=ROLES[message.role], parts=tuple(_parts(message.content, unread)))
        for message in request.messages
    ]
    return Exchange(turns=tuple(turns))


def _parts(
    content: str | Sequence[w.Block] | None, unread: Unread, plain: Channel = Channel.TEXT
) -> Iterator[Part]:
    if isinstance(content, str):
        yield TextPart(text=content, channel=plain)
        return
    for block in content or ():
        match block:
            case w.TextBlock(text=text, citations=citations):
                yield TextPart(text=text, channel=plain)
                if citations:
                    yield TextPart(text=text_of(citations), channel=plain)
            case w.ThinkingBlock(thinking=text, signature=signature):
                _check_sealed(signature)
                yield TextPart(text=text, channel=Channel.REASONING)
            case w.RedactedBlock(data=data):
                if unread.rules.opaque_reasoning != "pass":
                    raise UnsupportedError("expected readable reasoning, came redacted_thinking")
                _check_sealed(data)
            case w.ToolUseBlock(name=name, input=given):
                yield TextPart(text=name, channel=Channel.TOOL_NAME)
                yield TextPart(text=text_of(given), channel=Channel.TOOL_ARGUMENTS)
            case w.ToolResultBlock(content=result):
                yield from _parts(result, unread, Channel.TOOL_RESULT)
            case w.ToolReference(tool_name=name):
                yield TextPart(text=name, channel=Channel.TOOL_NAME)
            case w.SearchResultBlock(source=source, title=title, content=found):
                yield TextPart(text=f"{title}\n{source}", channel=plain)
                yield from _parts(found, unread, plain)
            case w.ImageBlock(source=source):
                yield from unread.parts("image", source)
            case w.DocumentBlock(source=source, title=title, context=context):
                for told in (title, context):
                    if told:
                        yield TextPart(text=told, channel=plain)
                yield from _document(source, plain, unread)
            case other:
                assert_never(other)


def _document(source: dict[str, Any], plain: Channel, unread: Unread) -> Iterator[Part]:
    """Yield a document's parts; what it holds beside text is as unread as it is anywhere."""
    content = source.get("content")
    if source.get("type") == "text" or (source.get("type") == "content" and _is_text(content)):
        yield TextPart(text=text_of(source), channel=plain)
    elif source.get("type") != "content" or not isinstance(content, list):
        yield from unread.parts("document", source)
    else:
        for block in content:
            if _is_text(block):
                yield TextPart(text=text_of(block), channel=plain)
            else:
                held = block.get("source") if isinstance(block, dict) else block
                yield from unread.parts("image", held)


def _is_text(block: Any) -> bool:
    return isinstance(block, str) or (isinstance(block, dict) and block.get("type") == "text")


def _check_sealed(value: str) -> None:
    try:
        sealed(value)
    except UnknownReplyError:
        raise WireError("expected a base64 signature, came other text") from None


class MessagesCall:
    """One parsed request."""

    previous: str | None = None

    def __init__(
        self, request: w.MessagesRequest, exchange: Exchange, unread: Unread, strainer: Strainer
    ) -> None:
        self._strainer = strainer
        self._request = request
        self._rules = unread.rules
        self.media = tuple(unread.media)
        self.exchange = exchange
        self.model = request.model
        self.streamed = bool(request.stream)

    @property
    def dropped(self) -> int:
        """How many unknown fields of the request and its answer were dropped so far."""
        return self._strainer.dropped

    def body(self, model: str) -> bytes:
        """Return the request to send upstream, written anew from the parsed fields."""
        return self._strainer.woven(encode(msgspec.structs.replace(self._request, model=model)))

    def stream(self) -> AnswerStream:
        """Start reading a streamed answer."""
        facts = MessagesFacts(self.model, fields=PassedFields(self._strainer.drop))
        reader = MessagesReader(
            facts,
            opaque_reasoning=self._rules.opaque_reasoning,
            max_lanes=self._rules.max_lanes,
            strainer=self._strainer,
        )
        writer = MessagesWriter(facts, stops=self._request.stop_sequences or ())
        return AnswerStream(reader, writer)

    def events(self, body: bytes) -> list[bytes]:
        """Return a complete answer as the events of a stream.

        Raises:
            BrokenReplyError: The body is no JSON object.
        """
        return messages_events(body)

    def assembled(self, events: Sequence[bytes]) -> bytes:
        """Return the events of a stream as a complete answer.

        Raises:
            UpstreamError: The stream is broken, ends with an error, or ends in the middle.
        """
        return assembled(self.stream(), events, joined_messages)

    def whole(self, body: bytes) -> "MessagesWhole":
        """Read a complete answer.

        Raises:
            BrokenReplyError: The body does not follow the protocol.
            UnknownReplyError: The body holds content of an unknown kind.
        """
        reply = self._strainer.reply(_REPLY, body)
        fields = self._strainer.taken()
        sealed_blocks = [one for one in reply.content if isinstance(one, w.RedactedBlock)]
        if sealed_blocks and self._rules.opaque_reasoning == "refuse":
            raise UnknownReplyError("upstream: redacted_thinking can't be scored")
        if sealed_blocks and self._rules.opaque_reasoning == "drop":
            self._strainer.dropped += len(sealed_blocks)
            fields = _moved(fields, reply.content)
            reply.content = [one for one in reply.content if one not in sealed_blocks]
        for block in reply.content:
            if isinstance(block, w.TextBlock) and block.citations:
                self._strainer.dropped += 1  # not rendered
            if isinstance(block, w.ThinkingBlock) and SEALED.fullmatch(block.signature) is None:
                self._strainer.dropped += 1
                block.signature = ""
        return MessagesWhole(reply, self._request, fields, self._strainer, self._rules.max_lanes)

    def blocked(self, notice: Notice) -> bytes:
        """Return the body of a refusal, for a request that was not streamed."""
        return encode(
            {
                "id": f"msg_{notice.decision_id}",
                "type": "message",
                "role": "assistant",
                "model": self.model,
                "content": [{"type": "text", "text": REFUSAL}],
                "stop_reason": "refusal",
                "stop_sequence": None,
                "stop_details": refusal_details(notice),
                "usage": w.MessagesUsage().counts(),
                "safehold": {"decision_id": notice.decision_id},
            }
        )


def _moved(fields: Sequence[Field], content: Sequence[w.ReplyBlock]) -> list[Field]:
    """Return fields at their places once the sealed blocks are gone, without those of the gone."""
    kept: list[Field] = []
    for field in fields:
        match field.place:
            case ("content", int() as at, *_) if isinstance(content[at], w.RedactedBlock):
                continue
            case ("content", int() as at, *rest):
                gone = sum(isinstance(one, w.RedactedBlock) for one in content[:at])
                kept.append(msgspec.structs.replace(field, place=("content", at - gone, *rest)))
            case _:
                kept.append(field)
    return kept


class MessagesWhole:
    """One complete message."""

    response_id: str | None = None
    items: Mapping[str, bytes] = MappingProxyType({})

    def __init__(
        self,
        reply: w.Reply,
        request: w.MessagesRequest,
        fields: list[Field],
        strainer: Strainer,
        max_lanes: int,
    ) -> None:
        self._fields, self._strainer = fields, strainer
        reply.stop_reason = ending(reply.stop_reason)
        self._reply = reply
        self._request = request
        self._lanes = Lanes(max_lanes)

    @property
    def tokens(self) -> Tokens:
        """The upstream's token counts."""
        return Tokens(self._reply.usage.input_tokens, self._reply.usage.output_tokens)

    @property
    def refused(self) -> bool:
        """Whether the model itself refused."""
        return self._reply.stop_reason == "refusal"

    def pieces(self) -> Iterable[Delta]:
        """Yield every text of the answer with its lane."""
        for index, block in enumerate(self._reply.content):
            match block:
                case w.TextBlock(text=text):
                    yield Delta(self._lanes.get(0, Channel.TEXT, index), text)
                case w.ThinkingBlock(thinking=text):
                    yield Delta(self._lanes.get(0, Channel.REASONING, index), text)
                case w.ToolUseBlock(name=name, input=given):
                    yield Delta(self._lanes.get(0, Channel.TOOL_NAME, index), name)
                    arguments = encode(given).decode()
                    yield Delta(self._lanes.get(0, Channel.TOOL_ARGUMENTS, index), arguments)
                case w.RedactedBlock():
                    pass
                case other:
                    assert_never(other)
        yield from field_texts(self._fields, self._lanes, self._strainer.drop)

    def render(self) -> bytes:
        """Return the answer's body, built from the fields that were scored."""
        reply = self._reply
        stops = self._request.stop_sequences or ()
        body = {
            "id": identifier(reply.id, "msg_safehold"),
            "type": "message",
            "role": "assistant",
            "model": model_name(reply.model, self._request.model),
            "content": [self._block(block) for block in reply.content],
            "stop_reason": reply.stop_reason,
            "stop_sequence": reply.stop_sequence if reply.stop_sequence in stops else None,
            "usage": reply.usage.counts(),
        }
        self._strainer.dropped += woven(body, self._fields)
        return encode(body)

    @staticmethod
    def _block(block: w.ReplyBlock) -> dict[str, Any]:
        match block:
            case w.TextBlock(text=text):
                return {"type": "text", "text": text}
            case w.ThinkingBlock(thinking=text, signature=signature):
                return {"type": "thinking", "thinking": text, "signature": sealed(signature)}
            case w.RedactedBlock(data=data):
                return {"type": "redacted_thinking", "data": sealed(data)}
            case w.ToolUseBlock(id=call, name=name, input=given):
                call = identifier(call, "toolu_safehold")
                return {"type": "tool_use", "id": call, "name": name, "input": given}
            case other:
                assert_never(other)
