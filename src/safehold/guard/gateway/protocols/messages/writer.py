"""The event stream of Anthropic Messages, written anew around text that was cleared.

Blocks keep their order: a block's frames begin with its first released text and end when its lane
is closed, so a later block never starts before an earlier one's tail was scored and released.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from safehold.exchange import Channel, Lane
from safehold.guard.gateway.interface import REFUSAL, Notice, Told
from safehold.guard.gateway.protocols.json_border import encode
from safehold.guard.gateway.protocols.messages import wire as w
from safehold.guard.gateway.protocols.messages.facts import MessagesFacts
from safehold.guard.gateway.protocols.passed_fields import Field
from safehold.guard.gateway.protocols.sse import named

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


class MessagesWriter:
    """Writes one streamed message for the client."""

    response_id: str | None = None
    items: Mapping[str, bytes] = MappingProxyType({})

    def __init__(self, facts: MessagesFacts, *, stops: Sequence[str]) -> None:
        self._facts = facts
        self._stops = stops
        self._begun = False
        self._names: dict[int, str] = {}
        self._writing: int | None = None
        self._next = 0
        self._prefixes: dict[Lane, bytes] = {}
        self._of_block: dict[int, list[Field]] = {}
        self._of_message: list[Field] = []

    def begin(self) -> bytes:
        """Return `message_start`, once."""
        if self._begun:
            return b""
        self._begun = True
        message: dict[str, Any] = {
            "id": self._facts.response_id,
            "type": "message",
            "role": "assistant",
            "model": self._facts.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._facts.usage.counts(),
        }
        return _event("message_start", {"message": message})

    def release(self, lane: Lane, text: str) -> bytes:
        """Return the frames that carry cleared text of a lane."""
        if lane.channel is Channel.TOOL_NAME:
            self._names[lane.index] = self._names.get(lane.index, "") + text
            return b""
        if lane.channel is Channel.FIELD:
            self._keep_fields(self._facts.fields.release(lane, text))
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
        if lane.index in self._facts.tools:
            name = self._names.get(lane.index, "")
            block = {
                "type": "tool_use",
                "id": self._facts.tools[lane.index],
                "name": name,
                "input": {},
            }
        elif lane.index in self._facts.redacted:
            block = {"type": "redacted_thinking", "data": self._facts.redacted[lane.index]}
        elif lane.channel is Channel.REASONING:
            block = {"type": "thinking", "thinking": "", "signature": ""}
        else:
            block = {"type": "text", "text": ""}
        self._writing = lane.index
        return _event("content_block_start", {"index": self._next, "content_block": block})

    def _keep_fields(self, fields: Sequence[Field]) -> None:
        """Keep fields until their block ends, or the message does."""
        for field in fields:
            if field.place is None:
                self._of_message.append(field)
            else:
                self._of_block.setdefault(field.place, []).append(field)

    def _block_fields(self, lane: Lane) -> bytes:
        """Return a block's unknown fields, each beside an empty delta of the block's kind."""
        self._keep_fields(self._facts.fields.ready())
        frames = [b""]
        for field in self._of_block.pop(lane.index, ()):
            if lane.channel not in KINDS or lane.index in self._facts.redacted:
                self._facts.fields.lost(1)
                continue
            _, kind, text = KINDS[lane.channel]
            delta = {"type": kind, text: ""} | {field.name: field.value}
            frames.append(_event("content_block_delta", {"index": self._next, "delta": delta}))
        return b"".join(frames)

    def close(self, lane: Lane) -> bytes:
        """Return the frames that end a block whose text has all been released."""
        if lane.channel is Channel.FIELD:
            return b""
        if lane.channel is Channel.TOOL_NAME:
            return self.begin() + self._open_block(lane)
        frames = self.begin() + self._open_block(lane) + self._block_fields(lane)
        signature = self._facts.signatures.get(lane.index)
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
        stop = self._facts.stop or w.StopDelta()
        sequence = stop.stop_sequence if stop.stop_sequence in self._stops else None
        self._keep_fields(self._facts.fields.ready())
        delta = {field.name: field.value for field in self._of_message}
        delta |= {"stop_reason": stop.stop_reason, "stop_sequence": sequence}
        more = {} if mark is None else {"safehold": audit_mark(mark)}
        return (
            self.begin()
            + self._stop_block()
            + _event("message_delta", {"delta": delta, "usage": self._facts.usage.counts(), **more})
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
                    "usage": self._facts.usage.counts(),
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
