"""What a server's HTTP answer means: read with patience, refused by what it says, never guessed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.improve.synthesis.http_reply import (
    HttpReply,
    ReplyAnswers,
    ReplyEnds,
    ReplyFails,
    ReplyRejects,
    meaning,
)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def _whole(content: object, **more: object) -> HttpReply:
    body = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}], **more}
    return HttpReply(200, json.dumps(body).encode())


@given(_JSON, _JSON, _JSON)
def test_whatever_is_odd_beside_a_text_the_paid_answer_is_read(
    usage: object, tokens: object, other: object
) -> None:
    """Odd usage, fields and reasons to finish cost no answer; a count is a count or 0."""
    body = {
        "choices": [{"message": {"content": "well", "x": other}, "finish_reason": other}, other],
        "usage": {"prompt_tokens": tokens, "completion_tokens": usage},
    }
    for told in (
        meaning(HttpReply(200, json.dumps(body).encode())),
        meaning(_whole("well", usage=usage)),
    ):
        assert isinstance(told, ReplyAnswers)
        assert told.answer.text == "well"
        assert told.answer.prompt_tokens >= 0
        assert told.answer.completion_tokens >= 0


@pytest.mark.parametrize("count", ["10", 10.5, None, -3, True, [10], 10**400])
def test_a_count_that_is_none_is_no_count(count: object) -> None:
    """Tokens are a whole number of 0 and more, or left out; a good one beside them is kept."""
    told = meaning(_whole("well", usage={"prompt_tokens": 7, "completion_tokens": count}))
    assert isinstance(told, ReplyAnswers)
    assert (told.answer.prompt_tokens, told.answer.completion_tokens) == (7, 0)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "first, "}, {"type": "text", "text": "then"}], "first, then"),
        ([{"type": "thinking", "thinking": [{"text": "hm"}]}, {"type": "text", "text": "a"}], "a"),
        (["first", {"type": "image_url", "image_url": {"url": "x"}}], "first"),
        ("half a sign \ud83d", "half a sign ?"),
        (None, ""),
        (17, ""),
    ],
)
def test_text_is_read_in_the_forms_servers_write(content: object, text: str) -> None:
    """A text, or a list of parts of which the text parts count; anything else says nothing."""
    told = meaning(_whole(content))
    assert isinstance(told, ReplyAnswers)
    assert told.answer.text == text


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_beside_an_empty_message_is_an_unclosed_block(name: str) -> None:
    """It is kept as what came, and stands as reasoning for every reader; beside a text it goes."""
    for content, text in ((None, "<think>1. so, hm"), ("well", "well")):
        body = {"choices": [{"message": {"content": content, name: "1. so, hm"}}]}
        told = meaning(HttpReply(200, json.dumps(body).encode()))
        assert isinstance(told, ReplyAnswers)
        assert told.answer.text == text


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"error": {"code": "content_filter", "message": "The response was filtered"}}),
        (400, {"error": {"innererror": {"code": "ResponsibleAIPolicyViolation"}, "message": "x"}}),
        (400, {"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}}),
        (400, {"error": {"code": "data_inspection_failed", "message": "Input data ..."}}),
        (403, {"error": {"message": "requires moderation; your input was flagged", "code": 403}}),
        (422, {"error": {"message": "Output blocked by content filtering policy"}}),
    ],
)
def test_a_filter_that_stops_a_prompt_is_a_refusal(status: int, error: object) -> None:
    """Codes and words of content filters are answers to this prompt, whatever the status."""
    told = meaning(HttpReply(status, json.dumps(error).encode()))
    assert isinstance(told, ReplyAnswers)
    assert told.answer.refused == status


@pytest.mark.parametrize("status", [400, 406, 413, 415, 422, 431])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "Unsupported parameter: max_tokens"}}', "Unsupported parameter"),
        (b'{"error": "context length is 256 tokens"}', "context length is 256 tokens"),
        (b'{"object": "error", "message": "too\\nlong"}', "too long"),
        (b'{"detail": "no such field"}', "no such field"),
        (b'{"detail": [{"loc": ["seed"], "msg": "not a number"}]}', "not a number"),
        (b'[{"error": {"message": "bad seed"}}]', "bad seed"),
        (b"Failed to read the body: sk-1\n", r"Failed to read the body: ***"),
        (b"<html>Bad request</html>", ""),
        (b"\xff\xfe", ""),
        (b"", ""),
    ],
)
def test_an_error_of_the_request_is_no_answer(status: int, body: bytes, said: str) -> None:
    """It is rejected with the server's own message, in one line and without the key."""
    told = meaning(HttpReply(status, body), key="sk-1")
    assert isinstance(told, ReplyRejects)
    assert said in told.said
    assert told.said.startswith(f"HTTP {status}")
    assert "\n" not in told.said
    assert "sk-1" not in told.said


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 301, 308])
def test_what_no_request_changes_ends(status: int) -> None:
    """Keys, rights, credit, addresses and redirects end a run."""
    assert isinstance(meaning(HttpReply(status, b"{}")), ReplyEnds)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_asked_again(status: int) -> None:
    """A busy or broken server is asked again, after the time it asks for."""
    told = meaning(HttpReply(status, b"{}", wait_s=7.0))
    assert isinstance(told, ReplyFails)
    assert told.wait_s == 7.0


@pytest.mark.parametrize(
    ("body", "again"),
    [
        (b'{"error": "loading"}', True), (b"<html>", True), (b"", True), (b"{}", False),
        (b"null", False), (b'{"choices": []}', False), (b'data: {"choices": []}', False),
        (b'{"choices": [{"message": null}]}', False), (b"[" * 100_000, False),
    ],
)  # fmt: skip
def test_what_would_be_refused_the_same_way_is_not_asked_again(body: bytes, *, again: bool) -> None:
    """An answer of another form costs once; an error, a proxy's page and silence may pass."""
    told = meaning(HttpReply(200, body))
    assert isinstance(told, ReplyFails if again else ReplyEnds)
    assert "expected a chat completion, got" in told.said
