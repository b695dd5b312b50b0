"""The event stream of OpenAI Chat Completions, read from upstream."""

from collections.abc import Sequence

import msgspec

from safehold.exchange import Channel, Lane
from safehold.guard.gateway.interface import BrokenReplyError, Closed, Delta, Piece, Tokens
from safehold.guard.gateway.protocols.answer_words import choice_ending
from safehold.guard.gateway.protocols.chat.dialects import mend
from safehold.guard.gateway.protocols.chat.facts import IN_DELTA, LEGACY, ChatFacts
from safehold.guard.gateway.protocols.chat.wire import Chunk, ChunkChoice, ReplyDelta, ToolCallDelta
from safehold.guard.gateway.protocols.json_border import Lanes, encode, identifier, model_name
from safehold.guard.gateway.protocols.openai_endings import FILTERED
from safehold.guard.gateway.protocols.passed_fields import Field
from safehold.guard.gateway.protocols.repeated_events import PROBE, TRIES, Repeated, around
from safehold.guard.gateway.protocols.stream_errors import told_error
from safehold.guard.gateway.protocols.unknown_fields import Strainer

_CHUNK = msgspec.json.Decoder(Chunk)


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


class ChatReader:
    """Reads one streamed chat answer into texts by lane."""

    def __init__(
        self, facts: ChatFacts, *, choices: int, max_lanes: int, strainer: Strainer
    ) -> None:
        self._facts = facts
        self._choices = choices
        self._lanes = Lanes(max_lanes)
        self._strainer = strainer
        self._open: dict[int, list[Lane]] = {}
        self._opened: dict[tuple[int, Channel, int], Lane] = {}
        self._named: set[Lane] = set()
        self._said: dict[Lane, str] = {}
        self._given: dict[tuple[int, int], str] = {}
        self._refused = False
        self._indices: list[int] = []
        self._tries = TRIES
        self.again: Repeated | None = None
        self.ended = False

    def read(self, event: bytes) -> Sequence[Piece]:
        """Take the data of one upstream event.

        Raises:
            BrokenReplyError: The event does not follow the protocol.
            UnknownReplyError: The event or its content is of an unknown kind.
        """
        self.again = None
        if event == b"[DONE]" or self.ended:
            self.ended = True
            return ()
        chunk = self._strainer.reply(_CHUNK, event, mend)
        if chunk.error is not None:
            raise told_error(chunk.error)
        if self._facts.response_id is None and chunk.id:
            self._facts.response_id = identifier(chunk.id, "")
            self._facts.model = model_name(chunk.model, self._facts.model)
            self._facts.created = chunk.created or self._facts.created
        if chunk.usage is not None:
            self._facts.usage = chunk.usage
        if self._strainer.passed:
            return self._with_fields(chunk)
        pieces: list[Piece] = []
        for choice in chunk.choices:
            self._choice(choice, pieces)
        if self._tries and len(pieces) == 1:
            self._learn(event, chunk, pieces[0])
        return pieces

    def _learn(self, event: bytes, chunk: Chunk, piece: Piece) -> None:
        """Keep the frame of an event that brought a choice's text and nothing else."""
        if type(piece) is not Delta or piece.lane.channel is not Channel.TEXT:
            return
        self._tries -= 1
        bare = chunk.usage is None and self._facts.chosen is None and piece.heard is None
        found = around(event, piece.text, b"content") if bare else None
        if found is None:
            return
        try:
            probe = _CHUNK.decode(encode(PROBE).join(found))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # a dialect's: it is mended and strained each time
        for choice in probe.choices:
            if choice.delta.content == PROBE:
                choice.delta.content = piece.text
        if probe == chunk and piece.lane.choice not in self._facts.finish:
            self.again, self._tries = Repeated(piece.lane, *found), TRIES

    def _with_fields(self, chunk: Chunk) -> list[Piece]:
        """Read an event that brings unknown fields: a choice's own come before its end."""
        pieces: list[Piece] = []
        fields = self._strainer.taken()
        for at, choice in enumerate(chunk.choices):
            finish, choice.finish_reason = choice.finish_reason, None
            self._indices = []
            self._choice(choice, pieces)
            for field in [one for one in fields if one.place[:2] == ("choices", at)]:
                pieces += self._field(choice.index, field)
            if choice_ending(finish) is not None:
                pieces += self._facts.fields.close(choice.index)
                self._choice(ChunkChoice(ReplyDelta(), choice.index, finish), pieces)
        for field in fields:
            if not field.place:
                pieces += self._facts.fields.take(None, field, self._lanes)
            elif field.place[0] != "choices":
                self._strainer.dropped += 1
        return pieces

    def _field(self, choice: int, field: Field) -> list[Piece]:
        match field.place[2:]:
            case ():
                place: tuple[int, int | None, str | None] = (choice, None, None)
            case ("delta",):
                place = (choice, IN_DELTA, None)
            case ("delta", "tool_calls", int() as at):
                place = (choice, self._indices[at], None)
            case ("delta", "tool_calls", int() as at, ("function" | "custom") as inner):
                place = (choice, self._indices[at], inner)
            case _:
                self._strainer.dropped += 1
                return []
        placed = msgspec.structs.replace(field, place=place)
        return self._facts.fields.take(choice, placed, self._lanes)

    def _choice(self, choice: ChunkChoice, pieces: list[Piece]) -> None:
        at, delta = choice.index, choice.delta
        if not 0 <= at < self._choices:
            raise BrokenReplyError("upstream: expected the asked number of choices, came more")
        if at in self._facts.finish and _says(delta):
            raise BrokenReplyError("upstream: expected nothing after a choice's finish reason")
        if delta.content:
            lane = self._lane(at, Channel.TEXT, 0)
            if self._facts.chosen is not None and choice.logprobs is not None:
                given = choice.logprobs.content or []
                self._facts.chosen.add(
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
            self._indices.append(self._call(at, call, pieces))
        finish = choice_ending(choice.finish_reason)
        if finish is not None:
            self._facts.finish[at] = finish
            self._refused = self._refused or finish == FILTERED
            self._end_choice(at, pieces)

    def _end_choice(self, at: int, pieces: list[Piece]) -> None:
        """Close what the choice left open: tool names without arguments, then every text."""
        for choice, index in self._facts.calls:
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

    def _call(self, at: int, call: ToolCallDelta, pieces: list[Piece]) -> int:
        """Read a piece of a tool call, return its index; its name ends where its arguments begin.

        Raises:
            BrokenReplyError: The call is of an unknown kind, or was named twice.
        """
        if call.type not in (None, "", "function", "custom"):
            raise BrokenReplyError("upstream: expected calls of known kinds, came another")
        index = self._which(at, call)
        key = (at, index)
        name_lane = self._lanes.get(at, Channel.TOOL_NAME, index)
        if key not in self._facts.calls:
            self._facts.calls[key] = identifier(call.id, f"call_{at}_{index}")
            self._given[key] = call.id or ""
            self._facts.custom[key] = call.type == "custom" or call.custom is not None
        name, given = _name_and_input(call, custom=self._facts.custom[key])
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
        return index

    def _which(self, at: int, call: ToolCallDelta) -> int:
        """Return a call's index; without one, a new id or a name begins the next call."""
        if call.index is not None:
            return call.index
        indices = [index for choice, index in self._facts.calls if choice == at and index != LEGACY]
        last = max(indices, default=-1)
        if last < 0 or (call.id and call.id != self._given[at, last]):
            return last + 1
        named = self._lanes.get(at, Channel.TOOL_NAME, last) in self._named
        fresh = not call.id and bool(_name_and_input(call, custom=call.custom is not None)[0])
        return last + 1 if named and fresh else last

    @property
    def complete(self) -> bool:
        """Whether every choice was finished; `[DONE]` alone is no finish."""
        return len(self._facts.finish) >= self._choices

    @property
    def tokens(self) -> Tokens:
        """The upstream's token counts so far."""
        usage = self._facts.usage
        return Tokens(usage.prompt_tokens, usage.completion_tokens) if usage else Tokens()

    @property
    def refused(self) -> bool:
        """Whether the model itself refused."""
        return self._refused
