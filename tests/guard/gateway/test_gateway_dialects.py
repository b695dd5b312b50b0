"""Dialects: what servers and clients add to a protocol costs no answer and leaks no text."""

import json
from typing import Any

import pytest
from gateway_wire import PATHS, body_for
from hypothesis import given
from hypothesis import strategies as st

from safehold.errors import UpstreamError
from safehold.guard.gateway.app import CODECS
from safehold.guard.gateway.interface import BrokenReplyError, Call, Closed, Delta, Notice, Rules
from safehold.guard.gateway.interface import UnsupportedError as Unsupported
from safehold.testing.upstream import (
    SaidRun,
    Script,
    chat_whole,
    messages_whole,
    responses_whole,
)

SECRET = "purple-elephant"
SCRIPT = Script(said=(SaidRun(("Hello", " there")),))
WHOLES = {
    PATHS[0]: chat_whole(SCRIPT),
    PATHS[1]: messages_whole(SCRIPT),
    PATHS[2]: responses_whole(SCRIPT),
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def objects(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every object inside a JSON value."""
    found = [at] if isinstance(value, dict) else []
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            found += objects(item, (*at, key))
    return found


def with_field(value: Any, at: tuple[Any, ...], name: str, by: Any) -> Any:
    """Return a copy of a JSON value with one more field in the object at a path."""
    copy = json.loads(json.dumps(value))
    place = copy
    for step in at:
        place = place[step]
    place[name] = by
    return copy


def parsed(path: str, body: Any, **rules: Any) -> Call:
    """Parse a request."""
    return CODECS[path]().parse(json.dumps(body).encode(), Rules(**rules))


@pytest.mark.parametrize("path", PATHS)
@given(data=st.data())
def test_unknown_reply_field_at_any_depth_costs_nothing(path: str, data: st.DataObject) -> None:
    """An unknown field anywhere in a whole answer is dropped: same pieces, no unscored text."""
    whole = WHOLES[path]
    at = data.draw(st.sampled_from(objects(whole)))
    altered = with_field(whole, at, "novel", data.draw(VALUES))
    call = parsed(path, body_for(path, "hi", stream=False))
    reply = call.whole(json.dumps(altered).encode())
    assert "".join(piece.text for piece in reply.pieces()) == "Hello there"
    assert SECRET not in reply.render().decode()


@pytest.mark.parametrize("path", PATHS)
@given(data=st.data())
def test_unknown_request_field_is_scored_or_stays_here(path: str, data: st.DataObject) -> None:
    """An unknown field anywhere in a request goes on only if its strings are in the prompt."""
    body = body_for(path, "hi", stream=False)
    if path == PATHS[2]:
        body["input"] = [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]
    at = data.draw(st.sampled_from(objects(body)))
    name = data.draw(st.sampled_from(["novel", "chat_template_kwargs", "client_metadata", "id"]))
    policy = data.draw(st.sampled_from(["drop", "pass"]))
    altered = with_field(body, at, name, data.draw(VALUES))
    try:
        call = parsed(path, altered, unknown_request_fields=policy)
    except Unsupported:
        return
    sent = call.body("m").decode()
    scored = "\n".join(part.text for part in call.exchange.texts())
    known = at == ("input", 0) and name == "id"  # an item's id is an identifier, not a text
    assert known or sent.count(SECRET) <= scored.count(SECRET)
    assert policy == "pass" or name != "novel" or "novel" not in sent


@pytest.mark.parametrize("path", PATHS)
def test_policy_refuse_keeps_unknown_fields_out_loudly(path: str) -> None:
    """With `refuse`, an unknown field is a 400 in a request and an error in an answer."""
    with pytest.raises(Unsupported, match="unknown field `novel`"):
        parsed(path, body_for(path, "hi") | {"novel": 1}, unknown_request_fields="refuse")
    call = parsed(path, body_for(path, "hi", stream=False), unknown_reply_fields="refuse")
    if path != PATHS[2]:  # a response echoes its settings, so its top is never read strictly
        with pytest.raises(UpstreamError):
            call.whole(json.dumps(WHOLES[path] | {"novel": 1}).encode())


@pytest.mark.parametrize(
    "name",
    ["web_search_options", "prompt_token_ids", "plugins", "mcp_servers", "kv_transfer_params"],
)
def test_field_that_opens_a_channel_is_refused_by_name(name: str) -> None:
    """What lets unscored content reach a model is refused whatever the policy says."""
    with pytest.raises(Unsupported, match=name):
        parsed(PATHS[0], body_for(PATHS[0], "hi") | {name: [1]}, unknown_request_fields="pass")


def chunk(choice: dict[str, Any] | None, **more: Any) -> bytes:
    """Return a chat chunk of one choice."""
    return json.dumps({"id": "c", "choices": [choice] if choice else [], **more}).encode()


def said(*events: bytes, **body: Any) -> tuple[str, dict[tuple[str, int], str], Any]:
    """Read chat events; return the text, the tool texts by (channel, index), and the stream."""
    stream = parsed(PATHS[0], body_for(PATHS[0], "hi") | body).stream()
    text, tools = "", {}
    for event in events:
        for piece in stream.read(event):
            match piece:
                case Delta(lane=lane, text=new) if lane.channel == "text":
                    text += new
                case Delta(lane=lane, text=new):
                    key = (str(lane.channel), lane.index)
                    tools[key] = tools.get(key, "") + new
                case Closed():
                    pass
    return text, tools, stream


STOP = chunk({"index": 0, "delta": {}, "finish_reason": "stop"})


@pytest.mark.parametrize(
    "event",
    [
        chunk({"index": 0, "delta": {"content": "hi"}}, provider="DeepInfra"),
        chunk({"index": 0, "delta": {"content": "hi"}, "native_finish_reason": None}),
        chunk({"index": 0, "delta": {"content": "hi"}}, x_groq={"id": "r"}, citations=["u"]),
        chunk({"index": 0, "delta": {"content": "hi", "reasoning_details": [{"a": "b"}]}}),
        chunk({"index": 0, "delta": {"content": "hi"}, "finish_reason": ""}),
        chunk({"index": 0, "delta": {"content": "hi"}}, created=17.5),
        chunk({"index": 0, "delta": {"content": "hi"}}, usage={"completion_tokens": None}),
        chunk(
            {"index": 0, "delta": {"content": "hi"}},
            usage={"prompt_tokens_details": {"cached_tokens": [1]}},
        ),
        chunk({"index": 0, "delta": {"content": "hi"}}, id="a b c"),
    ],
)
def test_bookkeeping_of_a_dialect_costs_no_text(event: bytes) -> None:
    """A vendor's own fields and odd counts beside the text leave it whole."""
    text, _, stream = said(event, STOP)
    assert text == "hi"
    assert stream.complete


@pytest.mark.parametrize("event", [b'{"id":"c","choices":null}', chunk({"index": 0})])
def test_chunk_without_choices_or_delta_is_empty(event: bytes) -> None:
    """Azure's chunk without a delta, and null choices, say nothing."""
    assert said(event, STOP)[0] == ""


def call_chunk(**call: Any) -> bytes:
    """Return a chunk with one piece of a tool call."""
    return chunk({"index": 0, "delta": {"tool_calls": [call]}})


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (
            [
                call_chunk(id="a", function={"name": "f", "arguments": "{}"}),
                call_chunk(id="b", function={"name": "g", "arguments": "[]"}),
            ],
            ["f", "{}", "g", "[]"],
        ),
        (
            [
                call_chunk(index=0, id="a", function={"name": "f", "arguments": "{"}),
                call_chunk(index=0, id="", type="", function={"name": "f", "arguments": "}"}),
            ],
            ["f", "{}"],
        ),
        (
            [call_chunk(index=None, id="a|b", function={"name": "f", "arguments": {"x": 1}})],
            ["f", '{"x":1}'],
        ),
    ],
)
def test_tool_calls_of_dialects_are_read(events: list[bytes], expected: list[str]) -> None:
    """Calls without an index, with a repeated name, an empty type or an object are whole calls."""
    assert list(said(*events, STOP)[1].values()) == expected


