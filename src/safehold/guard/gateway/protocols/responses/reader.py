"""The event stream of OpenAI Responses, read from upstream.

Upstream events that repeat a whole text (`…done`, `response.completed`) are never passed on: what
the client gets of them is built from the text that was released.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from safehold.exchange import Channel, Lane
from safehold.guard.gateway.interface import (
    BrokenReplyError,
    Closed,
    Delta,
    Piece,
    Tokens,
    UnknownReplyError,
)
from safehold.guard.gateway.protocols.json_border import (
    Lanes,
    encode,
    identifier,
    model_name,
    sealed,
)
from safehold.guard.gateway.protocols.passed_fields import Field
from safehold.guard.gateway.protocols.responses import wire as w
from safehold.guard.gateway.protocols.responses.facts import ResponsesFacts
from safehold.guard.gateway.protocols.responses.items import (
    ALLOWED,
    GROWING,
    KINDS,
    WHOLE,
    ClientItem,
    ItemText,
    kind_of,
    texts_of,
)
from safehold.guard.gateway.protocols.stream_errors import told_error
from safehold.guard.gateway.protocols.unknown_fields import Strainer

_EVENT = msgspec.json.Decoder(w.ResponsesEvent)
_BEGUN = msgspec.json.Decoder(w.Begun)
_RESPONSE = msgspec.json.Decoder(w.Response)
_ITEM: msgspec.json.Decoder[w.OutputItem] = msgspec.json.Decoder(w.OutputItem)

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


class ResponsesReader:
    """Reads one streamed response into texts by lane."""

    again: None = None

    def __init__(
        self, facts: ResponsesFacts, *, opaque_reasoning: str, max_lanes: int, strainer: Strainer
    ) -> None:
        self._facts = facts
        self._strainer = strainer
        self._opaque_reasoning = opaque_reasoning
        self._lanes = Lanes(max_lanes)
        self._items: dict[str, ClientItem] = {}
        self._last: ClientItem | None = None
        self._taken: dict[Lane, int] = {}
        self._ended: set[Lane] = set()
        self._fields_read: set[tuple[str, Any, str]] = set()

    def read(self, event: bytes) -> Sequence[Piece]:
        """Take the data of one upstream event.

        Raises:
            BrokenReplyError: The event does not follow the protocol.
            UnknownReplyError: The event or its content is of an unknown kind.
        """
        if event == b"[DONE]" or self.ended:
            return ()
        given = self._strainer.reply(_EVENT, event)
        if self._strainer.passed:  # of the event, which is written anew
            self._strainer.dropped += len(self._strainer.taken())
        kind = GROWING.get(given.type)
        if kind is not None:
            part = self._find(given, kind)
            if part.lane in self._ended:
                raise BrokenReplyError("upstream: expected no more text of a part that ended")
            text = given.delta or ""
            self._taken[part.lane] = self._taken.get(part.lane, 0) + len(text)
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
                self._facts.final = self._strainer.reply(_RESPONSE, bytes(given.response))
                self._take(self._facts.final)
                return self._rest(self._facts.final)
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
        if self._facts.begun:
            return
        self._facts.response_id = identifier(given.id, self._facts.response_id)
        created = int(given.created_at or self._facts.settled.created)
        model = model_name(given.model, self._facts.settled.model)
        self._facts.settled = msgspec.structs.replace(
            self._facts.settled, created=created, model=model
        )

    def _add(self, given: w.ResponsesEvent) -> list[Piece]:
        pieces = self._begin_item(self._strainer.reply(_ITEM, bytes(given.item)))
        return pieces + self._fields(self._last, self._strainer.taken())

    def _fields(self, item: ClientItem | None, fields: Sequence[Field]) -> list[Piece]:
        """Take an item's unknown fields, each once; they end at once, so that the item can end."""
        pieces: list[Piece] = []
        for field in fields:
            key = (item.item_id if item else "", field.place, field.name)
            if item is None or key in self._fields_read:
                continue
            self._fields_read.add(key)
            placed = msgspec.structs.replace(field, place=(item, field.place))
            pieces += self._facts.fields.take(item.item_id, placed, self._lanes)
        return pieces + (self._facts.fields.close(item.item_id) if item and pieces else [])

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
        entry.learn_phase(item)
        if isinstance(item, w.OutputCall | w.OutputCustomCall):
            entry.namespace = self._facts.settled.namespace(item.namespace)
            lane = self._lanes.get(0, Channel.TOOL_NAME, number)
            self._facts.by_name[lane] = entry
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
            lane = self._lanes.get(0, KINDS[kind], len(self._facts.by_lane))
            part = item.parts[kind, at] = self._facts.by_lane[lane] = ItemText(item, kind, lane, at)
        return part

    def _end_part(self, part: ItemText, whole: str | None) -> list[Piece]:
        """End a part; a server that sent no deltas gives its text only here."""
        if part.lane in self._ended:
            return []
        self._ended.add(part.lane)
        rest = (whole or "")[self._taken.get(part.lane, 0) :]
        return [Delta(part.lane, rest), Closed(part.lane)] if rest else [Closed(part.lane)]

    def _end_item(self, given: w.ResponsesEvent) -> list[Piece]:
        item = self._strainer.reply(_ITEM, bytes(given.item))
        fields = self._strainer.taken()
        entry = self._items.get(item.id) if item.id else self._last
        pieces = self._whole_item(item, entry)
        return pieces + self._fields(entry or self._last, fields)

    def _whole_item(self, item: w.OutputItem, entry: ClientItem | None) -> list[Piece]:
        """End an item; what a server told only now is scored and delivered like any text."""
        pieces: list[Piece] = []
        if entry is None:
            pieces += self._begin_item(item)
            entry = self._last
        if entry is None or entry.kind != kind_of(item):
            raise BrokenReplyError("upstream: expected the end of an open item of its own kind")
        entry.learn_phase(item)
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
        fields = self._strainer.taken()
        for index, item in enumerate(final.output):
            entry = self._items.get(item.id or "")
            if entry is None and index < len(entries):
                entry = entries[index]  # a server that renames its items
            pieces += self._whole_item(item, entry)
            own = [
                msgspec.structs.replace(field, place=field.place[2:])
                for field in fields
                if field.place[:2] == ("output", index)
            ]
            pieces += self._fields(entry or self._last, own)
        return pieces

    @property
    def ended(self) -> bool:
        """Whether nothing more is read."""
        return self._facts.final is not None

    @property
    def complete(self) -> bool:
        """Whether the upstream gave its final response."""
        return self.ended

    @property
    def tokens(self) -> Tokens:
        """The upstream's token counts so far."""
        usage = self._facts.final.usage if self._facts.final else None
        return Tokens(usage.input_tokens, usage.output_tokens) if usage else Tokens()

    @property
    def refused(self) -> bool:
        """Whether the model itself refused."""
        return any(part.kind == "refusal" for part in self._facts.by_lane.values())
