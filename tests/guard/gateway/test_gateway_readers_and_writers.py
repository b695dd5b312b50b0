"""Each half of a streamed answer works without the other."""

from collections.abc import Callable

import pytest

from safehold.exchange import Channel, Lane
from safehold.guard.gateway.interface import (
    REFUSAL,
    Closed,
    Delta,
    Notice,
    Rules,
    StreamReader,
    StreamWriter,
)
from safehold.guard.gateway.protocols.chat.facts import ChatFacts
from safehold.guard.gateway.protocols.chat.reader import ChatReader
from safehold.guard.gateway.protocols.chat.writer import ChatWriter
from safehold.guard.gateway.protocols.completions.facts import CompletionFacts
from safehold.guard.gateway.protocols.completions.reader import CompletionReader
from safehold.guard.gateway.protocols.completions.writer import CompletionWriter
from safehold.guard.gateway.protocols.messages.facts import MessagesFacts
from safehold.guard.gateway.protocols.messages.reader import MessagesReader
from safehold.guard.gateway.protocols.messages.writer import MessagesWriter
from safehold.guard.gateway.protocols.responses.facts import ResponsesFacts
from safehold.guard.gateway.protocols.responses.items import ClientItem, ItemText
from safehold.guard.gateway.protocols.responses.reader import ResponsesReader
from safehold.guard.gateway.protocols.responses.response_object import Settled
from safehold.guard.gateway.protocols.responses.writer import ResponsesWriter
from safehold.guard.gateway.protocols.unknown_fields import Strainer

LANE = Lane(channel=Channel.TEXT)


def _chat_reader() -> StreamReader:
    return ChatReader(ChatFacts("m", 1, None), choices=1, max_lanes=8, strainer=Strainer(Rules()))


def _completion_reader() -> StreamReader:
    return CompletionReader(CompletionFacts("m", 1), choices=1, strainer=Strainer(Rules()))


def _messages_reader() -> StreamReader:
    return MessagesReader(
        MessagesFacts("m"), opaque_reasoning="drop", max_lanes=8, strainer=Strainer(Rules())
    )


def _responses_facts() -> ResponsesFacts:
    return ResponsesFacts(
        Settled(
            model="m",
            created=1,
            instructions=None,
            tools=[],
            tool_choice="auto",
            parallel=True,
            temperature=None,
            top_p=None,
            metadata={},
            previous=None,
        )
    )


def _responses_reader() -> StreamReader:
    return ResponsesReader(
        _responses_facts(), opaque_reasoning="drop", max_lanes=8, strainer=Strainer(Rules())
    )


def _responses_writer() -> StreamWriter:
    facts = _responses_facts()
    facts.by_lane[LANE] = ItemText(ClientItem("message", "msg_1", ""), "text", LANE, 0)
    facts.by_lane[LANE].item.parts["text", 0] = facts.by_lane[LANE]
    return ResponsesWriter(facts)


READERS: dict[Callable[[], StreamReader], list[bytes]] = {
    _chat_reader: [
        b'{"choices":[{"index":0,"delta":{"content":"soap"}}]}',
        b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
    ],
    _completion_reader: [
        b'{"choices":[{"index":0,"text":"soap"}]}',
        b'{"choices":[{"index":0,"text":"","finish_reason":"stop"}]}',
    ],
    _messages_reader: [
        b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"soap"}}',
        b'{"type":"content_block_stop","index":0}',
        b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}',
    ],
    _responses_reader: [
        (
            b'{"type":"response.output_item.added","output_index":0,"item":{"type":"message",'
            b'"id":"msg_1","role":"assistant","status":"in_progress","content":[]}}'
        ),
        (
            b'{"type":"response.output_text.delta","item_id":"msg_1","output_index":0,'
            b'"content_index":0,"delta":"soap"}'
        ),
        (
            b'{"type":"response.completed","response":{"id":"resp_1","object":"response",'
            b'"status":"completed","model":"m","output":[{"type":"message","id":"msg_1",'
            b'"role":"assistant","status":"completed","content":[{"type":"output_text",'
            b'"text":"soap","annotations":[]}]}]}}'
        ),
    ],
}

WRITERS: list[Callable[[], StreamWriter]] = [
    lambda: ChatWriter(ChatFacts("m", 1, None), choices=1, usage=False),
    lambda: CompletionWriter(CompletionFacts("m", 1), choices=1, usage=False),
    lambda: MessagesWriter(MessagesFacts("m"), stops=()),
    _responses_writer,
]


@pytest.mark.parametrize("reader", READERS)
def test_an_upstream_is_read_with_nobody_to_write_for(reader: Callable[[], StreamReader]) -> None:
    """The text comes with its lane, the lane is closed, and the answer is known to be complete."""
    half = reader()
    pieces = [piece for event in READERS[reader] for piece in half.read(event)]
    assert [piece.text for piece in pieces if isinstance(piece, Delta)] == ["soap"]
    assert isinstance(pieces[-1], Closed)
    assert half.complete


@pytest.mark.parametrize("writer", WRITERS)
def test_a_client_is_answered_with_nothing_read(writer: Callable[[], StreamWriter]) -> None:
    """Cleared text and a valid ending come out though no upstream said a word."""
    half = writer()
    frames = half.begin() + half.release(LANE, "soap") + half.close(LANE) + half.end()
    repeated = 4 if writer is _responses_writer else 0  # whole, in the events that end its parts
    assert frames.count(b'"soap"') == 1 + repeated
    *_, last, end = frames.split(b"\n\n")
    assert end == b""
    assert any(word in last for word in (b"[DONE]", b"message_stop", b"response.completed"))


@pytest.mark.parametrize("writer", WRITERS)
def test_a_block_needs_no_upstream(writer: Callable[[], StreamWriter]) -> None:
    """A prompt that was refused is answered by a writer alone."""
    frames = writer().block(Notice(decision_id="d1", category="bio"))
    assert REFUSAL.encode() in frames
    assert b"d1" in frames
