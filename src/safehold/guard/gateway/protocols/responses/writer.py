"""The event stream of OpenAI Responses, written anew around text that was cleared."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from safehold.exchange import Channel, Lane
from safehold.guard.gateway.interface import REFUSAL, Notice, Told
from safehold.guard.gateway.protocols.json_border import encode
from safehold.guard.gateway.protocols.passed_fields import Field, woven
from safehold.guard.gateway.protocols.responses.facts import ResponsesFacts
from safehold.guard.gateway.protocols.responses.items import (
    GROWING,
    WHOLE,
    ClientItem,
    ItemText,
    shown_part,
)
from safehold.guard.gateway.protocols.responses.response_object import skeleton
from safehold.guard.gateway.protocols.sse import named


class ResponsesWriter:
    """Writes one streamed response for the client."""

    def __init__(self, facts: ResponsesFacts) -> None:
        self._facts = facts
        self._sequence = 0
        self._writing: ClientItem | None = None
        self._part: ItemText | None = None
        self._written: list[dict[str, Any]] = []

    @property
    def response_id(self) -> str:
        """The id under which a later request may continue this answer."""
        return self._facts.response_id

    @property
    def items(self) -> Mapping[str, bytes]:
        """What the client was shown, by the ids that a later request may name."""
        return {str(item["id"]): encode(item) for item in self._written}

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        body = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return named(kind, encode(body))

    def _object(self, status: str) -> dict[str, Any]:
        return skeleton(self._facts.settled, self._facts.response_id, status)

    def begin(self) -> bytes:
        """Return the two opening events, once."""
        if self._facts.begun:
            return b""
        self._facts.begun = True
        first = self._event("response.created", {"response": self._object("in_progress")})
        return first + self._event(
            "response.in_progress", {"response": self._object("in_progress")}
        )

    def _open_item(self, item: ClientItem) -> bytes:
        if self._writing is item:
            return b""
        frames = self.begin() + self._close_item("completed")
        self._writing = item
        item.index = len(self._written)
        fields = {"output_index": item.index, "item": item.shown("in_progress")}
        return frames + self._event("response.output_item.added", fields)

    def _open_part(self, part: ItemText) -> bytes:
        if part.begun:
            return b""
        part.begun = True
        frames = self._open_item(part.item)
        if part.kind == "action":  # written whole, when all of it was released
            return frames
        self._part = part
        place = self._place(part)
        kind = next(name for name, value in GROWING.items() if value == part.kind)
        logprobs: dict[str, Any] = {"logprobs": []} if part.kind == "text" else {}
        head = encode({"type": kind, **place, **logprobs})[:-1]
        part.prefix = b"event: " + kind.encode() + b"\ndata: " + head + b',"sequence_number":'
        match part.kind:
            case "arguments" | "input":
                return frames
            case "summary":
                shown: dict[str, Any] = {"type": "summary_text", "text": ""}
                return frames + self._event(
                    "response.reasoning_summary_part.added", {**place, "part": shown}
                )
            case _:
                shown = shown_part(part.kind, "")
                return frames + self._event("response.content_part.added", {**place, "part": shown})

    @staticmethod
    def _place(part: ItemText) -> dict[str, Any]:
        place: dict[str, Any] = {"item_id": part.item.item_id, "output_index": part.item.index}
        if part.kind == "summary":
            place["summary_index"] = part.at
        elif part.kind not in ("arguments", "input"):
            place["content_index"] = part.at
        return place

    def release(self, lane: Lane, text: str) -> bytes:
        """Return the events that carry cleared text of a lane."""
        if lane.channel is Channel.TOOL_NAME:
            self._facts.by_name[lane].name_texts.append(text)
            return b""
        if lane.channel is Channel.FIELD:
            self._place_fields(self._facts.fields.release(lane, text))
            return b""
        part = self._facts.by_lane[lane]
        if part.kind == "action":
            part.texts.append(text)
            return b""
        frames = self._open_part(part) if not part.begun else b""
        part.texts.append(text)
        number = self._sequence
        self._sequence += 1
        return frames + part.prefix + b'%d,"delta":' % number + encode(text) + b"}\n\n"

    @staticmethod
    def _place_fields(fields: Sequence[Field]) -> None:
        for field in fields:
            item, place = field.place
            item.fields.append(msgspec.structs.replace(field, place=place))

    def close(self, lane: Lane) -> bytes:
        """Return the events that end a part whose text has all been released."""
        if lane.channel is Channel.FIELD:
            return b""
        if lane.channel is Channel.TOOL_NAME:
            return self._open_item(self._facts.by_name[lane])
        part = self._facts.by_lane[lane]
        if part.kind == "action":
            return self._open_part(part)
        return self._open_part(part) + self._close_part(part)

    def _close_part(self, part: ItemText) -> bytes:
        place, text = self._place(part), part.text
        self._part = None
        done = next(name for name, value in WHOLE.items() if value == part.kind)
        match part.kind:
            case "arguments":
                return self._event(done, {**place, "name": part.item.name, "arguments": text})
            case "input":
                return self._event(done, {**place, "input": text})
            case "summary":
                shown = {"type": "summary_text", "text": text}
                first = self._event(done, {**place, "text": text})
                return first + self._event(
                    "response.reasoning_summary_part.done", {**place, "part": shown}
                )
            case "refusal":
                fields: dict[str, Any] = {**place, "refusal": text}
            case "text":
                fields = {**place, "text": text, "logprobs": []}
            case _:
                fields = {**place, "text": text}
        last = {**place, "part": shown_part(part.kind, text)}
        return self._event(done, fields) + self._event("response.content_part.done", last)

    def _close_item(self, status: str) -> bytes:
        item, self._writing = self._writing, None
        if item is None:
            return b""
        frames = self._close_part(self._part) if self._part is not None else b""
        self._place_fields(self._facts.fields.ready())
        shown = item.shown(status)
        self._facts.fields.lost(woven(shown, item.fields))
        self._written.append(shown)
        fields = {"output_index": item.index, "item": shown}
        return frames + self._event("response.output_item.done", fields)

    def _last_event(self, kind: str, status: str, more: dict[str, Any]) -> bytes:
        usage = self._facts.final.usage if self._facts.final else None
        body = self._object(status) | {
            "output": self._written,
            "usage": usage.counts() if usage else None,
            **more,
        }
        return self._event(kind, {"response": body})

    def end(self, mark: Notice | None = None) -> bytes:
        """Return the final events; `mark` says what an audit would have blocked."""
        frames = self.begin() + self._close_item("completed")
        more: dict[str, Any] = {}
        if mark is not None:
            found = {"filtered": False, "detected": True, "severity": mark.severity}
            more["safehold"] = {"decision_id": mark.decision_id, mark.category: found}
        if self._facts.final is not None and self._facts.final.status == "incomplete":
            more["incomplete_details"] = self._facts.final.cut_by()
            return frames + self._last_event("response.incomplete", "incomplete", more)
        return frames + self._last_event("response.completed", "completed", more)

    def block(self, notice: Notice) -> bytes:
        """Return the events that end the stream with a refusal.

        The response is `completed`, with the reason beside it: agents take an incomplete response
        for a broken line, and ask again or raise.
        """
        frames = self.begin() + self._close_item("incomplete")
        item = ClientItem("message", f"msg_{notice.decision_id}", "")
        lane = Lane(channel=Channel.TEXT, index=len(self._facts.by_lane))
        part = item.parts["text", 0] = self._facts.by_lane[lane] = ItemText(item, "text", lane, 0)
        frames += self._open_part(part) + self.release(lane, REFUSAL)
        frames += self._close_item("completed")
        more = {
            "incomplete_details": {"reason": "content_filter"},
            "safehold": {"decision_id": notice.decision_id},
        }
        return frames + self._last_event("response.completed", "completed", more)

    def fail(self, message: str, decision_id: str, told: Told | None = None) -> bytes:
        """Return the events that end the stream with an error."""
        frames = self.begin() + self._close_item("incomplete")
        more = {
            "error": {
                "code": (told and (told.code or told.kind)) or "server_error",
                "message": message,
            },
            "safehold": {"decision_id": decision_id},
        }
        return frames + self._last_event("response.failed", "failed", more)