def test_second_name_of_one_call_is_still_refused() -> None:
    """A name that is not the call's own, once its arguments began, is a broken reply."""
    first = call_chunk(index=0, id="a", function={"name": "f", "arguments": "{"})
    with pytest.raises(BrokenReplyError, match="second tool name"):
        said(first, call_chunk(index=0, function={"name": "g"}))


def test_finish_is_never_invented() -> None:
    """`[DONE]` without a finish reason, or with one of two choices, is no complete answer."""
    hello = chunk({"index": 0, "delta": {"content": "hi"}})
    assert not said(hello, b"[DONE]")[2].complete
    assert not said(hello, STOP, b"[DONE]", n=2)[2].complete
    assert said(hello, STOP)[2].complete


def test_server_that_gave_up_says_why() -> None:
    """`finish_reason: abort` is an error that names it, not an unknown field."""
    with pytest.raises(BrokenReplyError, match="abort"):
        said(chunk({"index": 0, "delta": {}, "finish_reason": "abort"}))


def test_empty_piece_after_the_finish_is_harmless_and_text_is_not() -> None:
    """A role beside the usage after the finish is nothing; text there breaks the protocol."""
    said(STOP, chunk({"index": 0, "delta": {"role": "assistant", "content": ""}}, usage={}))
    with pytest.raises(BrokenReplyError):
        said(STOP, chunk({"index": 0, "delta": {"content": "more"}}))


