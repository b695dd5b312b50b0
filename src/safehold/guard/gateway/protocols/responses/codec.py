"""OpenAI Responses: requests to exchanges, answers to lanes, and every ending."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, assert_never

import msgspec

from safehold.errors import WireError
from safehold.exchange import Channel, Exchange, Part, Role, TextPart, Turn
from safehold.guard.gateway.interface import (
    REFUSAL,
    BrokenReplyError,
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
from safehold.guard.gateway.protocols.events_as_whole import assembled, joined_responses
from safehold.guard.gateway.protocols.json_border import (
    IDENTIFIER,
    Lanes,
    encode,
    identifier,
    model_name,
    sealed,
    text_of,
)
from safehold.guard.gateway.protocols.openai_endings import error_body
from safehold.guard.gateway.protocols.parts import Unread
from safehold.guard.gateway.protocols.passed_fields import PassedFields, field_texts, woven
from safehold.guard.gateway.protocols.responses import wire as w
from safehold.guard.gateway.protocols.responses.facts import ResponsesFacts
from safehold.guard.gateway.protocols.responses.items import KINDS, texts_of, whole_item
from safehold.guard.gateway.protocols.responses.reader import ResponsesReader
from safehold.guard.gateway.protocols.responses.response_object import (
    Settled,
    message_item,
    skeleton,
)
from safehold.guard.gateway.protocols.responses.writer import ResponsesWriter
from safehold.guard.gateway.protocols.stream_errors import told_error
from safehold.guard.gateway.protocols.tools import client_tools, runs_at_responses_client
from safehold.guard.gateway.protocols.unknown_fields import Strainer
from safehold.guard.gateway.protocols.whole_as_events import responses_events

ROLES = {
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
}
INCLUDES = ("reasoning.encrypted_content", "message.output_text.logprobs")
_REPLY = msgspec.json.Decoder(w.Response)
_ITEM: msgspec.json.Decoder[w.InputItem] = msgspec.json.Decoder(w.InputItem)
_ITEMS = (
    "expected messages, reasoning, and calls and outputs of tools that the client runs, "
    "came another item"
)


class ResponsesCodec:
    """The codec of `POST /v1/responses`."""

    surface = Surface.RESPONSES
    upstream_path = "/responses"

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._decoder = msgspec.json.Decoder(w.ResponsesRequest)

    def parse(self, body: bytes, rules: Rules) -> "ResponsesCall":
        """Read a request.

        Raises:
            WireError: The request is malformed, or holds what `rules` do not let pass.
        """
        strainer = Strainer(rules)
        request = strainer.request(self._decoder, body)
        if request.tools:
            request.tools = _client_tools(request.tools, request.tool_choice, rules, strainer)
        if request.include:
            known = [name for name in request.include if name in INCLUDES]
            strainer.drop(len(request.include) - len(known))  # what a vendor's own tools found
            sealed_too = rules.opaque_reasoning != "drop"
            request.include = [one for one in known if sealed_too or one != INCLUDES[0]] or None
        items = _items(request, rules, strainer)
        _check(request)
        unread = Unread(rules)
        exchange = exchange_of(request, items, unread, strainer.texts())
        return ResponsesCall(request, items, exchange, unread, int(self._clock()), strainer)

    def error(self, status: int, message: str, decision_id: str, told: Told | None = None) -> bytes:
        """Return the body of an error response."""
        return error_body(status, message, decision_id, told)


def _items(request: w.ResponsesRequest, rules: Rules, strainer: Strainer) -> list[w.InputItem]:
    if isinstance(request.input, str):
        return [w.MessageItem(role="user", content=request.input)]
    items: list[w.InputItem] = []
    for given in request.input:
        typed = given if "type" in given or "role" not in given else {"type": "message", **given}
        if typed.get("type") == "reasoning" and rules.opaque_reasoning == "drop":
            readable = {**typed, "encrypted_content": None}
            strainer.dropped += bool(typed.get("encrypted_content"))
            if not readable.get("summary") and not readable.get("content"):
                continue
            typed = readable
        try:
            item = strainer.request(_ITEM, encode(typed), ("input", len(items)))
        except WireError as error:
            if "opens a channel" in str(error):
                raise
            raise UnsupportedError(_wrong_item(len(items), str(error))) from None
        if isinstance(item, w.MoreTools | w.ToolSearchOutput):
            item.tools = _client_tools(item.tools or [], None, rules, strainer)
        items.append(item)
    if not items:
        raise WireError("expected at least one input item, came none")
    return items


def _wrong_item(number: int, why: str) -> str:
    """Return what is wrong with an item of the input, at its place there."""
    place = f"input[{number}]"
    return f"{place}: {_ITEMS}" if why.startswith("$.type") else why.replace("$", place, 1)


def _client_tools(
    tools: list[dict[str, Any]], choice: Any, rules: Rules, strainer: Strainer
) -> list[dict[str, Any]]:
    return client_tools(tools, choice, runs_at_responses_client, rules, strainer) or []


def _check(request: w.ResponsesRequest) -> None:
    previous = request.previous_response_id
    if previous is not None and IDENTIFIER.fullmatch(previous) is None:
        raise WireError("previous_response_id: expected an identifier")


def exchange_of(
    request: w.ResponsesRequest,
    items: Sequence[w.InputItem],
    unread: Unread,
    extras: Sequence[str] = (),
) -> Exchange:
    """Return everything that the model will read as turns; tools and formats come first."""
    offered = (request.tools, request.text, request.tool_choice)
    texts = [TextPart(text=text_of(value)) for value in offered if value]
    texts += [TextPart(text=text) for text in extras]
    if request.instructions:
        texts.append(TextPart(text=request.instructions))
    turns = [Turn(role=Role.SYSTEM, parts=tuple(texts))] if texts else []
    turns += [_turn(item, unread) for item in items]
    return Exchange(turns=tuple(turns))


def _turn(item: w.InputItem, unread: Unread) -> Turn:
    match item:
        case w.MessageItem(role=role, content=content):
            return Turn(role=ROLES[role], parts=tuple(_parts(content, Channel.TEXT, unread)))
        case w.CallItem(name=name, arguments=text) | w.CustomCallItem(name=name, input=text):
            named = (item.namespace, name) if item.namespace else (name,)
            told = [TextPart(text=one, channel=Channel.TOOL_NAME) for one in named]
            told.append(TextPart(text=text, channel=Channel.TOOL_ARGUMENTS))
            return Turn(role=Role.ASSISTANT, parts=tuple(told))
        case w.CallOutputItem(output=output) | w.CustomCallOutputItem(output=output):
            return Turn(role=Role.TOOL, parts=tuple(_parts(output, Channel.TOOL_RESULT, unread)))
        case w.ReasoningItem(summary=summary, content=content, encrypted_content=secret):
            if secret and unread.rules.opaque_reasoning != "pass":
                raise UnsupportedError("expected readable reasoning, came encrypted_content")
            thoughts = [part.text for part in (*summary, *(content or ()))]
            parts = tuple(TextPart(text=text, channel=Channel.REASONING) for text in thoughts)
            return Turn(role=Role.ASSISTANT, parts=parts)
        case w.Action():
            asked = TextPart(text=text_of(item.asked()), channel=Channel.TOOL_ARGUMENTS)
            return Turn(role=Role.ASSISTANT, parts=(asked,))
        case w.ComputerOutput(output=output):
            return Turn(role=Role.TOOL, parts=tuple(unread.parts("image", output)))
        case w.ActionOutput(output=output, tools=tools, acknowledged_safety_checks=checks):
            text = text_of([output, tools, checks])
            return Turn(role=Role.TOOL, parts=(TextPart(text=text, channel=Channel.TOOL_RESULT),))
        case w.MoreTools(tools=tools):
            return Turn(role=Role.SYSTEM, parts=(TextPart(text=text_of(tools)),))
        case other:
            assert_never(other)


def _parts(content: str | Sequence[w.InputPart], plain: Channel, unread: Unread) -> Iterator[Part]:
    if isinstance(content, str):
        yield TextPart(text=content, channel=plain)
        return
    for part in content:
        match part:
            case w.InputText(text=text) | w.OutputText(text=text):
                yield TextPart(text=text, channel=plain)
            case w.RefusalPart(refusal=text):
                yield TextPart(text=text, channel=Channel.REFUSAL)
            case w.InputImage():
                yield from unread.parts("image", part)
            case w.InputFile():
                yield from unread.parts("file", part)
            case other:
                assert_never(other)


class ResponsesCall:
    """One parsed request."""

    def __init__(
        self,
        request: w.ResponsesRequest,
        items: Sequence[w.InputItem],
        exchange: Exchange,
        unread: Unread,
        created: int,
        strainer: Strainer,
    ) -> None:
        self._strainer = strainer
        self._request = request
        self._items = items
        self._rules = unread.rules
        self.media = tuple(unread.media)
        self._created = created
        self.exchange = exchange
        self.model = request.model
        self.streamed = bool(request.stream)
        self.previous = request.previous_response_id

    @property
    def dropped(self) -> int:
        """How many unknown fields of the request and its answer were dropped so far."""
        return self._strainer.dropped

    def body(self, model: str) -> bytes:
        """Return the request to send upstream, written anew from the parsed fields."""
        include = [name for name in self._request.include or () if not name.endswith("logprobs")]
        request = msgspec.structs.replace(
            self._request,
            model=model,
            top_logprobs=None,
            include=include or None,
            input="" if not isinstance(self._request.input, str) else self._request.input,
        )
        body: dict[str, Any] = msgspec.to_builtins(request)
        if not isinstance(self._request.input, str):
            body["input"] = self._items
        return self._strainer.woven(encode(body))

    def _settled(self) -> Settled:
        return Settled(
            model=self.model,
            created=self._created,
            instructions=self._request.instructions,
            tools=self._request.tools or [],
            tool_choice=self._request.tool_choice or "auto",
            parallel=self._request.parallel_tool_calls is not False,
            temperature=self._request.temperature,
            top_p=self._request.top_p,
            metadata=self._request.metadata or {},
            previous=self.previous,
        )

    def stream(self) -> AnswerStream:
        """Start reading a streamed answer."""
        facts = ResponsesFacts(self._settled(), fields=PassedFields(self._strainer.drop))
        reader = ResponsesReader(
            facts,
            opaque_reasoning=self._rules.opaque_reasoning,
            max_lanes=self._rules.max_lanes,
            strainer=self._strainer,
        )
        return AnswerStream(reader, ResponsesWriter(facts))

    def events(self, body: bytes) -> list[bytes]:
        """Return a complete answer as the events of a stream.

        Raises:
            BrokenReplyError: The body is no JSON object.
        """
        return responses_events(body)

    def assembled(self, events: Sequence[bytes]) -> bytes:
        """Return the events of a stream as a complete answer.

        Raises:
            UpstreamError: The stream is broken, ends with an error, or ends in the middle.
        """
        return assembled(self.stream(), events, joined_responses)

    def whole(self, body: bytes) -> "ResponsesWhole":
        """Read a complete answer.

        Raises:
            BrokenReplyError: The body does not follow the protocol.
            UnknownReplyError: The body holds content of an unknown kind.
        """
        reply = self._strainer.reply(_REPLY, body)
        if reply.status == "failed" and reply.error is not None:
            raise told_error(reply.error)
        if reply.status not in ("completed", "incomplete") or reply.error is not None:
            raise BrokenReplyError("upstream: expected a completed response")
        for item in reply.output:
            if isinstance(item, w.OutputReasoning) and item.encrypted_content:
                if self._rules.opaque_reasoning == "refuse":
                    raise UnknownReplyError("upstream: encrypted reasoning can't be scored")
                if self._rules.opaque_reasoning == "drop":
                    item.encrypted_content = None
                    self._strainer.dropped += 1
                else:
                    sealed(item.encrypted_content)
        return ResponsesWhole(reply, self._settled(), self._strainer, self._rules.max_lanes)

    def blocked(self, notice: Notice) -> bytes:
        """Return the body of a refusal, for a request that was not streamed."""
        body = skeleton(self._settled(), f"resp_{notice.decision_id}", "completed")
        body["incomplete_details"] = {"reason": "content_filter"}
        body["output"] = [message_item(f"msg_{notice.decision_id}", REFUSAL, "completed")]
        body["usage"] = w.ResponsesUsage().counts()
        body["safehold"] = {"decision_id": notice.decision_id}
        return encode(body)


class ResponsesWhole:
    """One complete response."""

    def __init__(
        self, reply: w.Response, settled: Settled, strainer: Strainer, max_lanes: int
    ) -> None:
        self._fields, self._strainer = strainer.taken(), strainer
        self._reply = reply
        self._settled = settled
        self._lanes = Lanes(max_lanes)
        self.response_id = identifier(reply.id, "resp_safehold")

    @property
    def tokens(self) -> Tokens:
        """The upstream's token counts."""
        usage = self._reply.usage
        return Tokens(usage.input_tokens, usage.output_tokens) if usage else Tokens()

    @property
    def refused(self) -> bool:
        """Whether the model itself refused."""
        return any(
            isinstance(part, w.RefusalPart)
            for item in self._reply.output
            if isinstance(item, w.OutputMessage)
            for part in item.content
        )

    @property
    def items(self) -> Mapping[str, bytes]:
        """What the client is shown, by the ids that a later request may name."""
        return {str(item["id"]): encode(item) for item in self._shown()}

    def _shown(self) -> list[dict[str, Any]]:
        return [
            whole_item(item, index, self._settled.namespace(getattr(item, "namespace", None)))
            for index, item in enumerate(self._reply.output)
        ]

    def pieces(self) -> Iterable[Delta]:
        """Yield every text of the answer with its lane."""
        serial = 0
        for item in self._reply.output:
            if isinstance(item, w.OutputCall | w.OutputCustomCall):
                yield Delta(self._lanes.get(0, Channel.TOOL_NAME, serial), item.name)
                serial += 1
            for kind, _, text in texts_of(item):
                yield Delta(self._lanes.get(0, KINDS[kind], serial), text)
                serial += 1
        yield from field_texts(self._fields, self._lanes, self._strainer.drop)

    def render(self) -> bytes:
        """Return the answer's body, built from the fields that were scored."""
        reply = self._reply
        settled = msgspec.structs.replace(
            self._settled, model=model_name(reply.model, self._settled.model)
        )
        body = skeleton(settled, self.response_id, reply.status or "completed")
        if reply.status == "incomplete":
            body["incomplete_details"] = reply.cut_by()
        body["output"] = self._shown()
        body["usage"] = reply.usage.counts() if reply.usage else None
        self._strainer.dropped += woven(body, self._fields)
        return encode(body)
