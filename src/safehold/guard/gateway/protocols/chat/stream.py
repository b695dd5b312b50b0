"""The event stream of OpenAI Chat Completions, read from upstream and written anew."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

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
)
from safehold.guard.gateway.protocols.chat.dialects import mend
from safehold.guard.gateway.protocols.chat.logprobs import ChosenTokens
from safehold.guard.gateway.protocols.chat.wire import (
    ChatUsage,
    Chunk,
    ChunkChoice,
    ReplyDelta,
    ToolCallDelta,
)
from safehold.guard.gateway.protocols.json_border import (
    Lanes,
    encode,
    identifier,
    model_name,
)
from safehold.guard.gateway.protocols.sse import frame
from safehold.guard.gateway.protocols.stream_errors import told_error
from safehold.guard.gateway.protocols.unknown_fields import Strainer

_CHUNK = msgspec.json.Decoder(Chunk)
FIELDS = {
    (Channel.TEXT, 0): "content",
    (Channel.REFUSAL, 0): "refusal",
    (Channel.REASONING, 0): "reasoning_content",
    (Channel.REASONING, 1): "reasoning",
}
FILTERED = "content_filter"


LEGACY = 65_536
"""The index of a choice's `function_call`, which came before `tool_calls` had indices."""


def _name_and_input(call: ToolCallDelta, *, custom: bool) -> tuple[str | None, str | None]:
    """Return a piece of a call's name, and of what the tool is given."""
    if custom:
        return (call.custom.name, call.custom.input) if call.custom else (None, None)
    return (call.function.name, call.function.arguments) if call.function else (None, None)


def _says(delta: ReplyDelta) -> bool:
    """Whether a piece of a choice carries anything but its role."""
    return bool(
        delta.content
        or delta.refusal
        or delta.reasoning_content
        or delta.reasoning
        or delta.tool_calls
        or delta.function_call
    )