def test_lost_halves_of_surrogates_become_replacement_characters() -> None:
    """Escapes of lone surrogates in a stream and in a request end in U+FFFD."""
    event = b'{"choices":[{"index":0,"delta":{"content":"a\\ud83d"}}]}'
    assert said(event, STOP)[0] == "a\ufffd"
    body = b'{"model":"m","messages":[{"role":"user","content":"b\\ude00"}]}'
    call = CODECS[PATHS[0]]().parse(body, Rules())
    assert [part.text for part in call.exchange.texts()] == ["b\ufffd"]


def response_event(kind: str, **fields: Any) -> bytes:
    """Return an event of a Responses stream."""
    return json.dumps({"type": kind, **fields}).encode()


MESSAGE = {
    "type": "message",
    "id": "m1",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Hello there", "annotations": []}],
}


@pytest.mark.parametrize(
    "events",
    [
        [response_event("response.output_item.done", output_index=0, item=MESSAGE)],
        [],
        [response_event("response.output_text.delta", item_id="x", delta="Hello there")],
        [
            response_event("response.output_text.delta", item_id="m1", delta="Hello"),
            response_event("response.output_item.done", item=MESSAGE),
        ],
    ],
)
def test_response_text_is_delivered_once_wherever_it_comes(events: list[bytes]) -> None:
    """Text in a delta, an item's end or the last event only is read, and read once."""
    stream = parsed(PATHS[2], body_for(PATHS[2], "hi")).stream()
    last = {"id": "r", "status": "completed", "output": [MESSAGE]}
    text = ""
    for event in [*events, response_event("response.completed", response=last)]:
        text += "".join(piece.text for piece in stream.read(event) if isinstance(piece, Delta))
    assert text == "Hello there"
    assert stream.complete


def response_call(rules: dict[str, Any] | None = None, **body: Any) -> Call:
    """Parse a Responses request."""
    return parsed(PATHS[2], {"model": "m", "input": "hi", **body}, **(rules or {}))


