"""The event stream of OpenAI Chat Completions, written anew around text that was cleared."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from safehold.exchange import Channel, Lane
from safehold.guard.gateway.interface import REFUSAL, Notice, Told
from safehold.guard.gateway.protocols.chat.facts import IN_DELTA, LEGACY, ChatFacts
from safehold.guard.gateway.protocols.chat.wire import ChatUsage
from safehold.guard.gateway.protocols.json_border import encode
from safehold.guard.gateway.protocols.openai_endings import (
    DONE,
    FILTERED,
    detected,
    error_frames,
    filtered,
)
from safehold.guard.gateway.protocols.passed_fields import Field
from safehold.guard.gateway.protocols.sse import frame

FIELDS = {
    (Channel.TEXT, 0): "content",
    (Channel.REFUSAL, 0): "refusal",
    (Channel.REASONING, 0): "reasoning_content",
    (Channel.REASONING, 1): "reasoning",
}


class ChatWriter:
    """Writes one streamed chat answer for the client."""

    response_id: str | None = None
    items: Mapping[str, bytes] = MappingProxyType({})

    def __init__(self, facts: ChatFacts, *, choices: int, usage: bool) -> None:
        self._facts = facts
        self._choices = choices
        self._want_usage = usage
        self._head: bytes | None = None
        self._frames: dict[Lane, tuple[bytes, bytes]] = {}
        self._started: set[int] = set()
        self._names: dict[Lane, str] = {}
        self._late: list[Field] = []

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
        if lane.channel is Channel.FIELD:
            return self._fields(self._facts.fields.release(lane, text))
        if self._facts.chosen is not None and lane.channel is Channel.TEXT:
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
        entries = self._facts.chosen.take(lane, text) if self._facts.chosen else []
        numbers = {"content": entries, "refusal": None} if entries else None
        start = self._open_choice(lane.choice)
        return start + self._frame(lane.choice, {"content": text}, logprobs=numbers)

    def _fields(self, fields: list[Field]) -> bytes:
        """Return the frames of unknown fields; those of calls wait until the calls have begun."""
        frames = [b""]
        for field in fields:
            more = {field.name: field.value}
            match field.place:
                case (int() as choice, None, _):
                    frames += [self._open_choice(choice), self._frame(choice, {}, more=more)]
                case (int() as choice, at, _) if at == IN_DELTA:
                    frames += [self._open_choice(choice), self._frame(choice, more)]
                case (_, _, _):
                    self._late.append(field)
                case _:
                    frames.append(frame(self._header() + encode({"choices": [], **more})[1:]))
        return b"".join(frames)

    def _last_fields(self) -> bytes:
        frames = [self._fields(self._facts.fields.ready())]
        for field in self._late:
            choice, index, inner = field.place
            more = {field.name: field.value}
            call: dict[str, Any] = {"index": index} | (more if inner is None else {inner: more})
            frames.append(self._frame(choice, {"tool_calls": [call]}))
        self._late = []
        return b"".join(frames)

    def _header(self) -> bytes:
        """Return the fields that every frame begins with (an open JSON object)."""
        if self._head is None:
            head = {
                "id": self._facts.response_id or "chatcmpl-safehold",
                "object": "chat.completion.chunk",
                "created": self._facts.created,
                "model": self._facts.model,
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
            "id": self._facts.calls[lane.choice, lane.index],
        }
        if self._is_custom(lane):
            call |= {"type": "custom", "custom": {"name": name, "input": ""}}
        else:
            call |= {"type": "function", "function": {"name": name, "arguments": ""}}
        return start + self._frame(lane.choice, {"tool_calls": [call]})

    def _is_custom(self, lane: Lane) -> bool:
        return self._facts.custom.get((lane.choice, lane.index), False)

    def end(self, mark: Notice | None = None) -> bytes:
        """Return the final frames; `mark` says what an audit would have blocked."""
        frames = [self._last_fields()]
        more = detected(mark)
        for choice in range(self._choices):
            frames.append(self._open_choice(choice))
            finish = self._facts.finish.get(choice)
            top = self._unasked() if choice == self._choices - 1 else {}
            frames.append(self._frame(choice, {}, finish=finish, more=more, top=top))
        if self._want_usage and self._facts.usage is not None:
            frames.append(self._counts())
        return b"".join((*frames, DONE))

    def _unasked(self) -> dict[str, Any]:
        """Return the counts of a server that gives them unasked, which go beside the last end."""
        if self._want_usage or self._facts.usage is None:
            return {}
        return {"usage": self._facts.usage.counts()}

    def _counts(self) -> bytes:
        usage = (self._facts.usage or ChatUsage()).counts()
        return frame(self._header() + encode({"choices": [], "usage": usage})[1:])

    def block(self, notice: Notice) -> bytes:
        """Return the frames that end every choice with the refusal."""
        more = filtered(notice)
        top: dict[str, Any] = {"safehold": {"decision_id": notice.decision_id}}
        if not self._want_usage:
            top["usage"] = (self._facts.usage or ChatUsage()).counts()
        frames = []
        for choice in range(self._choices):
            frames.append(self._open_choice(choice))
            frames.append(self._frame(choice, {"content": REFUSAL}))
            frames.append(self._frame(choice, {}, finish=FILTERED, more=more, top=top))
        if self._want_usage:
            frames.append(self._counts())
        return b"".join((*frames, DONE))

    def fail(self, message: str, decision_id: str, told: Told | None = None) -> bytes:
        """Return the frames that end the stream with an error."""
        return error_frames(message, decision_id, told)
