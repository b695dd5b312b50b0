"""The event stream of Anthropic Messages, read from upstream."""

from collections.abc import Sequence
from typing import assert_never

import msgspec

from safehold.exchange import Channel
from safehold.guard.gateway.interface import (
    BrokenReplyError,
    Closed,
    Delta,
    Piece,
    Tokens,
    UnknownReplyError,
)
from safehold.guard.gateway.protocols.answer_words import ending
from safehold.guard.gateway.protocols.json_border import (
    Lanes,
    encode,
    identifier,
    model_name,
    sealed,
)
from safehold.guard.gateway.protocols.messages import wire as w
from safehold.guard.gateway.protocols.messages.facts import MessagesFacts
from safehold.guard.gateway.protocols.repeated_events import PROBE, TRIES, Repeated, around
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


class MessagesReader:
    """Reads one streamed message into texts by lane."""

    def __init__(
        self, facts: MessagesFacts, *, opaque_reasoning: str, max_lanes: int, strainer: Strainer
    ) -> None:
        self._facts = facts
        self._strainer = strainer
        self._opaque_reasoning = opaque_reasoning
        self._dropped: set[int] = set()
        self._lanes = Lanes(max_lanes)
        self.ended = False
        self._reading: dict[int, Channel] = {}
        self._closed: set[int] = set()
        self._tries = TRIES
        self.again: Repeated | None = None

    def read(self, event: bytes) -> Sequence[Piece]:
        """Take the data of one upstream event.

        Raises:
            BrokenReplyError: The event does not follow the protocol.
            UnknownReplyError: The event or its content is of an unknown kind.
        """
        self.again = None
        if self.ended or event == b"[DONE]":  # vLLM before March 2026 ends so
            return ()
        try:
            given = self._strainer.reply(_EVENT, event)
        except UnknownReplyError:
            if self._strainer.drops_event(event, _TYPES):
                return ()
            raise
        if self._strainer.passed:
            return [*self._read(given), *self._with_fields(given)]
        pieces = self._read(given)
        if self._tries and type(given) is w.BlockDelta and type(given.delta) is w.TextDelta:
            self._learn(event, given, given.delta, pieces)
        return pieces

    def _learn(
        self, event: bytes, given: w.BlockDelta, delta: w.TextDelta, pieces: Sequence[Piece]
    ) -> None:
        """Keep the frame of an event that brought text of a block and nothing else."""
        self._tries -= 1
        found = around(event, delta.text, b"text")
        if found is None or len(pieces) != 1:
            return
        try:
            probe = _EVENT.decode(encode(PROBE).join(found))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # a dialect's: it is strained each time
        text, delta.text = delta.text, PROBE
        if probe == given:
            self.again, self._tries = Repeated(pieces[0].lane, *found), TRIES
        delta.text = text

    def _with_fields(self, given: w.Event) -> list[Piece]:
        """Take an event's unknown fields: those of a block, and those of the message."""
        pieces: list[Piece] = []
        for field in self._strainer.taken():
            match given, field.place:
                case w.BlockStart(index=index), ("content_block",):
                    scope: int | None = index
                case w.BlockDelta(index=index), ("delta",):
                    scope = index
                case (w.MessageStart(), ("message",)) | (w.MessageDelta(), ("delta",)):
                    scope = None
                case _:
                    self._strainer.dropped += 1
                    continue
            if scope in self._dropped:
                self._strainer.dropped += 1
            else:
                placed = msgspec.structs.replace(field, place=scope)
                pieces += self._facts.fields.take(scope, placed, self._lanes)
        return pieces

    def _read(self, given: w.Event) -> Sequence[Piece]:
        match given:
            case w.BlockDelta(index=index, delta=delta):
                return self._delta(index, delta)
            case w.BlockStart(index=index, content_block=block):
                return self._start(index, block)
            case w.BlockStop(index=index):
                return self._end_block(index)
            case w.MessageStart(message=message):
                self._facts.response_id = identifier(message.id, self._facts.response_id)
                self._facts.model = model_name(message.model, self._facts.model)
                self._facts.usage = self._facts.usage.plus(message.usage)
                if message.content:
                    raise BrokenReplyError("upstream: expected an empty message at its start")
            case w.MessageDelta(delta=stop, usage=usage):
                stop.stop_reason = ending(stop.stop_reason)
                self._facts.stop = stop
                self._facts.usage = self._facts.usage.plus(usage)
            case w.MessageStop():
                self.ended = True
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
                self._facts.signatures[index] = self._signature(signature)
                return self._open(index, Channel.REASONING, text)
            case w.RedactedBlock(data=data):
                if self._opaque_reasoning == "refuse":
                    raise UnknownReplyError("upstream: redacted_thinking can't be scored")
                if self._opaque_reasoning == "drop":
                    self._strainer.dropped += 1
                    self._dropped.add(index)
                    self._reading[index] = Channel.REASONING
                    return []
                self._facts.redacted[index] = sealed(data)
                return self._open(index, Channel.REASONING, "")
            case w.ToolUseBlock(id=call, name=name, input=given):
                self._facts.tools[index] = identifier(call, f"toolu_{index}")
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
                whole = self._facts.signatures.get(index, "") + signature
                self._facts.signatures[index] = self._signature(whole)
                return ()
            case other:
                assert_never(other)
        if channel is not expected or index in self._facts.redacted or index in self._dropped:
            raise BrokenReplyError("upstream: expected a delta of the open block's kind")
        return (Delta(self._lanes.get(0, channel, index), text),) if text else ()

    def _end_block(self, index: int) -> tuple[Piece, ...]:
        channel = self._reading.pop(index, None)
        if channel is None:
            raise BrokenReplyError("upstream: expected the end of an open block")
        self._closed.add(index)
        if index in self._dropped:
            return ()
        return (*self._facts.fields.close(index), Closed(self._lanes.get(0, channel, index)))

    @property
    def complete(self) -> bool:
        """Whether the upstream said why its message ended, and left no block open."""
        return self._facts.stop is not None and (self.ended or not self._reading)

    @property
    def tokens(self) -> Tokens:
        """The upstream's token counts so far."""
        return Tokens(self._facts.usage.input_tokens, self._facts.usage.output_tokens)

    @property
    def refused(self) -> bool:
        """Whether the model itself refused."""
        return self._facts.stop is not None and self._facts.stop.stop_reason == "refusal"
