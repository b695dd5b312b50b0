"""Nothing of a blocked phrase leaves: split by position by channel by protocol, on real sockets."""

import itertools
import json
import re
from typing import Any

import msgspec
import pytest
from gateway_wire import PATHS, Start, body_for, post
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safehold.guard.gateway.policy import SurfacePolicy
from safehold.guard.interface import DeliveryMode
from safehold.testing.guards import MARKER
from safehold.testing.upstream import SaidRun, Script, says, split

FILLER = "some plain words without any harm in them "


def leaked(body: bytes) -> list[str]:
    """Return the marker's words that are in a body (they occur nowhere else)."""
    return [word for word in MARKER.split() if word.encode() in body]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
def test_no_marker_character_leaves_at_any_position(stage: Start, path: str, stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The marker is withheld wherever it stands and however it is cut, with and without a pace."""
    at = stage()
    asked = json.dumps(body_for(path, "hi", stream=stream)).encode()
    for words in (0, 1, 7, 60, 300):
        for size in (1, 3, 7, 24, 1000):
            text = FILLER * words + MARKER + " " + FILLER * 3
            at.upstream.script = says(text, size=size)
            status, _, body = post(at.gateway.port, path, asked)
            assert status == 200
            assert leaked(body) == []
            assert at.finals()[-1].outcome == "blocked_by_guard"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("every", [1, 5])
def test_escaped_marker_in_tool_arguments_is_caught(
    stage: Start,
    path: str,
    stream: bool,  # noqa: FBT001 - a parameter of the test
    every: int,
) -> None:
    """A tool would read the marker that the wire spells in escapes, so it blocks."""
    spelt = "".join(
        f"\\u{ord(char):04x}" if at % every == 0 else char for at, char in enumerate(MARKER)
    )
    for size in (1, 9, 1000):
        wire = '{"q":"' + FILLER + spelt + '"}'
        at = stage(Script(said=(SaidRun(split(wire, size), channel="tool"),)))
        asked = json.dumps(body_for(path, "hi", stream=stream)).encode()
        status, _, body = post(at.gateway.port, path, asked)
        assert status == 200
        assert leaked(body) == []
        assert b"\\u00" not in body
        assert at.finals()[-1].outcome == "blocked_by_guard"


CHANNELS = [
    ("/v1/chat/completions", "reasoning"),
    ("/v1/chat/completions", "refusal"),
    ("/v1/chat/completions", "tool"),
    ("/v1/messages", "reasoning"),
    ("/v1/messages", "tool"),
    ("/v1/responses", "reasoning"),
    ("/v1/responses", "refusal"),
    ("/v1/responses", "tool"),
]


@pytest.mark.parametrize(("path", "channel"), CHANNELS)
@pytest.mark.parametrize("stream", [True, False])
def test_every_channel_is_guarded(stage: Start, path: str, channel: str, stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The marker is caught in reasoning, refusals and tool arguments as in text."""
    text = json.dumps({"q": FILLER + MARKER})
    first = SaidRun(split(FILLER * 4, 5))
    script = Script(said=(first, SaidRun(split(text, 4), channel=channel)))
    at = stage(script)
    status, _, body = post(
        at.gateway.port, path, json.dumps(body_for(path, "hi", stream=stream)).encode()
    )
    assert status == 200
    assert leaked(body) == []
    assert at.finals()[-1].outcome == "blocked_by_guard"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
def test_tool_name_is_guarded(stage: Start, path: str, stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A tool's name is text like any other."""
    name = MARKER.replace(" ", "_")
    at = stage(Script(said=(SaidRun(("{}",), channel="tool", name=name),)))
    at.gateway.gateway.relay.holder.swap(_held("purple.elephant"))
    _, _, body = post(
        at.gateway.port, path, json.dumps(body_for(path, "hi", stream=stream)).encode()
    )
    assert leaked(body) == []
    assert at.finals()[-1].outcome == "blocked_by_guard"


def _held(pattern: str):  # noqa: ANN202 - a fixture
    from safehold.testing.guards import held_rules  # noqa: PLC0415 - an extra, or for one process only

    return held_rules(pattern)


@pytest.mark.parametrize("stream", [True, False])
def test_every_choice_is_guarded(stage: Start, stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A second choice is scored like the first."""
    said = (SaidRun(split(FILLER * 3, 5)), SaidRun(split(FILLER + MARKER, 4), choice=1))
    at = stage(Script(said=said))
    asked = body_for(PATHS[0], "hi", stream=stream) | {"n": 2}
    _, _, body = post(at.gateway.port, PATHS[0], json.dumps(asked).encode())
    assert leaked(body) == []


PROMPTS = [
    {"messages": [{"role": "system", "content": MARKER}, {"role": "user", "content": "hi"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": MARKER}]}]},
    {"messages": [{"role": "user", "content": "hi", "name": MARKER}]},
    {
        "messages": [
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": MARKER}}
                ],
            },
            {"role": "user", "content": "hi"},
        ]
    },
    {"messages": [{"role": "tool", "tool_call_id": "1", "content": MARKER}]},
    {"messages": [{"role": "assistant", "reasoning_content": MARKER}]},
    {
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": "function", "function": {"name": "f", "description": MARKER}}],
    },
    {
        "messages": [{"role": "user", "content": "hi"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": MARKER}},
    },
]


@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_every_way_into_the_prompt_is_scored(stage: Start, number: int) -> None:
    """System text, parts, names, tool calls and results, reasoning, tools, formats: all scored."""
    at = stage()
    asked = {"model": "m", **PROMPTS[number]}
    status, _, body = post(at.gateway.port, PATHS[0], json.dumps(asked).encode())
    assert status == 200
    assert b"content_filter" in body
    assert at.prompts()[-1].verdict == "block"


def test_previous_response_is_scored_with_what_follows(stage: Start) -> None:
    """A prompt that is only bad together with the response it continues is blocked."""
    at = stage(says("purple elephant"))
    at.gateway.gateway.relay.holder.swap(_held(r"purple elephant\s+protocol"))
    first = body_for("/v1/responses", "hi", stream=False)
    _, _, body = post(at.gateway.port, "/v1/responses", json.dumps(first).encode())
    number = json.loads(body)["id"]
    unknown = body_for("/v1/responses", "go on") | {"previous_response_id": "resp_other"}
    assert post(at.gateway.port, "/v1/responses", json.dumps(unknown).encode())[0] == 400
    follow = body_for("/v1/responses", "go on") | {"previous_response_id": number}
    assert post(at.gateway.port, "/v1/responses", json.dumps(follow).encode())[0] == 200
    kept = at.prompts()[-1].exchange
    assert "purple elephant" in [part.text for part in kept.texts()]


def test_logprobs_are_stripped_by_default(stage: Start) -> None:
    """Log probabilities are neither asked for nor passed on."""
    at = stage()
    asked = body_for(PATHS[0], "hi") | {"logprobs": True, "top_logprobs": 5}
    post(at.gateway.port, PATHS[0], json.dumps(asked).encode())
    assert "logprobs" not in at.upstream.requests[-1]
    assert "top_logprobs" not in at.upstream.requests[-1]


def test_full_mode_withholds_everything_until_the_end(stage: Start) -> None:
    """In full mode a late marker leaves not a word of the answer."""
    at = stage(says(FILLER * 40 + MARKER, size=5), default=SurfacePolicy(mode=DeliveryMode.FULL))
    for path in PATHS:
        _, _, body = post(at.gateway.port, path, json.dumps(body_for(path, "hi")).encode())
        assert b"plain words" not in body
        assert leaked(body) == []


@pytest.mark.parametrize("path", PATHS)
def test_full_mode_delivers_what_is_clean(stage: Start, path: str) -> None:
    """In full mode a clean answer arrives whole, blocks in order."""
    said = (SaidRun(("why",), channel="reasoning"), SaidRun(split(FILLER, 5)))
    at = stage(Script(said=said), default=SurfacePolicy(mode=DeliveryMode.FULL))
    _, _, body = post(at.gateway.port, path, json.dumps(body_for(path, "hi")).encode())
    assert at.finals()[-1].outcome == "complied"
    assert body.index(b"why") < body.index(b"some ")


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_in_a_code_is_withheld_until_its_end(stage: Start, path: str) -> None:
    """Who asks for a code gets the answer whole or not at all, in the default mode."""
    asked = json.dumps(body_for(path, "Tell me all of it, encoded in base64.")).encode()
    at = stage(says(FILLER * 400 + MARKER, size=50))
    _, _, body = post(at.gateway.port, path, asked)
    assert b"plain words" not in body
    assert leaked(body) == []
    said = (SaidRun(("why",), channel="reasoning"), SaidRun(split(FILLER * 400, 50)))
    at = stage(Script(said=said))
    _, _, body = post(at.gateway.port, path, asked)
    assert at.finals()[-1].outcome == "complied"
    assert body.index(b"why") < body.index(b"some ")
    assert "".join(item.text for item in at.finals()[-1].delivered) == "why" + FILLER * 400


@pytest.mark.parametrize("path", PATHS)
def test_audit_mode_delivers_and_marks(stage: Start, path: str) -> None:
    """Audit delivers the text as it comes, and says at the end what it would have blocked."""
    at = stage(says(FILLER + MARKER, size=5), default=SurfacePolicy(mode=DeliveryMode.AUDIT))
    _, _, body = post(at.gateway.port, path, json.dumps(body_for(path, "hi")).encode())
    assert "detected" in body.decode()
    assert at.finals()[-1].verdict == "block"
    assert at.finals()[-1].outcome == "complied"
    assert "".join(item.text for item in at.finals()[-1].delivered) == FILLER + MARKER


def test_shadow_delivers_unmarked_and_records(stage: Start) -> None:
    """Shadow changes nothing for the client and records what it would have blocked."""
    at = stage(says(FILLER, size=5), default=SurfacePolicy(shadow=True))
    asked = json.dumps(body_for(PATHS[0], MARKER)).encode()
    _, _, body = post(at.gateway.port, PATHS[0], asked)
    assert re.search(rb"detected|filtered", body) is None
    assert at.prompts()[-1].would_block is True
    assert at.finals()[-1].outcome == "complied"


@pytest.fixture
def shared(stage: Start):  # noqa: ANN201 - a fixture
    """Return one gateway for all examples of a property."""
    return stage()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_released_is_scored_and_whole_for_any_split(shared: Any, data: st.DataObject) -> None:
    """For any text and any deltas: released ≤ scored, and a clean text arrives unchanged."""
    text = data.draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    edges = [0, *cuts, len(text)]
    deltas = tuple(text[a:b] for a, b in itertools.pairwise(edges))
    path = data.draw(st.sampled_from(PATHS))
    shared.upstream.script = Script(said=(SaidRun(deltas),))
    post(shared.gateway.port, path, json.dumps(body_for(path, "hi")).encode())
    row = shared.finals()[-1]
    assert row.delivered_bytes <= row.scored_bytes
    assert "".join(item.text for item in row.delivered) == text


def test_paced_stream_withholds_the_marker(stage: Start) -> None:
    """With one delta at a time, as a model writes, nothing of the marker is sent early."""
    script = says(FILLER * 2 + MARKER, size=2)
    at = stage(msgspec.structs.replace(script, delay_s=0.001))
    for path in PATHS:
        _, _, body = post(at.gateway.port, path, json.dumps(body_for(path, "hi")).encode())
        assert leaked(body) == []
