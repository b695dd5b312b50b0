"""The event stream of OpenAI Responses, read from upstream and written anew.

Upstream events that repeat a whole text (`…done`, `response.completed`) are never passed on: what
the client gets of them is built from the text that was released.
"""

from collections.abc import Mapping, Sequence
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
    UnknownReplyError,
)
from safehold.guard.gateway.protocols.json_border import (
    Lanes,
    encode,
    identifier,
    model_name,
    sealed,
)
from safehold.guard.gateway.protocols.responses import wire as w
from safehold.guard.gateway.protocols.responses.items import (
    ALLOWED,
    KINDS,
    ClientItem,
    ItemText,
    kind_of,
    shown_part,
    texts_of,
)
from safehold.guard.gateway.protocols.responses.response_object import Settled, skeleton
from safehold.guard.gateway.protocols.sse import named
from safehold.guard.gateway.protocols.stream_errors import told_error
from safehold.guard.gateway.protocols.unknown_fields import Strainer

_EVENT = msgspec.json.Decoder(w.ResponsesEvent)
_BEGUN = msgspec.json.Decoder(w.Begun)
_RESPONSE = msgspec.json.Decoder(w.Response)
_ITEM: msgspec.json.Decoder[w.OutputItem] = msgspec.json.Decoder(w.OutputItem)

GROWING = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "summary",
    "response.function_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
}
WHOLE = {
    "response.output_text.done": "text",
    "response.refusal.done": "refusal",
    "response.reasoning_text.done": "reasoning",
    "response.reasoning_summary_text.done": "summary",
    "response.function_call_arguments.done": "arguments",
    "response.custom_tool_call_input.done": "input",
}
QUIET = (
    "response.queued",
    "response.content_part.added",
    "response.content_part.done",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_part.done",
    "response.output_text.annotation.added",
    "keepalive",
)


def _failure(given: w.ResponsesEvent) -> Any:
    """Return the error of an event that ends a stream: in the event, or in its response."""
    if given.error is not None:
        return given.error
    if given.code is not None:
        return {"code": given.code}
    whole = msgspec.json.decode(given.response)
    return whole.get("error") if isinstance(whole, dict) else None


