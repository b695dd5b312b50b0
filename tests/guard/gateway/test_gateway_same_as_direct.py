"""What a client sends reaches the model, and what the model says of itself reaches the client."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from gateway_limits import SMALL
from gateway_wire import PATHS, Start, body_for, post
from msgspec import inspect

from safehold.errors import UpstreamError, WireError
from safehold.guard.gateway.app import CODECS
from safehold.guard.gateway.interface import BrokenReplyError, Delta, Rules, UnknownReplyError
from safehold.guard.gateway.protocols.answer_words import (
    COMPLETION_DETAILS,
    PROMPT_DETAILS,
    choice_ending,
    ending,
)
from safehold.guard.gateway.protocols.chat.wire import ChatRequest
from safehold.guard.gateway.protocols.completions.wire import CompletionRequest
from safehold.guard.gateway.protocols.messages.wire import CountRequest, MessagesRequest
from safehold.guard.gateway.protocols.responses.wire import InputItem, ResponsesRequest
from safehold.guard.gateway.protocols.safe_fields import SAFE
from safehold.guard.ledger.interface import Outcome
from safehold.testing.upstream import Fault, chat_whole, messages_whole, responses_whole, says

COMPLETIONS = "/v1/completions"
REQUESTS = (
    ChatRequest,
    CompletionRequest,
    MessagesRequest,
    CountRequest,
    ResponsesRequest,
    InputItem,
)


def structs(kind: inspect.Type) -> Iterator[inspect.StructType]:
    """Yield every wire value that a type can hold."""
    match kind:
        case inspect.StructType(fields=fields):
            yield kind
            for field in fields:
                yield from structs(field.type)
        case inspect.UnionType(types=types):
            for one in types:
                yield from structs(one)
        case inspect.ListType(item_type=item):
            yield from structs(item)


@pytest.mark.parametrize("kind", REQUESTS)
def test_no_value_that_a_client_wrote_is_left_out_as_a_default(kind: Any) -> None:
    """A value is left out only where the client left it out: no default but `None` is omitted."""
    for struct in structs(inspect.type_info(kind)):
        for field in struct.fields:
            plain = field.default not in (None, inspect.NODEFAULT, msgspec.UNSET)
            if field.name == "model":  # an empty one is none
                continue
            assert not (plain and struct.cls.__struct_config__.omit_defaults), field.name


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
THOUGHT = {"type": "thinking", "thinking": "t", "signature": ""}
ITEMS = [
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": ""},
    {"type": "custom_tool_call", "call_id": "c1", "name": "f", "input": ""},
]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PATHS[0], {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALL]}]}),
        (PATHS[1], {"max_tokens": 9, "messages": [{"role": "assistant", "content": [THOUGHT]}]}),
        (PATHS[2], {"input": ITEMS}),
        (COMPLETIONS, {"prompt": "x", "top_k": 4, "ignore_eos": True, "stop_token_ids": [2]}),
    ],
)
def test_a_lawful_body_goes_on_as_it_came(path: str, body: dict[str, Any]) -> None:
    """Empty arguments, the type of a call, an empty signature and numbers arrive upstream."""
    asked = body | {"model": "m"}
    call = CODECS[path]().parse(json.dumps(asked).encode(), Rules())
    assert json.loads(call.body("m")) == asked
    assert call.dropped == 0


def test_a_number_that_chooses_tokens_goes_on_whichever_path_it_takes() -> None:
    """What Chat passes of how tokens are chosen, Completions passes too."""
    own = {field.name for field in msgspec.structs.fields(CompletionRequest)}
    about_turns = {
        "parallel_tool_calls",
        "top_logprobs",
        "max_completion_tokens",
        "add_generation_prompt",
        "continue_final_message",
        "store",
        "modalities",
    }
    numeric = (inspect.IntType, inspect.FloatType, inspect.BoolType, inspect.NoneType)
    info = inspect.type_info(ChatRequest)
    assert isinstance(info, inspect.StructType)
    chosen = {
        field.name
        for field in info.fields
        if isinstance(field.type, inspect.UnionType)
        and all(
            isinstance(one.item_type if isinstance(one, inspect.ListType) else one, numeric)
            for one in field.type.types
        )
    }
    assert chosen - about_turns - own <= SAFE["CompletionRequest"]
    assert {"top_k", "ignore_eos", "seed", "n"} <= chosen


WHOLES = {PATHS[0]: chat_whole, PATHS[1]: messages_whole, PATHS[2]: responses_whole}


def rendered(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return a whole answer as the client gets it."""
    asked = {"model": "m", "prompt": "x"} if path == COMPLETIONS else body_for(path, "hi")
    call = CODECS[path]().parse(json.dumps(asked | {"stream": False}).encode(), Rules())
    whole = call.whole(json.dumps(body).encode())
    list(whole.pieces())
    result: dict[str, Any] = json.loads(whole.render())
    return result


