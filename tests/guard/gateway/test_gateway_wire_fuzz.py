"""The wire parsers against bytes that nobody meant: one error of ours, or a sound reading."""

import contextlib
import itertools
import json
from typing import Any

import msgspec
import pytest
from gateway_wire import PATHS, body_for
from hypothesis import given
from hypothesis import strategies as st

from safehold.errors import UpstreamError, WireError
from safehold.guard.gateway.app import CODECS
from safehold.guard.gateway.interface import BrokenReplyError, Call, Rules
from safehold.guard.gateway.protocols.sse import EventReader
from safehold.testing.upstream import (
    SaidRun,
    Script,
    chat_events,
    messages_events,
    responses_events,
)

SCRIPT = Script(said=(SaidRun(("Hello", " there")),))
EVENTS = {
    PATHS[0]: [*chat_events(SCRIPT, usage=True)],
    PATHS[1]: [*messages_events(SCRIPT)],
    PATHS[2]: [*responses_events(SCRIPT)],
}
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=9)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
LINES = st.sampled_from(
    [b"data: {}", b"data:x", b": note", b"event: a", b"id: 1", b"data: ", b"data: \xc3\xbc"]
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside a JSON value, its own included."""
    found = [at]
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(item, (*at, key))
    return found


def altered(value: Any, at: tuple[Any, ...], by: Any) -> Any:
    """Return a JSON value with another one at a path."""
    if not at:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = altered(copy[at[0]], at[1:], by)
    return copy


def request(path: str, body: Any) -> Call | None:
    """Parse a request; None where it is refused with an error of ours."""
    try:
        return CODECS[path]().parse(json.dumps(body).encode(), Rules())
    except WireError:
        return None


@pytest.mark.parametrize("path", PATHS)
@given(data=st.data())
def test_an_altered_request_is_refused_or_written_anew(path: str, data: st.DataObject) -> None:
    """Whatever stands in a request's place, it is a WireError, or what goes upstream is JSON."""
    whole = body_for(path, "hi") | {"tools": [], "temperature": 0.5}
    at = data.draw(st.sampled_from(places(whole)))
    call = request(path, altered(whole, at, data.draw(VALUES)))
    if call is not None:
        assert isinstance(msgspec.json.decode(call.body("m")), dict)


@pytest.mark.parametrize("path", PATHS)
@given(body=st.binary(max_size=60))
def test_bytes_are_refused(path: str, body: bytes) -> None:
    """Bytes that are no request of the protocol are refused with an error of ours."""
    with contextlib.suppress(WireError):
        CODECS[path]().parse(body, Rules())


@pytest.mark.parametrize("path", PATHS)
@given(data=st.data())
def test_an_altered_event_is_an_upstream_error_or_read(path: str, data: st.DataObject) -> None:
    """Whatever stands in an upstream event's place is an UpstreamError, or pieces of text."""
    call = request(path, body_for(path, "hi"))
    assert call is not None
    stream = call.stream()
    frames = [event for sent in EVENTS[path] for event in EventReader(99_999).feed(b"\n" + sent)]
    sound = [event for event in frames if event.startswith(b"{")]
    number = data.draw(st.integers(0, len(sound) - 1))
    whole = json.loads(sound[number])
    at = data.draw(st.sampled_from(places(whole)))
    sound[number] = json.dumps(altered(whole, at, data.draw(VALUES))).encode()
    with contextlib.suppress(UpstreamError):
        for event in sound:
            for piece in stream.read(event):
                assert piece.lane.choice == 0


@given(lines=st.lists(LINES, max_size=30), data=st.data())
def test_events_do_not_depend_on_how_bytes_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    """Any split of an event stream, at any newline convention, gives the same events."""
    newline = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    blank = data.draw(st.lists(st.booleans(), min_size=len(lines), max_size=len(lines)))
    whole = b"".join(
        line + newline + (newline if ends else b"") for line, ends in zip(lines, blank, strict=True)
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=9)))
    one, other = EventReader(10_000), EventReader(10_000)
    expected = one.feed(whole)
    edges = [0, *cuts, len(whole)]
    found = [
        event for start, end in itertools.pairwise(edges) for event in other.feed(whole[start:end])
    ]
    assert found == expected
    assert other.unfinished == one.unfinished


@given(data=st.binary(max_size=200))
def test_any_bytes_are_events_or_a_broken_reply(data: bytes) -> None:
    """Bytes of an upstream are read or are its error; what is kept is bounded."""
    reader = EventReader(100)
    with contextlib.suppress(BrokenReplyError):
        reader.feed(data)
        reader.feed(data)
