"""Unknown fields of a reply under `pass`: their strings leave once scored, nothing else does."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from gateway_wire import PATHS, body_for
from hypothesis import given
from hypothesis import strategies as st
from test_gateway_dialects import SECRET, VALUES, WHOLES, objects, parsed, with_field

from safehold.errors import UpstreamError
from safehold.guard.gateway.interface import Call, Closed, Delta, Notice, Piece, Stream
from safehold.testing.upstream import SaidRun, Script, chat_whole, messages_whole, responses_whole

SIGNATURE = "c2lnbmF0dXJlLW9mLXRoZS12ZW5kb3I="
TOOLS = Script(said=(SaidRun(("Hello",)), SaidRun(('{"a":', "1}"), channel="tool")))
CALLS = {
    PATHS[0]: chat_whole(TOOLS),
    PATHS[1]: messages_whole(TOOLS),
    PATHS[2]: responses_whole(TOOLS),
}


def call_of(path: str, **rules: str) -> Call:
    """Parse a request whose reply's unknown fields pass."""
    return parsed(
        path, body_for(path, "hi", stream=False), **{"unknown_reply_fields": "pass"} | rules
    )


def whole_of(call: Call, reply: Any) -> tuple[str, str]:
    """Return what is scored of a whole answer, a line a piece, and what the client gets."""
    answer = call.whole(json.dumps(reply).encode())
    return "\n".join(piece.text for piece in answer.pieces()), answer.render().decode()


def shown_times(said: str) -> int:
    """Count what a client was shown; Responses tells its items again in its last event."""
    return said.partition("event: response.completed")[0].count(SECRET)


class Held:
    """A client behind a session that releases all but the last `held` characters of a lane."""

    def __init__(self, stream: Stream, held: int) -> None:
        self.stream, self.held = stream, held
        self.tails: dict[Any, str] = {}
        self.by_lane: dict[Any, str] = {}
        self.frames = stream.begin()

    def take(self, pieces: Sequence[Piece]) -> None:
        """Score and release pieces as the delivery does."""
        for piece in pieces:
            text = self.tails.get(piece.lane, "")
            if isinstance(piece, Delta):
                text += piece.text
                cut = max(len(text) - self.held, 0)
                self._release(piece.lane, text[:cut])
                self.tails[piece.lane] = text[cut:]
            else:
                self._release(piece.lane, self.tails.pop(piece.lane, ""))
                self.frames += self.stream.close(piece.lane)
            said = self.frames.decode()
            assert shown_times(said) <= self.released.count(SECRET), "text left before its verdict"

    def _release(self, lane: Any, text: str) -> None:
        if text:
            self.by_lane[lane] = self.by_lane.get(lane, "") + text
            self.frames += self.stream.release(lane, text)

    @property
    def released(self) -> str:
        """What was released, a line a lane."""
        return "\n".join(self.by_lane.values())

    def end(self) -> str:
        """Release every tail, end, and return all that the client got."""
        for lane, text in list(self.tails.items()):
            self._release(lane, text)
        self.frames += self.stream.end()
        return self.frames.decode()


@pytest.mark.parametrize("path", PATHS)
@given(data=st.data())
def test_unknown_strings_of_a_whole_answer_leave_only_scored(
    path: str, data: st.DataObject
) -> None:
    """Wherever an unknown field stands, what the client gets of it was among the scored texts."""
    whole = data.draw(st.sampled_from([WHOLES[path], CALLS[path]]))
    at = data.draw(st.sampled_from(objects(whole)))
    value = data.draw(VALUES)
    scored, shown = whole_of(call_of(path), with_field(whole, at, "novel", value))
    assert shown.count(SECRET) <= scored.count(SECRET)
    assert "Hello" in scored