LOOKUP = {"type": "function", "name": "lookup", "parameters": {}}
RUN_HERE: list[tuple[str, dict[str, Any]]] = [
    (PATHS[1], {"type": "bash_20250124", "name": "bash"}),
    (PATHS[1], {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}),
    (PATHS[1], {"type": "memory_20250818", "name": "memory"}),
    (PATHS[1], {"type": "computer_20250124", "name": "computer", "display_width_px": 800}),
    (PATHS[1], {"type": "custom", "name": "any", "input_schema": {"type": "object"}}),
    (PATHS[2], {"type": "namespace", "name": "n", "description": "d", "tools": [LOOKUP]}),
    (PATHS[2], {"type": "custom", "name": "apply_patch", "format": {"type": "text"}}),
    (PATHS[2], {"type": "local_shell"}),
    (PATHS[2], {"type": "shell", "environment": {"type": "local"}}),
    (PATHS[2], {"type": "tool_search", "execution": "client"}),
    (PATHS[0], {"type": "custom", "custom": {"name": "sh"}}),
]
RUN_AWAY: list[tuple[str, dict[str, Any]]] = [
    (PATHS[0], {"type": "web_search"}),
    (PATHS[1], {"type": "web_search_20250305", "name": "web_search"}),
    (PATHS[1], {"type": "code_execution_20250825", "name": "code_execution"}),
    (PATHS[1], {"type": "mcp_toolset", "mcp_server_name": "s"}),
    (PATHS[2], {"type": "web_search"}),
    (PATHS[2], {"type": "mcp", "server_label": "s", "server_url": "https://s.test"}),
    (PATHS[2], {"type": "file_search", "vector_store_ids": ["v"]}),
    (PATHS[2], {"type": "shell", "environment": {"type": "container_auto"}}),
    (PATHS[2], {"type": "tool_search"}),
    (PATHS[2], {"type": "namespace", "name": "n", "tools": [{"type": "mcp"}]}),
    (PATHS[2], {"type": "of_tomorrow"}),
    (PATHS[1], {"type": 7, "name": "odd"}),
]
OWN = {
    PATHS[0]: {"type": "function", "function": {"name": "lookup"}},
    PATHS[1]: {"name": "lookup", "input_schema": {"type": "object"}},
    PATHS[2]: LOOKUP,
}


@pytest.mark.parametrize(("path", "tool"), RUN_HERE)
def test_tool_that_the_client_runs_goes_on_and_is_scored(path: str, tool: dict[str, Any]) -> None:
    """A client's own tool reaches the model as it was sent, its strings in the prompt."""
    call = parsed(path, body_for(path, "hi") | {"tools": [tool]}, vendor_tools="refuse")
    assert json.loads(call.body("m"))["tools"] == [tool]
    assert str(tool["type"]) in "\n".join(part.text for part in call.exchange.texts())


@pytest.mark.parametrize(("path", "tool"), RUN_AWAY)
def test_tool_that_the_vendor_runs_stays_here(path: str, tool: dict[str, Any]) -> None:
    """It is left out and counted beside a client's tool, and refused where it is counted on."""
    both = body_for(path, "hi") | {"tools": [tool, OWN[path]]}
    call = parsed(path, both)
    assert json.loads(call.body("m"))["tools"] == [OWN[path]]
    assert call.dropped == 1
    with pytest.raises(Unsupported, match=r"rules\.vendor_tools"):
        parsed(path, both, vendor_tools="refuse")
    with pytest.raises(Unsupported, match=r"rules\.vendor_tools"):
        parsed(path, body_for(path, "hi") | {"tools": [tool]})
    with pytest.raises(Unsupported, match=r"rules\.vendor_tools"):
        parsed(path, both | {"tool_choice": {"type": tool["type"], "name": "web_search"}})


SEALED_BODIES = {
    PATHS[1]: {
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "redacted_thinking", "data": "c2VjcmV0"},
                    {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}},
                ],
            },
            {"role": "user", "content": "and?"},
        ]
    },
    PATHS[2]: {
        "input": [
            {"type": "reasoning", "summary": [], "encrypted_content": "c2VjcmV0"},
            {"role": "user", "content": "hi", "novel": "x"},
        ],
        "include": ["reasoning.encrypted_content"],
    },
}


@pytest.mark.parametrize("path", PATHS[1:])
def test_sealed_reasoning_is_dropped_passed_or_refused(path: str) -> None:
    """Reasoning that no scorer reads goes on by policy only; dropped, the rest keeps its place."""
    body = body_for(path, "hi") | SEALED_BODIES[path]
    call = parsed(path, body, unknown_request_fields="pass")
    sent = call.body("m").decode()
    assert "c2VjcmV0" not in sent
    assert "encrypted_content" not in sent
    assert call.dropped == 1
    assert path == PATHS[1] or json.loads(sent)["input"][0]["novel"] == "x"
    assert "c2VjcmV0" in parsed(path, body, opaque_reasoning="pass").body("m").decode()
    with pytest.raises(Unsupported):
        parsed(path, body, opaque_reasoning="refuse")


