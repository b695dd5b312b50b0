"""The event stream of Anthropic Messages, read from upstream and written anew.

Blocks keep their order: a block's frames begin with its first released text and end when its lane
is closed, so a later block never starts before an earlier one's tail was scored and released.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, assert_never

import msgspec

from safehold.exchange import Channel, Lane
from safehold.guard.gateway.interface import (
    REFUSAL,
    BrokenReplyError,
    Closed,
    Delta,
    Notice,
    Piece,
    Tokens,
    Told,
    UnknownReplyError,
)
from safehold.guard.gateway.protocols.json_border import (
    Lanes,
    encode,
    identifier,
    model_name,
    sealed,
)
from safehold.guard.gateway.protocols.messages import wire as w
from safehold.guard.gateway.protocols.sse import named
from safehold.guard.gateway.protocols.stream_errors import told_error
from safehold.guard.gateway.protocols.unknown_fields import Strainer

_EVENT: msgspec.json.Decoder[w.Event] = msgspec.json.Decoder(w.Event)
_TYPES = frozenset(
    (
        "message_start",
        "message_delta",
        "message_stop",
        "ping",
        "error",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
    )
)
CATEGORIES = ("cyber", "bio", "frontier_llm", "reasoning_extraction", "general_harms")
KINDS = {
    Channel.TEXT: ("text", "text_delta", "text"),
    Channel.REASONING: ("thinking", "thinking_delta", "thinking"),
    Channel.TOOL_ARGUMENTS: ("tool_use", "input_json_delta", "partial_json"),
}


def refusal_details(notice: Notice) -> dict[str, Any]:
    """Return `stop_details` of a block: no clause, no stage, no score."""
    return {
        "type": "refusal",
        "category": notice.category if notice.category in CATEGORIES else None,
        "explanation": f"Stopped by policy ({notice.category}). Decision {notice.decision_id}.",
    }


class MessagesStream:
    """One streamed message; writes fresh frames around text that was cleared."""

    response_id: str | None = None
    items: Mapping[str, bytes] = MappingProxyType({})

    def __init__(
        self,
        *,
        model: str,
        stops: Sequence[str],
        opaque_reasoning: str,
        max_lanes: int,
        strainer: Strainer,
    ) -> None:
        self._strainer = strainer
        self._model = model
        self._stops = stops
        self._opaque_reasoning = opaque_reasoning
        self._dropped: set[int] = set()
        self._lanes = Lanes(max_lanes)
        self._id = "msg_safehold"
        self._usage = w.MessagesUsage()
        self._stop: w.StopDelta | None = None
        self._done = False
        self._begun = False
        self._reading: dict[int, Channel] = {}
        self._closed: set[int] = set()
        self._tools: dict[int, str] = {}
        self._names: dict[int, str] = {}
        self._signatures: dict[int, str] = {}
        self._redacted: dict[int, str] = {}
        self._writing: int | None = None
        self._next = 0
        self._prefixes: dict[Lane, bytes] = {}

    # -- what the upstream says ------------------------------------------------------------

    def read(self, event: bytes) -> Sequence[Piece]:
        """Take the data of one upstream event.

        Raises:
            BrokenReplyError: The event does not follow the protocol.
            UnknownReplyError: The event or its content is of an unknown kind.
        """
        if event == b"[DONE]":  # vLLM before March 2026
            return ()
        try:
            given = self._strainer.reply(_EVENT, event)
        except UnknownReplyError:
            if self._strainer.drops_event(event, _TYPES):
                return ()
            raise
        match given:
            case w.BlockDelta(index=index, delta=delta):
                return self._delta(index, delta)
            case w.BlockStart(index=index, content_block=block):
                return self._start(index, block)
            case w.BlockStop(index=index):
                return self._end_block(index)
            case w.MessageStart(message=message):
                self._id = identifier(message.id, self._id)
                self._model = model_name(message.model, self._model)
                self._usage = self._usage.plus(message.usage)
                if message.content:
                    raise BrokenReplyError("upstream: expected an empty message at its start")
            case w.MessageDelta(delta=stop, usage=usage):
                self._stop = stop
                self._usage = self._usage.plus(usage)
            case w.MessageStop():
                self._done = True
            case w.Ping():
                pass
            case w.Failure(error=given):
                raise told_error(given)
            case other:
                assert_never(other)
        return ()

    def _start(self, index: int, block: w.ReplyBlock) -> list[Piece]:
        if index in self._reading or index in self._closed:
            raise BrokenReplyError("upstream: expected a new block, came one that began before")
        match block:
            case w.TextBlock(text=text, citations=citations):
                self._strainer.dropped += bool(citations)
                return self._open(index, Channel.TEXT, text)
            case w.ThinkingBlock(thinking=text, signature=signature):
                self._signatures[index] = self._signature(signature)
                return self._open(index, Channel.REASONING, text)
            case w.RedactedBlock(data=data):
                if self._opaque_reasoning == "refuse":
                    raise UnknownReplyError("upstream: redacted_thinking can't be scored")
                if self._opaque_reasoning == "drop":
                    self._strainer.dropped += 1
                    self._dropped.add(index)
                    self._reading[index] = Channel.REASONING
                    return []
                self._redacted[index] = sealed(data)
                return self._open(index, Channel.REASONING, "")
            case w.ToolUseBlock(id=call, name=name, input=given):
                self._tools[index] = identifier(call, f"toolu_{index}")
                lane = self._lanes.get(0, Channel.TOOL_NAME, index)
                opened = self._open(
                    index, Channel.TOOL_ARGUMENTS, encode(given).decode() if given else ""
                )
                return [Delta(lane, name), Closed(lane), *opened]
            case other:
                assert_never(other)

    def _signature(self, value: str) -> str:
        """Return a signature if it looks like one; a dialect's own is dropped and counted."""
        try:
            return sealed(value)
        except UnknownReplyError:
            self._strainer.dropped += 1
            return ""

    def _open(self, index: int, channel: Channel, text: str) -> list[Piece]:
        self._reading[index] = channel
        lane = self._lanes.get(0, channel, index)
        return [Delta(lane, text)] if text else []

    def _delta(
        self,
        index: int,
        delta: w.TextDelta | w.ThinkingDelta | w.SignatureDelta | w.InputDelta | w.CitationsDelta,
    ) -> tuple[Piece, ...]:
        channel = self._reading.get(index)
        match delta:
            case w.TextDelta(text=text):
                expected = Channel.TEXT
            case w.ThinkingDelta(thinking=text):
                expected = Channel.REASONING
            case w.InputDelta(partial_json=text):
                expected = Channel.TOOL_ARGUMENTS
            case w.CitationsDelta():
                self._strainer.dropped += 1
                return ()
            case w.SignatureDelta(signature=signature):
                if channel is not Channel.REASONING:
                    raise BrokenReplyError("upstream: expected a signature in a thinking block")
                whole = self._signatures.get(index, "") + signature
                self._signatures[index] = self._signature(whole)
                return ()
            case other:
                assert_never(other)
        if channel is not expected or index in self._redacted or index in self._dropped:
            raise BrokenReplyError("upstream: expected a delta of the open block's kind")
        return (Delta(self._lanes.get(0, channel, index), text),) if text else ()

    def _end_block(self, index: int) -> tuple[Piece, ...]:
        channel = self._reading.pop(index, None)
        if channel is None:
            raise BrokenReplyError("upstream: expected the end of an open block")
        self._closed.add(index)
        if index in self._dropped:
            return ()
        return (Closed(self._lanes.get(0, channel, index)),)

    @property
    def complete(self) -> bool:
        """Whether the upstream said why its message ended, and left no block open."""
        return self._stop is not None and (self._done or not self._reading)

    @property
    def tokens(self) -> Tokens:
        """The upstream's token counts so far."""
        return Tokens(self._usage.input_tokens, self._usage.output_tokens)

    @property
    def refused(self) -> bool:
        """Whether the model itself refused."""
        return self._stop is not None and self._stop.stop_reason == "refusal"

    # -- what the client gets --------------------------------------------------------------

    def begin(self) -> bytes:
        """Return `message_start`, once."""
        if self._begun:
            return b""
        self._begun = True
        message: dict[str, Any] = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._usage.counts(),
        }
        return _event("message_start", {"message": message})

    def release(self, lane: Lane, text: str) -> bytes:
        """Return the frames that carry cleared text of a lane."""
        if lane.channel is Channel.TOOL_NAME:
            self._names[lane.index] = self._names.get(lane.index, "") + text
            return b""
        prefix = self._prefixes.get(lane)
        if prefix is not None:
            return prefix + encode(text) + b"}}\n\n"
        start = self.begin() + self._open_block(lane)
        kind, delta, field = KINDS[lane.channel]
        del kind
        head = '{"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":'
        prefix = b"event: content_block_delta\ndata: "
        prefix += (head % (self._next, delta, field)).encode()
        self._prefixes[lane] = prefix
        return start + prefix + encode(text) + b"}}\n\n"

    def _open_block(self, lane: Lane) -> bytes:
        """Begin the block of a lane, unless it has begun."""
        if self._writing == lane.index:
            return b""
        block: dict[str, Any]
        if lane.index in self._tools:
            name = self._names.get(lane.index, "")
            block = {"type": "tool_use", "id": self._tools[lane.index], "name": name, "input": {}}
        elif lane.index in self._redacted:
            block = {"type": "redacted_thinking", "data": self._redacted[lane.index]}
        elif lane.channel is Channel.REASONING:
            block = {"type": "thinking", "thinking": "", "signature": ""}
        else:
            block = {"type": "text", "text": ""}
        self._writing = lane.index
        return _event("content_block_start", {"index": self._next, "content_block": block})

    def close(self, lane: Lane) -> bytes:
        """Return the frames that end a block whose text has all been released."""
        if lane.channel is Channel.TOOL_NAME:
            return self.begin() + self._open_block(lane)
        frames = self.begin() + self._open_block(lane)
        signature = self._signatures.get(lane.index)
        if signature:
            delta = {"type": "signature_delta", "signature": signature}
            frames += _event("content_block_delta", {"index": self._next, "delta": delta})
        return frames + self._stop_block()

    def _stop_block(self) -> bytes:
        if self._writing is None:
            return b""
        at, self._writing, self._next = self._next, None, self._next + 1
        return _event("content_block_stop", {"index": at})

    def end(self, mark: Notice | None = None) -> bytes:
        """Return the final frames; `mark` says what an audit would have blocked."""
        stop = self._stop or w.StopDelta()
        sequence = stop.stop_sequence if stop.stop_sequence in self._stops else None
        delta = {"stop_reason": stop.stop_reason, "stop_sequence": sequence}
        more = {} if mark is None else {"safehold": audit_mark(mark)}
        return (
            self.begin()
            + self._stop_block()
            + _event("message_delta", {"delta": delta, "usage": self._usage.counts(), **more})
            + _event("message_stop", {})
        )

    def block(self, notice: Notice) -> bytes:
        """Return the frames that end the stream with a refusal."""
        frames = self.begin() + self._stop_block()
        at = self._next
        block = {"type": "text", "text": ""}
        text = {"type": "text_delta", "text": REFUSAL}
        stop = {
            "stop_reason": "refusal",
            "stop_sequence": None,
            "stop_details": refusal_details(notice),
        }
        return (
            frames
            + _event("content_block_start", {"index": at, "content_block": block})
            + _event("content_block_delta", {"index": at, "delta": text})
            + _event("content_block_stop", {"index": at})
            + _event(
                "message_delta",
                {
                    "delta": stop,
                    "usage": self._usage.counts(),
                    "safehold": {"decision_id": notice.decision_id},
                },
            )
            + _event("message_stop", {})
        )

    def fail(self, message: str, decision_id: str, told: Told | None = None) -> bytes:
        """Return the frames that end the stream with an error."""
        kind = told.kind if told is not None else None
        error = {"type": kind or "api_error", "message": message}
        return _event("error", {"error": error, "safehold": {"decision_id": decision_id}})


def audit_mark(mark: Notice) -> dict[str, Any]:
    """Return what an audited answer says about itself."""
    found = {"filtered": False, "detected": True, "severity": mark.severity}
    return {"decision_id": mark.decision_id, mark.category: found}


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return named(kind, encode({"type": kind, **fields}))