class ChatStream:
    """One streamed chat answer; writes fresh frames around text that was cleared."""

    response_id: str | None = None
    items: Mapping[str, bytes] = MappingProxyType({})

    def __init__(
        self,
        *,
        model: str,
        created: int,
        choices: int,
        usage: bool,
        logprobs: bool,
        max_lanes: int,
        strainer: Strainer,
    ) -> None:
        self._model = model
        self._created = created
        self._choices = choices
        self._want_usage = usage
        self._chosen = ChosenTokens() if logprobs else None
        self._lanes = Lanes(max_lanes)
        self._strainer = strainer
        self._head: bytes | None = None
        self._id: str | None = None
        self._frames: dict[Lane, tuple[bytes, bytes]] = {}
        self._started: set[int] = set()
        self._finish: dict[int, str] = {}
        self._open: dict[int, list[Lane]] = {}
        self._opened: dict[tuple[int, Channel, int], Lane] = {}
        self._calls: dict[tuple[int, int], str] = {}
        self._names: dict[Lane, str] = {}
        self._named: set[Lane] = set()
        self._said: dict[Lane, str] = {}
        self._given: dict[tuple[int, int], str] = {}
        self._custom: dict[tuple[int, int], bool] = {}
        self._usage: ChatUsage | None = None
        self._refused = False

    # -- what the upstream says ------------------------------------------------------------

    def read(self, event: bytes) -> Sequence[Piece]:
        """Take the data of one upstream event.

        Raises:
            BrokenReplyError: The event does not follow the protocol.
            UnknownReplyError: The event or its content is of an unknown kind.
        """
        if event == b"[DONE]":
            return ()
        chunk = self._strainer.reply(_CHUNK, event, mend)
        if chunk.error is not None:
            raise told_error(chunk.error)
        if self._id is None and chunk.id:
            self._id = identifier(chunk.id, "")
            self._model = model_name(chunk.model, self._model)
            self._created = chunk.created or self._created
        if chunk.usage is not None:
            self._usage = chunk.usage
        pieces: list[Piece] = []
        for choice in chunk.choices:
            self._choice(choice, pieces)
        return pieces

    def _choice(self, choice: ChunkChoice, pieces: list[Piece]) -> None:
        at, delta = choice.index, choice.delta
        if not 0 <= at < self._choices:
            raise BrokenReplyError("upstream: expected the asked number of choices, came more")
        if at in self._finish and _says(delta):
            raise BrokenReplyError("upstream: expected nothing after a choice's finish reason")
        if delta.content:
            lane = self._lane(at, Channel.TEXT, 0)
            if self._chosen is not None and choice.logprobs is not None:
                given = choice.logprobs.content or []
                self._chosen.add(
                    lane, delta.content, [(item.token, item.logprob) for item in given]
                )
            pieces.append(Delta(lane, delta.content, choice.heard))
        if delta.reasoning_content:
            pieces.append(Delta(self._lane(at, Channel.REASONING, 0), delta.reasoning_content))
        if delta.reasoning:
            pieces.append(Delta(self._lane(at, Channel.REASONING, 1), delta.reasoning))
        if delta.refusal:
            self._refused = True
            pieces.append(Delta(self._lane(at, Channel.REFUSAL, 0), delta.refusal))
        if delta.function_call is not None:
            legacy = ToolCallDelta(index=LEGACY, function=delta.function_call)
            self._call(at, legacy, pieces)
        for call in delta.tool_calls or ():
            self._call(at, call, pieces)
        if choice.finish_reason is not None:
            self._finish[at] = choice.finish_reason
            self._refused = self._refused or choice.finish_reason == FILTERED
            self._end_choice(at, pieces)

    def _end_choice(self, at: int, pieces: list[Piece]) -> None:
        """Close what the choice left open: tool names without arguments, then every text."""
        for choice, index in self._calls:
            name_lane = self._lanes.get(choice, Channel.TOOL_NAME, index)
            if choice == at and name_lane not in self._named:
                self._named.add(name_lane)
                pieces.append(Closed(name_lane))
        pieces.extend(Closed(lane) for lane in self._open.pop(at, ()))

    def _lane(self, choice: int, channel: Channel, index: int) -> Lane:
        key = (choice, channel, index)
        lane = self._opened.get(key)
        if lane is None:
            lane = self._opened[key] = self._lanes.get(choice, channel, index)
            self._open.setdefault(choice, []).append(lane)
        return lane

    def _call(self, at: int, call: ToolCallDelta, pieces: list[Piece]) -> None:
        """Read a piece of a tool call: its name ends where its arguments begin."""
        if call.type not in (None, "", "function", "custom"):
            raise BrokenReplyError("upstream: expected calls of known kinds, came another")
        index = self._which(at, call)
        key = (at, index)
        name_lane = self._lanes.get(at, Channel.TOOL_NAME, index)
        if key not in self._calls:
            self._calls[key] = identifier(call.id, f"call_{at}_{index}")
            self._given[key] = call.id or ""
            self._custom[key] = call.type == "custom" or call.custom is not None
        name, given = _name_and_input(call, custom=self._custom[key])
        if name:
            said = self._said.get(name_lane, "")
            if name == said:
                pass  # some servers repeat the name in each piece
            elif name_lane not in self._named:
                self._said[name_lane] = said + name
                pieces.append(Delta(name_lane, name))
            else:
                raise BrokenReplyError("upstream: expected arguments, came a second tool name")
        if given:
            if name_lane not in self._named:
                self._named.add(name_lane)
                pieces.append(Closed(name_lane))
            lane = self._lane(at, Channel.TOOL_ARGUMENTS, index)
            pieces.append(Delta(lane, given))

    def _which(self, at: int, call: ToolCallDelta) -> int:
        """Return a call's index; without one, a new id or a name begins the next call."""
        if call.index is not None:
            return call.index
        indices = [index for choice, index in self._calls if choice == at and index != LEGACY]
        last = max(indices, default=-1)
        if last < 0 or (call.id and call.id != self._given[at, last]):
            return last + 1
        named = self._lanes.get(at, Channel.TOOL_NAME, last) in self._named
        fresh = not call.id and bool(_name_and_input(call, custom=call.custom is not None)[0])
        return last + 1 if named and fresh else last

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
        return self._refused

    # -- what the client gets --------------------------------------------------------------

    def begin(self) -> bytes:
        """Return nothing: a choice's first frame carries its role."""
        return b""

    def release(self, lane: Lane, text: str) -> bytes:
        """Return the frames that carry cleared text of a lane."""
        around = self._frames.get(lane)
        if around is not None:
            return around[0] + encode(text) + around[1]
        if lane.channel is Channel.TOOL_NAME:
            self._names[lane] = self._names.get(lane, "") + text
            return b""
        if self._chosen is not None and lane.channel is Channel.TEXT:
            return self._with_logprobs(lane, text)
        return self._first(lane, text)

    def _first(self, lane: Lane, text: str) -> bytes:
        """Return the first frame of a lane, and keep the bytes around its later texts."""
        start = self._open_choice(lane.choice)
        suffix = b'},"logprobs":null,"finish_reason":null}]}\n\n'
        if lane.channel is Channel.TOOL_ARGUMENTS:
            if lane.index == LEGACY:
                delta = b'{"function_call":{"arguments":'
                suffix = b"}" + suffix
            else:
                field = (
                    b'"custom":{"input":' if self._is_custom(lane) else b'"function":{"arguments":'
                )
                delta = b'{"tool_calls":[{"index":%d,' % lane.index + field
                suffix = b"}}]" + suffix
        else:
            delta = b'{"%s":' % FIELDS[lane.channel, lane.index].encode()
        prefix = (
            b"data: " + self._header() + b'"choices":[{"index":%d,"delta":' % lane.choice + delta
        )
        self._frames[lane] = (prefix, suffix)
        return start + prefix + encode(text) + suffix

    def _with_logprobs(self, lane: Lane, text: str) -> bytes:
        entries = self._chosen.take(lane, text) if self._chosen else []
        numbers = {"content": entries, "refusal": None} if entries else None
        start = self._open_choice(lane.choice)
        return start + self._frame(lane.choice, {"content": text}, logprobs=numbers)

    def _header(self) -> bytes:
        """Return the fields that every frame begins with (an open JSON object)."""
        if self._head is None:
            head = {
                "id": self._id or "chatcmpl-safehold",
                "object": "chat.completion.chunk",
                "created": self._created,
                "model": self._model,
            }
            self._head = encode(head)[:-1] + b","
        return self._head

    def _open_choice(self, choice: int) -> bytes:
        if choice in self._started:
            return b""
        self._started.add(choice)
        return self._frame(choice, {"role": "assistant", "content": ""})

    def _frame(
        self,
        choice: int,
        delta: dict[str, Any],
        *,
        finish: str | None = None,
        logprobs: dict[str, Any] | None = None,
        more: dict[str, Any] | None = None,
        top: dict[str, Any] | None = None,
    ) -> bytes:
        body = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        rest = {"choices": [body | (more or {})]} | (top or {})
        return frame(self._header() + encode(rest)[1:])

    def close(self, lane: Lane) -> bytes:
        """Return a tool call's first frame once its whole name was released."""
        if lane.channel is not Channel.TOOL_NAME:
            return b""
        start, name = self._open_choice(lane.choice), self._names.pop(lane, "")
        if lane.index == LEGACY:
            legacy = {"function_call": {"name": name, "arguments": ""}}
            return start + self._frame(lane.choice, legacy)
        call: dict[str, Any] = {
            "index": lane.index,
            "id": self._calls[lane.choice, lane.index],
        }
        if self._is_custom(lane):
            call |= {"type": "custom", "custom": {"name": name, "input": ""}}
        else:
            call |= {"type": "function", "function": {"name": name, "arguments": ""}}
        return start + self._frame(lane.choice, {"tool_calls": [call]})

    def _is_custom(self, lane: Lane) -> bool:
        return self._custom.get((lane.choice, lane.index), False)

    def end(self, mark: Notice | None = None) -> bytes:
        """Return the final frames; `mark` says what an audit would have blocked."""
        frames = []
        more: dict[str, Any] = {}
        if mark is not None:
            found = {"filtered": False, "detected": True, "severity": mark.severity}
            more = {"content_filter_results": {mark.category: found}}
        for choice in range(self._choices):
            frames.append(self._open_choice(choice))
            finish = self._finish.get(choice)
            frames.append(self._frame(choice, {}, finish=finish, more=more))
        if self._want_usage and self._usage is not None:
            frames.append(self._counts())
        return b"".join((*frames, b"data: [DONE]\n\n"))

    def _counts(self) -> bytes:
        usage = (self._usage or ChatUsage()).counts()
        return frame(self._header() + encode({"choices": [], "usage": usage})[1:])

    def block(self, notice: Notice) -> bytes:
        """Return the frames that end every choice with the refusal."""
        more = {
            "content_filter_results": {
                notice.category: {"filtered": True, "severity": notice.severity}
            }
        }
        top: dict[str, Any] = {"safehold": {"decision_id": notice.decision_id}}
        if not self._want_usage:
            top["usage"] = (self._usage or ChatUsage()).counts()
        frames = []
        for choice in range(self._choices):
            frames.append(self._open_choice(choice))
            frames.append(self._frame(choice, {"content": REFUSAL}))
            frames.append(self._frame(choice, {}, finish=FILTERED, more=more, top=top))
        if self._want_usage:
            frames.append(self._counts())
        return b"".join((*frames, b"data: [DONE]\n\n"))

    def fail(self, message: str, decision_id: str, told: Told | None = None) -> bytes:
        """Return the frames that end the stream with an error."""
        told = told or Told()
        error = {
            "message": message,
            "type": told.kind or "api_error",
            "param": None,
            "code": told.code,
        }
        body = {"error": error, "safehold": {"decision_id": decision_id}}
        return frame(encode(body)) + b"data: [DONE]\n\n"