def response_events(*items: dict[str, Any]) -> list[bytes]:
    """Return a stream whose items come whole, as servers of agents send actions."""
    done: list[dict[str, Any]] = [
        {"type": "response.output_item.done", "output_index": at, "item": item}
        for at, item in enumerate(items)
    ]
    final = {"id": "r", "status": "completed", "output": list(items)}
    return [
        json.dumps(e).encode() for e in (*done, {"type": "response.completed", "response": final})
    ]


ACTIONS: list[dict[str, Any]] = [
    {"type": "local_shell_call", "action": {"type": "exec", "command": ["echo", SECRET]}},
    {"type": "shell_call", "action": {"commands": [SECRET], "timeout_ms": 5}},
    {"type": "apply_patch_call", "operation": {"type": "update_file", "diff": SECRET}},
    {"type": "computer_call", "action": {"type": "type", "text": SECRET}},
    {"type": "tool_search_call", "arguments": {"query": SECRET}, "execution": "client"},
    {"type": "custom_tool_call", "name": "sh", "input": SECRET},
    {"type": "function_call", "name": "f", "arguments": f'{{"a":"{SECRET}"}}', "namespace": "n"},
]


@pytest.mark.parametrize("item", ACTIONS, ids=lambda item: str(item["type"]))
def test_action_for_the_client_is_scored_and_arrives_whole(item: dict[str, Any]) -> None:
    """What a tool of the client's is asked is scored first, then delivered as it was, both ways."""
    tools = [{"type": "namespace", "name": "n", "tools": [LOOKUP]}]
    item = {"id": "i_1", "call_id": "c_1", "status": "completed", **item}
    call = response_call(tools=tools)
    stream = call.stream()
    frames, texts = stream.begin(), ""
    for event in response_events(item):
        for piece in stream.read(event):
            if isinstance(piece, Delta):
                texts += piece.text
                assert SECRET not in frames.decode()  # nothing before it was released
                frames += stream.release(piece.lane, piece.text)
            else:
                frames += stream.close(piece.lane)
    frames += stream.end()
    assert SECRET in texts
    written = [json.loads(line[6:]) for line in frames.splitlines() if line.startswith(b"data: ")]
    assert written[-1]["response"]["output"] == [item]
    assert json.loads(stream.items["i_1"]) == item

    whole = call.whole(json.dumps({"id": "r", "status": "completed", "output": [item]}).encode())
    assert SECRET in "".join(piece.text for piece in whole.pieces())
    assert json.loads(whole.render())["output"] == [item]
    again = response_call(input=[item, {"role": "user", "content": "go on"}])
    assert SECRET in "\n".join(part.text for part in again.exchange.texts())


def test_action_that_is_cut_by_a_block_never_leaves_in_part() -> None:
    """A command whose text was not all released is not written at all."""
    stream = response_call().stream()
    item = {"type": "local_shell_call", "id": "i", "call_id": "c", "action": {"command": [SECRET]}}
    pieces = [piece for event in response_events(item) for piece in stream.read(event)]
    assert isinstance(pieces[0], Delta)
    frames = stream.begin() + stream.release(pieces[0].lane, pieces[0].text[:5])
    frames += stream.block(Notice(decision_id="d", category="c"))
    assert b"local_shell_call" not in frames


def test_namespace_that_the_client_did_not_offer_is_dropped() -> None:
    """A call's namespace is not scored, so it must be one of the client's own words."""
    item = {"type": "function_call", "id": "i", "name": "f", "arguments": "{}", "namespace": SECRET}
    whole = response_call().whole(json.dumps({"status": "completed", "output": [item]}).encode())
    assert SECRET not in whole.render().decode()