class ResponsesStream:
    """One streamed response; writes fresh events around text that was cleared."""

    def __init__(
        self, settled: Settled, *, opaque_reasoning: str, max_lanes: int, strainer: Strainer
    ) -> None:
        self._strainer = strainer
        self._settled = settled
        self._opaque_reasoning = opaque_reasoning
        self._lanes = Lanes(max_lanes)
        self.response_id = "resp_safehold"
        self._items: dict[str, ClientItem] = {}
        self._by_lane: dict[Lane, ItemText] = {}
        self._by_name: dict[Lane, ClientItem] = {}
        self._last: ClientItem | None = None
        self._final: w.Response | None = None
        self._begun = False
        self._sequence = 0
        self._writing: ClientItem | None = None
        self._part: ItemText | None = None
        self._written: list[dict[str, Any]] = []

    # -- what the upstream says ------------------------------------------------------------

    def read(self, event: bytes) -> Sequence[Piece]:
        """Take the data of one upstream event.

        Raises:
            BrokenReplyError: The event does not follow the protocol.
            UnknownReplyError: The event or its content is of an unknown kind.
        """
        if event == b"[DONE]":
            return ()
        given = self._strainer.reply(_EVENT, event)
        kind = GROWING.get(given.type)
        if kind is not None:
            part = self._find(given, kind)
            if part.read_closed:
                raise BrokenReplyError("upstream: expected no more text of a part that ended")
            text = given.delta or ""
            part.read += len(text)
            return (Delta(part.lane, text),) if text else ()
        kind = WHOLE.get(given.type)
        if kind is not None:
            told = {
                "refusal": given.refusal,
                "arguments": given.arguments,
                "input": given.input,
            }
            whole = told.get(kind, given.text)
            return self._end_part(self._find(given, kind), whole)
        return self._other(given)

    def _other(self, given: w.ResponsesEvent) -> Sequence[Piece]:
        match given.type:
            case "response.created" | "response.in_progress":
                begun = self._strainer.reply(_BEGUN, bytes(given.response))
                self._take(begun)
            case "response.output_item.added":
                return self._add(given)
            case "response.output_item.done":
                return self._end_item(given)
            case "response.completed" | "response.incomplete":
                self._final = self._strainer.reply(_RESPONSE, bytes(given.response))
                self._take(self._final)
                return self._rest(self._final)
            case "response.failed" | "error":
                raise told_error(_failure(given))
            case quiet if quiet in QUIET:
                pass
            case _ if self._strainer.drops_event(encode({"type": given.type}), ()):
                pass
            case _:
                raise UnknownReplyError("upstream: an event of an unknown type")
        return ()

    def _take(self, given: w.Begun | w.Response) -> None:
        if self._begun:
            return
        self.response_id = identifier(given.id, self.response_id)
        created = int(given.created_at or self._settled.created)
        model = model_name(given.model, self._settled.model)
        self._settled = msgspec.structs.replace(self._settled, created=created, model=model)

    def _add(self, given: w.ResponsesEvent) -> list[Piece]:
        return self._begin_item(self._strainer.reply(_ITEM, bytes(given.item)))

    def _begin_item(self, item: w.OutputItem) -> list[Piece]:
        number = len(self._items)
        key = item.id or f"item_{number}"
        if key in self._items:
            raise BrokenReplyError("upstream: expected a new item, came one that began before")
        pieces: list[Piece] = []
        call = getattr(item, "call_id", None)
        entry = ClientItem(
            kind_of(item), identifier(item.id, key), identifier(call, f"call_{number}")
        )
        self._items[key] = self._last = entry
        if isinstance(item, w.OutputCall | w.OutputCustomCall):
            entry.namespace = self._settled.namespace(item.namespace)
            lane = self._lanes.get(0, Channel.TOOL_NAME, number)
            self._by_name[lane] = entry
            pieces += [Delta(lane, item.name), Closed(lane)]
        elif isinstance(item, w.OutputReasoning) and item.encrypted_content:
            self._seal(entry, item.encrypted_content)
        return pieces

    def _seal(self, entry: ClientItem, secret: str) -> None:
        if self._opaque_reasoning == "refuse":
            raise UnknownReplyError("upstream: encrypted reasoning can't be scored")
        if self._opaque_reasoning == "pass":
            entry.secret = sealed(secret)
        else:
            self._strainer.dropped += 1

    def _find(self, given: w.ResponsesEvent, kind: str) -> ItemText:
        """Return the part that an event is about, opening it at its first mention."""
        item = self._items.get(given.item_id) if given.item_id else self._last
        if item is None:
            item = self._unannounced(given.item_id, kind)
        at = (given.summary_index if kind == "summary" else given.content_index) or 0
        return self._part_of(item, kind, at)

    def _unannounced(self, item_id: str | None, kind: str) -> ClientItem:
        """Begin the item of a server that does not announce its items (a call needs its name)."""
        if kind in ("arguments", "input"):
            raise BrokenReplyError("upstream: expected an event about an open item")
        number = len(self._items)
        key = item_id or f"item_{number}"
        of = "message" if kind in ("text", "refusal") else "reasoning"
        item = self._items[key] = self._last = ClientItem(of, identifier(item_id, key), "")
        return item

    def _part_of(self, item: ClientItem, kind: str, at: int) -> ItemText:
        part = item.parts.get((kind, at))
        if part is None:
            if kind not in ALLOWED.get(item.kind, ("action",)):
                raise BrokenReplyError("upstream: expected text of the item's own kind")
            lane = self._lanes.get(0, KINDS[kind], len(self._by_lane))
            part = item.parts[kind, at] = self._by_lane[lane] = ItemText(item, kind, lane, at)
        return part

    def _end_part(self, part: ItemText, whole: str | None) -> list[Piece]:
        """End a part; a server that sent no deltas gives its text only here."""
        if part.read_closed:
            return []
        part.read_closed = True
        rest = (whole or "")[part.read :]
        part.read += len(rest)
        return [Delta(part.lane, rest), Closed(part.lane)] if rest else [Closed(part.lane)]

    def _end_item(self, given: w.ResponsesEvent) -> list[Piece]:
        item = self._strainer.reply(_ITEM, bytes(given.item))
        entry = self._items.get(item.id) if item.id else self._last
        return self._whole_item(item, entry)

    def _whole_item(self, item: w.OutputItem, entry: ClientItem | None) -> list[Piece]:
        """End an item; what a server told only now is scored and delivered like any text."""
        pieces: list[Piece] = []
        if entry is None:
            pieces += self._begin_item(item)
            entry = self._last
        if entry is None or entry.kind != kind_of(item):
            raise BrokenReplyError("upstream: expected the end of an open item of its own kind")
        if isinstance(item, w.OutputReasoning) and item.encrypted_content:
            self._seal(entry, item.encrypted_content)
        for kind, at, text in texts_of(item):
            if text:
                pieces += self._end_part(self._part_of(entry, kind, at), text)
        for part in entry.parts.values():
            pieces += self._end_part(part, None)
        return pieces

    def _rest(self, final: w.Response) -> list[Piece]:
        """Return what a server told in its last event only."""
        entries = list(self._items.values())
        pieces: list[Piece] = []
        for index, item in enumerate(final.output):
            entry = self._items.get(item.id or "")
            if entry is None and index < len(entries):
                entry = entries[index]  # a server that renames its items
            pieces += self._whole_item(item, entry)
        return pieces

    @property
    def items(self) -> Mapping[str, bytes]:
        """What the client was shown, by the ids that a later request may name."""
        return {str(item["id"]): encode(item) for item in self._written}

    @property
    def complete(self) -> bool:
        """Whether the upstream gave its final response."""
        return self._final is not None

    @property
    def tokens(self) -> Tokens:
        """The upstream's token counts so far."""
        usage = self._final.usage if self._final else None
        return Tokens(usage.input_tokens, usage.output_tokens) if usage else Tokens()

    @property
    def refused(self) -> bool:
        """Whether the model itself refused."""
        return any(part.kind == "refusal" for part in self._by_lane.values())

    # -- what the client gets --------------------------------------------------------------

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        body = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return named(kind, encode(body))

    def _object(self, status: str) -> dict[str, Any]:
        return skeleton(self._settled, self.response_id, status)

    def begin(self) -> bytes:
        """Return the two opening events, once."""
        if self._begun:
            return b""
        self._begun = True
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
            self._by_name[lane].name_texts.append(text)
            return b""
        part = self._by_lane[lane]
        if part.kind == "action":
            part.texts.append(text)
            return b""
        frames = self._open_part(part) if not part.begun else b""
        part.texts.append(text)
        number = self._sequence
        self._sequence += 1
        return frames + part.prefix + b'%d,"delta":' % number + encode(text) + b"}\n\n"

    def close(self, lane: Lane) -> bytes:
        """Return the events that end a part whose text has all been released."""
        if lane.channel is Channel.TOOL_NAME:
            return self._open_item(self._by_name[lane])
        part = self._by_lane[lane]
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
        shown = item.shown(status)
        self._written.append(shown)
        fields = {"output_index": item.index, "item": shown}
        return frames + self._event("response.output_item.done", fields)

    def _last_event(self, kind: str, status: str, more: dict[str, Any]) -> bytes:
        usage = self._final.usage if self._final else None
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
        if self._final is not None and self._final.status == "incomplete":
            reason = (self._final.incomplete_details or {}).get("reason")
            known = reason if reason in ("max_output_tokens", "content_filter") else None
            more["incomplete_details"] = {"reason": known or "max_output_tokens"}
            return frames + self._last_event("response.incomplete", "incomplete", more)
        return frames + self._last_event("response.completed", "completed", more)

    def block(self, notice: Notice) -> bytes:
        """Return the events that end the stream with a refusal.

        The response is `completed`, with the reason beside it: agents take an incomplete response
        for a broken line, and ask again or raise.
        """
        frames = self.begin() + self._close_item("incomplete")
        item = ClientItem("message", f"msg_{notice.decision_id}", "")
        lane = Lane(channel=Channel.TEXT, index=len(self._by_lane))
        part = item.parts["text", 0] = self._by_lane[lane] = ItemText(item, "text", lane, 0)
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