def streamed(path: str, events: list[Any], **asked: Any) -> list[dict[str, Any]]:
    """Return a stream's events as the client gets them."""
    first = {"model": "m", "prompt": "x"} if path == COMPLETIONS else body_for(path, "hi")
    call = CODECS[path]().parse(json.dumps(first | {"stream": True} | asked).encode(), Rules())
    stream = call.stream()
    frames = [stream.begin()]
    for event in events:
        for piece in stream.read(event if isinstance(event, bytes) else json.dumps(event).encode()):
            if isinstance(piece, Delta):
                frames.append(stream.release(piece.lane, piece.text))
            else:
                frames.append(stream.close(piece.lane))
    if not stream.complete:
        raise BrokenReplyError("cut")
    lines = b"".join((*frames, stream.end())).split(b"\n")
    data = [line[6:] for line in lines if line.startswith(b"data: ")]
    return [json.loads(one) for one in data if one != b"[DONE]"]


OPENAI = {
    "prompt_tokens": 9,
    "completion_tokens": 8,
    "total_tokens": 17,
    "prompt_cache_hit_tokens": 3,
    "prompt_cache_miss_tokens": 6,
    "prompt_tokens_details": dict.fromkeys(PROMPT_DETAILS, 1),
    "completion_tokens_details": dict.fromkeys(COMPLETION_DETAILS, 2),
}
ANTHROPIC = {
    "input_tokens": 9,
    "output_tokens": 8,
    "cache_creation_input_tokens": 3,
    "cache_read_input_tokens": 2,
    "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2},
    "output_tokens_details": {"thinking_tokens": 4},
}
RESPONSES = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 2},
    "output_tokens": 8,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 17,
}


@pytest.mark.parametrize(
    ("path", "usage"), [(PATHS[0], OPENAI), (PATHS[1], ANTHROPIC), (PATHS[2], RESPONSES)]
)
def test_every_count_of_a_usage_reaches_the_client(path: str, usage: dict[str, Any]) -> None:
    """Counts are numbers under known names: they are what a client is billed by."""
    noisy = usage | {"note": "unscored text", "cost_details": {"why": "unscored text"}}
    got = rendered(path, WHOLES[path](says("hi")) | {"usage": noisy})
    assert got["usage"] == usage


def test_no_text_passes_as_a_count() -> None:
    """A text, a switch or a list under the name of a count is left out."""
    details = {"cached_tokens": "text", "audio_tokens": True, "image_tokens": [1], "text_tokens": 5}
    usage = OPENAI | {"prompt_tokens_details": details}
    got = rendered(PATHS[0], chat_whole(says("hi")) | {"usage": usage})
    assert got["usage"]["prompt_tokens_details"] == {"text_tokens": 5}


