"""Events whose frame comes again are read by their text alone: as if each were read in full."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.errors import SafeholdError
from safehold.guard.gateway.interface import Piece, Rules, Stream
from safehold.guard.gateway.protocols.chat.codec import ChatCodec
from safehold.guard.gateway.protocols.messages.codec import MessagesCodec
from safehold.guard.gateway.relaying.delivery import merged

_TEXTS = ("a ", "b", '"', "\\", "\u00e9", "\U0001f9fc", "\n", "", "</x>", "null", '"}}]}', "\x01")


def _stream(codec: ChatCodec | MessagesCodec) -> Stream:
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    return codec.parse(json.dumps(body | {"max_tokens": 99}).encode(), Rules()).stream()


def _event(delta: dict[str, Any], *, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "c1", "model": "m", "choices": [choice], **more}).encode()


def _one_by_one(
    codec: ChatCodec | MessagesCodec, events: Sequence[bytes]
) -> tuple[list[Piece], str]:
    """Read each event in full, whatever was read before it."""
    stream, pieces = _stream(codec), list[Piece]()
    try:
        for event in events:
            stream._reader.again = None  # type: ignore[attr-defined]
            pieces += stream.read(event)
    except SafeholdError as error:
        return merged(pieces), str(error)
    return merged(pieces), ""


def _at_once(codec: ChatCodec | MessagesCodec, events: Sequence[bytes]) -> tuple[list[Piece], str]:
    stream, pieces = _stream(codec), list[Piece]()
    try:
        pieces.extend(stream.read_all(events))
    except SafeholdError as error:
        return merged(pieces), str(error)
    return merged(pieces), ""


_DELTAS = st.one_of(
    st.builds(lambda text: _event({"content": text}), st.sampled_from(_TEXTS)),
    st.builds(lambda text: _event({"content": text}), st.text(max_size=8)),
    st.builds(lambda text: _event({"reasoning": text, "content": "x"}), st.sampled_from(_TEXTS)),
    st.builds(lambda text: _event({"content": text, "extra": text}), st.sampled_from(_TEXTS)),
    st.builds(lambda text: _event({"content": text}, obfuscation=text), st.sampled_from(_TEXTS)),
    st.builds(
        lambda count: _event({"content": "u"}, usage={"total_tokens": count}), st.integers(0, 3)
    ),
    st.just(_event({"content": "end"}, finish="stop")),
    st.just(_event({}, finish="stop")),
    st.just(b"[DONE]"),
)
_BROKEN = st.sampled_from(
    tuple(
        b'{"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {"content": %s}, '
        b'"finish_reason": null}]}' % content
        for content in (b'"a", "b": "c"', b'"a" "b"', b"5", b'"\xff"', b'"\\ud800"', b'"')
    )
)


@given(events=st.lists(st.one_of(_DELTAS, _DELTAS, _DELTAS, _BROKEN), max_size=12))
def test_a_frame_that_comes_again_is_read_as_the_whole_event(events: list[bytes]) -> None:
    """The pieces and the error are those of reading every event in full."""
    assert _at_once(ChatCodec(), events) == _one_by_one(ChatCodec(), events)


def _block(kind: str, **more: Any) -> bytes:
    return json.dumps({"type": f"content_block_{kind}", "index": 0, **more}).encode()


_BLOCKS = st.one_of(
    st.builds(
        lambda text: _block("delta", delta={"type": "text_delta", "text": text}),
        st.one_of(st.sampled_from(_TEXTS), st.text(max_size=8)),
    ),
    st.builds(
        lambda text: _block("delta", delta={"type": "text_delta", "text": text, "who": text}),
        st.sampled_from(_TEXTS),
    ),
    st.just(_block("delta", delta={"type": "thinking_delta", "thinking": "a"})),
    st.just(b'{"type": "ping"}'),
    st.just(_block("stop")),
    st.just(b'{"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta"}}'),
)


@given(events=st.lists(_BLOCKS, max_size=12))
def test_a_block_whose_frame_comes_again_is_read_as_whole_events(events: list[bytes]) -> None:
    """Messages, as Chat: the pieces and the error are those of reading every event in full."""
    begun = [_block("start", content_block={"type": "text", "text": ""}), *events]
    assert _at_once(MessagesCodec(), begun) == _one_by_one(MessagesCodec(), begun)


@pytest.mark.parametrize("at_once", [True, False])
def test_text_after_a_finish_is_still_an_error(*, at_once: bool) -> None:
    """A frame that was known before the finish does not let text through after it."""
    events = [_event({"content": "a"}), _event({"content": "b"}), _event({}, finish="stop")]
    events.append(_event({"content": "c"}))
    stream = _stream(ChatCodec())
    with pytest.raises(SafeholdError, match="nothing after"):
        list(stream.read_all(events)) if at_once else [stream.read(one) for one in events]