@pytest.mark.parametrize("path", PATHS)
@given(data=st.data(), held=st.integers(0, 40))
def test_unknown_strings_of_a_stream_leave_only_after_their_verdict(
    path: str, data: st.DataObject, held: int
) -> None:
    """Unknown fields in events, at any depth, never run ahead of what the session released."""
    call = call_of(path)
    events = [json.loads(one) for one in call.events(json.dumps(CALLS[path]).encode())]
    for number in data.draw(st.lists(st.integers(0, len(events) - 1), max_size=3)):
        at = data.draw(st.sampled_from(objects(events[number])))
        events[number] = with_field(events[number], at, "novel", data.draw(VALUES))
    client = Held(call.stream(), held)
    for event in events:
        client.take(client.stream.read(json.dumps(event).encode()))
    said = client.end()
    assert shown_times(said) <= client.released.count(SECRET)
    assert "Hello" in client.released


PLACES = {
    PATHS[0]: [
        ("choices", 0, "message"),
        ("choices", 0),
        (),
        ("choices", 0, "message", "tool_calls", 0),
    ],
    PATHS[1]: [("content", 0), ("content", 1), ()],
    PATHS[2]: [("output", 0), ("output", 1)],
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("streamed", [False, True])
def test_unknown_string_really_passes(path: str, *, streamed: bool) -> None:
    """Under `pass` the client gets a field's strings at their place; its numbers stay here."""
    for at in PLACES[path]:
        reply = with_field(CALLS[path], at, "novel", {"who": SECRET, "ids": [1, 2], "n": 7})
        call = call_of(path)
        if streamed:
            client = Held(call.stream(), 3)
            for event in call.events(json.dumps(reply).encode()):
                client.take(client.stream.read(event))
            said = client.end()
        else:
            said = whole_of(call, reply)[1]
        assert f'"novel":{{"who":"{SECRET}"}}' in said, (at, said)
        assert call.dropped >= 2, at


def test_field_in_pieces_is_read_as_one_text() -> None:
    """A phrase cut over the pieces of a streamed field is one text of its lane."""
    call = parsed(PATHS[0], body_for(PATHS[0], "hi"), unknown_reply_fields="pass")
    stream = call.stream()
    texts: dict[Any, str] = {}
    for part in ("purple", "-ele", "phant"):
        detail = [{"type": "reasoning.text", "text": part}]
        delta = {"content": "x", "reasoning_details": detail}
        event = {"id": "c", "choices": [{"index": 0, "delta": delta}]}
        for piece in stream.read(json.dumps(event).encode()):
            if isinstance(piece, Delta):
                texts[piece.lane] = texts.get(piece.lane, "") + piece.text
    assert SECRET in texts.values()


def test_block_before_the_verdict_shows_no_field() -> None:
    """A stream that is blocked shows none of a field whose text was still held."""
    call = call_of(PATHS[0])
    client = Held(call.stream(), 40)
    events = call.events(json.dumps(with_field(CALLS[PATHS[0]], (), "novel", SECRET)).encode())
    for event in events:
        client.take(client.stream.read(event))
    client.frames += client.stream.block(Notice("dec", "policy"))
    assert SECRET not in client.frames.decode()


SEALED: list[tuple[tuple[Any, ...], str, Any]] = [
    (
        ("choices", 0, "message", "tool_calls", 0),
        "extra_content",
        {"google": {"thought_signature": SIGNATURE}},
    ),
    (
        ("choices", 0, "message"),
        "reasoning_details",
        [{"type": "reasoning.encrypted", "data": SIGNATURE, "id": "r1", "format": "google-v1"}],
    ),
    (("choices", 0, "message"), "thought_signature", SIGNATURE),
]


@pytest.mark.parametrize(("at", "name", "value"), SEALED)
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("unknown", ["drop", "pass"])
def test_signature_of_a_dialect_follows_the_policy(
    at: tuple[Any, ...], name: str, value: Any, unknown: str, *, streamed: bool
) -> None:
    """`opaque_reasoning` drops, passes or refuses a vendor's signature, both ways, unscored."""
    reply = with_field(CALLS[PATHS[0]], at, name, value)
    sent = body_for(PATHS[0], "hi") | {
        "messages": [reply["choices"][0]["message"], {"role": "user", "content": "go on"}]
    }
    for policy in ("drop", "pass", "refuse"):
        rules = {
            "unknown_reply_fields": unknown,
            "unknown_request_fields": unknown,
            "opaque_reasoning": policy,
        }
        call = parsed(PATHS[0], body_for(PATHS[0], "hi"), **rules)
        events = call.events(json.dumps(reply).encode()) if streamed else []
        if policy == "refuse":
            with pytest.raises(UpstreamError, match="encrypted reasoning"):
                [call.stream().read(one) for one in events] if streamed else whole_of(call, reply)
            continue
        if streamed:
            client = Held(call.stream(), 3)
            for event in events:
                client.take(client.stream.read(event))
            said, scored = client.end(), client.released
        else:
            scored, said = whole_of(call, reply)
        assert (SIGNATURE in said) is (policy == "pass")
        assert SIGNATURE not in scored
        if at[-1] != "message" or name != "thought_signature":
            again = parsed(PATHS[0], sent, **rules)
            assert (SIGNATURE in again.body("m").decode()) is (policy == "pass")
            assert SIGNATURE not in "\n".join(part.text for part in again.exchange.texts())


NAMED: list[Any] = [
    {SECRET: {"thought_signature": SIGNATURE}},
    [{"google": {SECRET: [{"signature": SIGNATURE}]}}],
    {"google": {"signature": SIGNATURE, SECRET: "fine"}},
    {SECRET: "fine"},
]


@pytest.mark.parametrize("value", NAMED)
@pytest.mark.parametrize("unknown", ["drop", "pass"])
@pytest.mark.parametrize("path", PATHS)
def test_words_in_the_names_around_a_signature_are_scored(
    path: str, unknown: str, value: Any
) -> None:
    """A name is text: it goes on with what it names only where it was scored, both ways."""
    rules = {
        "unknown_reply_fields": unknown,
        "unknown_request_fields": unknown,
        "opaque_reasoning": "pass",
    }
    for name in ("extra_content", SECRET):
        call = call_of(path, **rules)
        reply = with_field(CALLS[path], objects(CALLS[path])[-1], name, value)
        scored, said = whole_of(call, reply)
        assert SECRET not in said or SECRET in scored
        client = Held(call_of(path, **rules).stream(), 3)
        for event in call.events(json.dumps(reply).encode()):
            client.take(client.stream.read(event))
        assert SECRET not in client.end() or SECRET in client.released
        sent = body_for(path, "hi") | {name: value}
        asked = parsed(path, sent, **rules)
        prompt = "\n".join(part.text for part in asked.exchange.texts())
        assert SECRET not in asked.body("m").decode() or SECRET in prompt


@pytest.mark.parametrize("value", [1, True, 0.5, [1, 2]])
def test_the_name_of_a_number_in_a_request_is_scored(value: Any) -> None:
    """A field that nobody knows goes on under `pass`: so do the words that name it, scored."""
    sent = body_for(PATHS[0], "hi") | {SECRET: value}
    asked = parsed(PATHS[0], sent, unknown_request_fields="pass")
    assert SECRET in asked.body("m").decode()
    assert SECRET in "\n".join(part.text for part in asked.exchange.texts())
    known = parsed(PATHS[0], body_for(PATHS[0], "hi") | {"top_k": 3}, unknown_request_fields="pass")
    assert "top_k" not in "\n".join(part.text for part in known.exchange.texts())


def test_plain_words_under_a_signatures_name_are_text() -> None:
    """What is no base64, or too short for a signature, is scored like any other string."""
    for words in ("purple elephant protocol, said plainly", "short"):
        reply = with_field(CALLS[PATHS[0]], ("choices", 0), "thought_signature", words)
        scored, said = whole_of(call_of(PATHS[0], opaque_reasoning="pass"), reply)
        assert words in scored
        assert words in said


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("streamed", [False, True])
def test_field_of_very_many_places_is_dropped_and_costs_no_answer(
    path: str, *, streamed: bool
) -> None:
    """Bookkeeping with a thousand names is left out, unscored and undelivered; the text arrives."""
    many = {f"k{number}": SECRET for number in range(1000)}
    reply = with_field(CALLS[path], PLACES[path][0], "novel", many)
    call = call_of(path)
    if streamed:
        client = Held(call.stream(), 3)
        for event in call.events(json.dumps(reply).encode()):
            client.take(client.stream.read(event))
        said, scored = client.end(), client.released
    else:
        scored, said = whole_of(call, reply)
    assert "Hello" in scored
    assert SECRET not in said
    assert call.dropped >= 1


def test_completion_streamed_unasked_is_joined_and_its_unknown_fields_dropped() -> None:
    """`/v1/completions` has no place for other fields; a stream of it is joined like the rest."""
    asked = {"model": "m", "prompt": "hi"}
    call = parsed("/v1/completions", asked, unknown_reply_fields="pass")
    pieces = [{"text": "Hel", "index": 0}, {"text": "lo", "index": 0, "finish_reason": "stop"}]
    events = [json.dumps({"id": "c", "novel": SECRET, "choices": [one]}) for one in pieces]
    whole = call.whole(call.assembled([one.encode() for one in events]))
    assert [piece.text for piece in whole.pieces()] == ["Hello"]
    assert SECRET not in whole.render().decode()
    assert call.dropped == 2


def test_closed_lane_is_never_fed_again() -> None:
    """A field after its block's end opens lanes of its own."""
    call = call_of(PATHS[0])
    stream = call.stream()
    closed: set[Any] = set()
    finish = {"index": 0, "delta": {"novel": "a"}, "finish_reason": "stop"}
    late = {"index": 0, "delta": {"novel": "b"}}
    for choice in (finish, late):
        for piece in stream.read(json.dumps({"id": "c", "choices": [choice]}).encode()):
            assert piece.lane not in closed
            if isinstance(piece, Closed):
                closed.add(piece.lane)


RESPONSES_EVENTS: tuple[dict[str, Any], ...] = (
    {"type": "response.created", "response": {"id": "r", "model": "m", "output": []}},
    {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {"id": "i", "type": "message", "role": "assistant", "content": []},
    },
    {
        "type": "response.output_text.delta",
        "output_index": 0,
        "item_id": "i",
        "content_index": 0,
        "delta": "Hello",
    },
    {
        "type": "response.output_item.done",
        "output_index": 0,
        "item": {
            "id": "i",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
        },
    },
    {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": []}},
)


@pytest.mark.parametrize("policy", ["drop", "pass"])
@pytest.mark.parametrize("at", range(len(RESPONSES_EVENTS)))
def test_unknown_field_of_a_responses_event_is_dropped_and_counted(at: int, policy: str) -> None:
    """Beside an event's own fields there is no place for others: the text comes, they do not."""
    call = parsed(PATHS[2], body_for(PATHS[2], "hi"), unknown_reply_fields=policy)
    stream = call.stream()
    client = Held(stream, 0)
    for number, event in enumerate(RESPONSES_EVENTS):
        more = {"novel": SECRET, "who": {"said": [SECRET]}} if number == at else {}
        client.take(stream.read(json.dumps(event | more).encode()))
    said = client.end()
    assert stream.complete
    assert "Hello" in said
    assert SECRET not in said
    assert SECRET not in client.released
    assert call.dropped == 2


def test_unknown_field_of_a_messages_event_is_dropped_and_counted() -> None:
    """The event around a block's delta has no place for a field; the delta itself has."""
    call = parsed(PATHS[1], body_for(PATHS[1], "hi"), unknown_reply_fields="pass")
    stream = call.stream()
    block = {"type": "text", "text": ""}
    start = {"type": "content_block_start", "index": 0, "content_block": block}
    stream.read(json.dumps(start).encode())
    delta = {"type": "text_delta", "text": "Hello"}
    event = {"type": "content_block_delta", "index": 0, "delta": delta, "novel": SECRET}
    pieces = stream.read(json.dumps(event).encode())
    assert [piece.text for piece in pieces if isinstance(piece, Delta)] == ["Hello"]
    assert call.dropped == 1