def chunk(path: str, text: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Return an event of a chat or of a completion."""
    piece = {"text": text} if path == COMPLETIONS else {"delta": {"content": text}}
    return {"id": "c", "choices": [{"index": 0, "finish_reason": finish} | piece]} | more


@pytest.mark.parametrize("path", [PATHS[0], COMPLETIONS])
@pytest.mark.parametrize("asked", [True, False])
def test_counts_that_a_server_gives_unasked_stand_beside_the_end(path: str, *, asked: bool) -> None:
    """Who asked gets them in an event of their own, who did not beside a finish reason."""
    events = [chunk(path, "hi"), chunk(path, "", "stop", usage=OPENAI), b"[DONE]"]
    more = {"stream_options": {"include_usage": True}} if asked else {}
    last = [one for one in streamed(path, events, **more) if one.get("usage")]
    assert [one["usage"] for one in last] == [OPENAI]
    assert bool(last[0]["choices"]) is not asked


@pytest.mark.parametrize("path", [PATHS[0], COMPLETIONS])
@pytest.mark.parametrize(
    ("reason", "told"),
    [("stop", "stop"), ("STOP", "stop"), ("eos", "stop"), ("novel_end", "novel_end")],
)
def test_a_new_reason_of_an_end_costs_no_answer(path: str, reason: str, told: str) -> None:
    """A vendor's new word is told as it came, whole and streamed."""
    given = chunk(path, "hi", reason)
    assert streamed(path, [given])[-1]["choices"][0]["finish_reason"] == told
    choice = given["choices"][0]
    choice["message"] = {"role": "assistant", "content": "hi"}
    del choice["message" if path == COMPLETIONS else "delta"]
    assert rendered(path, given)["choices"][0]["finish_reason"] == told


@pytest.mark.parametrize("path", [PATHS[0], COMPLETIONS])
@pytest.mark.parametrize("reason", ["abort", "error", "two words", "x" * 41])
def test_an_answer_that_was_given_up_is_no_answer(path: str, reason: str) -> None:
    """A server that gave up, or that puts a text where a word belongs, is an error."""
    given = chunk(path, "hi", reason)
    with pytest.raises(UpstreamError):
        streamed(path, [given])
    choice = given["choices"][0]
    choice["message"] = {"role": "assistant", "content": "hi"}
    del choice["message" if path == COMPLETIONS else "delta"]
    with pytest.raises(UpstreamError):
        rendered(path, given)


def test_a_new_stop_reason_of_a_message_costs_no_answer() -> None:
    """Messages tells a new word as it came; what is no word, and a server's giving up, refuse."""
    assert rendered(PATHS[1], messages_whole(says("hi")) | {"stop_reason": "compaction"})[
        "stop_reason"
    ] == ("compaction")
    start = {"type": "message_start", "message": {"id": "m", "content": [], "usage": {}}}
    delta = {"type": "message_delta", "delta": {"stop_reason": "novel"}, "usage": {}}
    assert streamed(PATHS[1], [start, delta])[-2]["delta"]["stop_reason"] == "novel"
    for reason, error in (("no word", UnknownReplyError), ("abort", BrokenReplyError)):
        with pytest.raises(error):
            ending(reason)
    assert choice_ending(None) is choice_ending("") is None


def test_a_response_is_cut_by_what_cut_it() -> None:
    """The reason of an incomplete response is the server's word, never one of ours."""
    whole = responses_whole(says("hi")) | {"status": "incomplete"}
    for reason, told in (("max_messages", "max_messages"), ("a text", "max_output_tokens")):
        body = whole | {"incomplete_details": {"reason": reason}}
        assert rendered(PATHS[2], body)["incomplete_details"] == {"reason": told}


@pytest.mark.parametrize(("phase", "told"), [("commentary", "commentary"), ("free text", None)])
def test_the_phase_of_a_message_reaches_the_client(phase: str, told: str | None) -> None:
    """A model wants the phase of its message back; only the two known words pass."""
    whole = responses_whole(says("hi"))
    whole["output"][0]["phase"] = phase
    assert rendered(PATHS[2], whole)["output"][0].get("phase") == told
    events = streamed(PATHS[2], [{"type": "response.completed", "response": whole}])
    assert events[-1]["response"]["output"][0].get("phase") == told


def test_a_failed_response_tells_what_failed() -> None:
    """A whole response that failed has the status and the code of its error, as in a stream."""
    error = {"code": "rate_limit_exceeded", "message": "unscored text"}
    whole = responses_whole(says("hi")) | {"status": "failed", "error": error}
    with pytest.raises(UpstreamError, match=r"\(rate_limit_exceeded\)") as caught:
        rendered(PATHS[2], whole)
    assert getattr(caught.value, "status", None) == 429


MARKED = {
    PATHS[0]: [chunk(PATHS[0], "hi", "stop"), b"[DONE]", chunk(PATHS[0], "more")],
    COMPLETIONS: [chunk(COMPLETIONS, "hi", "stop"), b"[DONE]", chunk(COMPLETIONS, "more")],
    PATHS[1]: [
        {"type": "message_start", "message": {"id": "m", "content": [], "usage": {}}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
        {"type": "message_stop"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "x"}},
    ],
    PATHS[2]: [
        {"type": "response.completed", "response": responses_whole(says("hi"))},
        {"type": "response.output_text.delta", "item_id": "item_0", "delta": "more"},
    ],
}


@pytest.mark.parametrize("path", [*PATHS, COMPLETIONS])
def test_what_follows_a_marked_end_is_nothing(path: str) -> None:
    """As with the vendors' own SDKs, nothing is read after the mark of the end."""
    assert streamed(path, MARKED[path]) == streamed(path, MARKED[path][:-1])


@pytest.mark.parametrize("path", [*PATHS, COMPLETIONS])
def test_a_server_that_keeps_its_stream_open_keeps_no_client_waiting(
    stage: Start, path: str
) -> None:
    """The client has its end when the upstream marked it, though the upstream never closes."""
    script = msgspec.structs.replace(says("Hello there."), fault=Fault.HANG_AT_END)
    at = stage(script, limits=msgspec.structs.replace(SMALL, idle_timeout_s=5))
    asked = {"model": "m", "prompt": "x", "stream": True}
    asked = asked if path == COMPLETIONS else body_for(path, "hi")
    assert post(at.gateway.port, path, json.dumps(asked).encode())[0] == 200
    row = at.finals()[-1]
    assert row.outcome is Outcome.COMPLIED
    assert "".join(item.text for item in row.delivered) == "Hello there."


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        (
            PATHS[1],
            {"messages": [{"role": "user", "content": [{"type": "novel"}]}]},
            (
                "$.messages[0].content[0].type: expected document or image or redacted_thinking "
                "or search_result or text or thinking or tool_reference or tool_result or "
                "tool_use, came another"
            ),
        ),
        (
            PATHS[0],
            {"messages": [{"role": "novel", "content": "x"}]},
            (
                "$.messages[0].role: expected assistant or developer or function or system or "
                "tool or user, came another"
            ),
        ),
        (PATHS[0], {"store": True}, "$.store: expected false, came another"),
        (
            PATHS[2],
            {"input": [{"role": "user", "content": "x"}, {"role": "novel", "content": "x"}]},
            "input[1].role: expected assistant or developer or system or user, came another",
        ),
        (PATHS[2], {"input": [{"type": "message", "role": "user"}]}, "required field `content`"),
        (PATHS[2], {"input": [{"type": "novel"}]}, "input[0]: expected messages, reasoning"),
    ],
)
def test_a_refusal_names_the_place_and_what_belongs_there(
    path: str, body: dict[str, Any], told: str
) -> None:
    """A word that the protocol has not is refused with the words it has, never with what came."""
    asked = body_for(path, "hi") | body
    with pytest.raises(WireError) as caught:
        CODECS[path]().parse(json.dumps(asked).encode(), Rules())
    assert told in str(caught.value)
    assert "novel" not in str(caught.value)