@pytest.mark.parametrize("legacy", [True, False])
def test_custom_and_legacy_calls_of_chat_stream(legacy: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A custom tool's input and a legacy function call arrive as they were asked for."""
    if legacy:
        deltas: list[dict[str, Any]] = [
            {"function_call": {"name": "f", "arguments": ""}},
            {"function_call": {"arguments": "{}"}},
        ]
        finish = "function_call"
    else:
        deltas = [
            {"tool_calls": [{"index": 0, "id": "c1", "type": "custom", "custom": {"name": "f"}}]},
            {"tool_calls": [{"index": 0, "custom": {"input": "{}"}}]},
        ]
        finish = "tool_calls"
    events = [chunk({"index": 0, "delta": delta}) for delta in deltas]
    events.append(chunk({"index": 0, "delta": {}, "finish_reason": finish}))
    stream = parsed(PATHS[0], body_for(PATHS[0], "hi")).stream()
    frames = b""
    for event in events:
        for piece in stream.read(event):
            frames += (
                stream.release(piece.lane, piece.text)
                if isinstance(piece, Delta)
                else stream.close(piece.lane)
            )
    told = [json.loads(line[6:]) for line in frames.splitlines() if line.startswith(b"data: {")]
    got = [one["choices"][0]["delta"] for one in told]
    if legacy:
        assert got[1:] == deltas
    else:
        calls = [delta["tool_calls"][0] for delta in got[1:]]
        assert calls[0] == {
            "index": 0,
            "id": "c1",
            "type": "custom",
            "custom": {"name": "f", "input": ""},
        }
        assert calls[1] == {"index": 0, "custom": {"input": "{}"}}
    assert stream.complete


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (chunk({"index": 0, "delta": {"content": [{"type": "text", "text": "hi"}]}}), ("hi", {})),
        (
            chunk({"index": 0, "delta": {"content": [{"type": "thinking", "thinking": "hm"}]}}),
            ("", {("reasoning", 0): "hm"}),
        ),
        (
            chunk({"index": 0, "delta": {"content": "hi"}, "logprobs": None}).replace(
                b'"logprobs": null',
                b'"logprobs": {"content": [{"token": "hi", "logprob": -Infinity}]}',
            ),
            ("hi", {}),
        ),
        (b'{"choices":[{"index":0,"delta":{"content":"hi"}}],"score":NaN}', ("hi", {})),
    ],
)
def test_text_in_a_dialects_form_arrives(event: bytes, expected: tuple[str, Any]) -> None:
    """Content as a list, and the numbers that Python's servers write beyond JSON, are read."""
    text, others, stream = said(event, STOP)
    assert (text, others) == expected
    assert stream.complete


@pytest.mark.parametrize("pieces", [["look", "up"], ["lookup", "lookup", "lookup"]])
def test_name_in_pieces_and_name_repeated_are_told_apart(pieces: list[str]) -> None:
    """A tool's name may come cut, or whole in every piece; it is one name either way."""
    calls = [{"index": 0, "id": "c", "function": {"name": piece}} for piece in pieces]
    calls.append({"index": 0, "function": {"arguments": "{}"}})
    events = [chunk({"index": 0, "delta": {"tool_calls": [call]}}) for call in calls]
    _, tools, _ = said(*events, STOP)
    assert tools == {("tool_name", 0): "lookup", ("tool_arguments", 0): "{}"}


@pytest.mark.parametrize("path", PATHS[1:])
def test_event_of_an_unknown_type_is_dropped_unread(path: str) -> None:
    """A vendor's own event costs no answer and reaches nobody; `refuse` ends the answer."""
    event = json.dumps({"type": "vendor.note", "text": SECRET}).encode()
    call = parsed(path, body_for(path, "hi"))
    assert list(call.stream().read(event)) == []
    assert call.dropped == 1
    with pytest.raises(BrokenReplyError):
        parsed(path, body_for(path, "hi"), unknown_reply_fields="refuse").stream().read(event)


def test_signature_of_another_form_is_dropped() -> None:
    """What is no base64 is not passed unscored as a signature, and costs no answer."""
    block = {"type": "thinking", "thinking": "hm", "signature": f"v1: {SECRET}"}
    call = parsed(PATHS[1], body_for(PATHS[1], "hi", stream=False))
    whole = call.whole(json.dumps(WHOLES[PATHS[1]] | {"content": [block]}).encode())
    assert SECRET not in whole.render().decode()
    start = {"type": "content_block_start", "index": 0, "content_block": block}
    stream = parsed(PATHS[1], body_for(PATHS[1], "hi")).stream()
    lanes = [piece.lane for piece in stream.read(json.dumps(start).encode())]
    frames = b"".join(stream.release(lane, "hm") + stream.close(lane) for lane in lanes)
    assert SECRET not in frames.decode()