def test_what_a_search_of_the_clients_found_is_scored_and_goes_on() -> None:
    """A search result's title, source and texts are read, in a message and in a tool's result."""
    found = {
        "type": "search_result",
        "source": "https://example.org/bread",
        "title": "Bread",
        "content": [{"type": "text", "text": "knead it"}],
        "citations": {"enabled": True},
    }
    result = {"type": "tool_result", "tool_use_id": "t", "content": [found]}
    asked = {"model": "m", "max_tokens": 9}
    asked |= {"messages": [{"role": "user", "content": [found, result]}]}
    call = CODECS[PATHS[1]]().parse(json.dumps(asked).encode(), Rules())
    assert json.loads(call.body("m")) == asked
    scored = "\n".join(part.text for part in call.exchange.texts())
    assert [scored.count(one) for one in ("Bread", "example.org", "knead it")] == [2, 2, 2]


def test_what_is_asked_beside_the_answer_costs_no_answer() -> None:
    """An `include` of a vendor's own tools is dropped and counted."""
    asked = {"model": "m", "input": "hi", "include": ["web_search_call.action.sources"]}
    call = CODECS[PATHS[2]]().parse(json.dumps(asked).encode(), Rules())
    assert "include" not in json.loads(call.body("m"))
    assert call.dropped == 1
