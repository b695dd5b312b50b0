"""The official SDKs, unmodified, against a real socket."""

import anthropic
import msgspec
import openai
import pytest
from gateway_wire import Start

from safehold.guard.gateway.interface import REFUSAL
from safehold.testing.guards import MARKER
from safehold.testing.upstream import SaidRun, Script, says, split

BAD = f"Before it. Then the {MARKER} and what comes after."
TOOL = Script(said=(SaidRun(("{", '"city"', ":", '"Oslo"', "}"), channel="tool"),))


@pytest.fixture
def openai_at():  # noqa: ANN201 - a fixture
    """Return an OpenAI client for a stage."""
    clients = []

    def make(stage: Start) -> openai.OpenAI:
        client = openai.OpenAI(
            base_url=f"{stage.gateway.url}/v1", api_key="unused", max_retries=0, timeout=60
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def anthropic_at():  # noqa: ANN201 - a fixture
    """Return an Anthropic client for a stage."""
    clients = []

    def make(stage: Start) -> anthropic.Anthropic:
        client = anthropic.Anthropic(
            base_url=stage.gateway.url, api_key="unused", max_retries=0, timeout=60
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def asks(text: str) -> list[dict[str, str]]:
    """Return one user message."""
    return [{"role": "user", "content": text}]


def test_chat_plain(stage: Start, openai_at: Start) -> None:
    """A plain chat answer arrives whole, with its usage."""
    at = stage()
    answer = openai_at(at).chat.completions.create(model="m", messages=asks("hi"))
    assert answer.choices[0].message.content == "Hello from the mock."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == 12


def test_chat_stream(stage: Start, openai_at: Start) -> None:
    """A streamed chat answer arrives whole and ends with stop and usage."""
    at = stage(says("A longer text, in many pieces, that is quite harmless. " * 20))
    stream = openai_at(at).chat.completions.create(
        model="m", messages=asks("hi"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "A longer text, in many pieces, that is quite harmless. " * 20
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.total_tokens == 12


@pytest.mark.parametrize("streamed", [False, True])
def test_chat_tool_call(stage: Start, openai_at: Start, streamed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A tool call arrives with its id, its whole name and its arguments."""
    client = openai_at(stage(TOOL))
    if streamed:
        with client.chat.completions.stream(model="m", messages=asks("hi")) as stream:
            message = stream.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(model="m", messages=asks("hi")).choices[0].message
    call = message.tool_calls[0]
    assert (call.id, call.function.name, call.function.arguments) == (
        "call_0",
        "lookup",
        '{"city":"Oslo"}',
    )


@pytest.mark.parametrize("streamed", [False, True])
def test_chat_blocked_at_the_prompt(stage: Start, openai_at: Start, streamed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A blocked prompt is answered with the refusal, and nothing reaches the client's model."""
    at = stage()
    client = openai_at(at)
    if streamed:
        chunks = list(client.chat.completions.create(model="m", messages=asks(MARKER), stream=True))
        said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        refusal = "".join(c.choices[0].delta.refusal or "" for c in chunks if c.choices)
        reason = chunks[-1].choices[0].finish_reason
    else:
        answer = client.chat.completions.create(model="m", messages=asks(MARKER))
        said, refusal = answer.choices[0].message.content, answer.choices[0].message.refusal
        reason = answer.choices[0].finish_reason
        assert answer.choices[0].content_filter_results["restricted"]["filtered"] is True
    assert (said, refusal or None, reason) == (REFUSAL, None, "content_filter")
    assert at.finals()[-1].outcome == "blocked_by_guard"


@pytest.mark.parametrize("streamed", [False, True])
def test_chat_blocked_in_the_middle(stage: Start, openai_at: Start, streamed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A reply that turns restricted ends with the refusal; nothing of the phrase arrives."""
    script = says("Some harmless words first. " * 10 + BAD, size=3)
    client = openai_at(stage(msgspec.structs.replace(script, delay_s=0.001)))
    if streamed:
        chunks = list(client.chat.completions.create(model="m", messages=asks("hi"), stream=True))
        said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        reason = chunks[-1].choices[0].finish_reason
        assert said.startswith("Some harmless words first.")
    else:
        answer = client.chat.completions.create(model="m", messages=asks("hi"))
        said, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert said.endswith(REFUSAL)
    assert "purple" not in said
    assert reason == "content_filter"


def test_messages_plain(stage: Start, anthropic_at: Start) -> None:
    """A plain message arrives whole."""
    answer = anthropic_at(stage()).messages.create(model="m", max_tokens=9, messages=asks("hi"))
    assert answer.content[0].text == "Hello from the mock."
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens == 7


def test_messages_stream_with_thinking(stage: Start, anthropic_at: Start) -> None:
    """Thinking, its signature and text arrive as blocks in order."""
    said = (SaidRun(("think", "ing"), channel="reasoning"), SaidRun(split("An answer.", 3)))
    client = anthropic_at(stage(Script(said=said)))
    with client.messages.stream(model="m", max_tokens=9, messages=asks("hi")) as stream:
        answer = stream.get_final_message()
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].thinking == "thinking"
    assert answer.content[0].signature == "c2lnbmF0dXJl"
    assert answer.content[1].text == "An answer."


@pytest.mark.parametrize("streamed", [False, True])
def test_messages_tool_call(stage: Start, anthropic_at: Start, streamed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A tool use arrives with its id, name and input."""
    client = anthropic_at(stage(TOOL))
    given = {"model": "m", "max_tokens": 9, "messages": asks("hi")}
    if streamed:
        with client.messages.stream(**given) as stream:
            answer = stream.get_final_message()
    else:
        answer = client.messages.create(**given)
    block = answer.content[0]
    assert (block.type, block.id, block.name, block.input) == (
        "tool_use",
        "toolu_0",
        "lookup",
        {"city": "Oslo"},
    )
    assert answer.stop_reason == "tool_use"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("where", ["prompt", "reply"])
def test_messages_blocked(stage: Start, anthropic_at: Start, streamed: bool, where: str) -> None:  # noqa: FBT001 - a parameter of the test
    """A block ends a message with stop_reason refusal, details and the refusal text."""
    at = stage(says("Some harmless words first. " * 10 + BAD, size=3))
    client = anthropic_at(at)
    prompt = MARKER if where == "prompt" else "hi"
    given = {"model": "m", "max_tokens": 9, "messages": asks(prompt)}
    if streamed:
        with client.messages.stream(**given) as stream:
            answer = stream.get_final_message()
    else:
        answer = client.messages.create(**given)
    assert answer.stop_reason == "refusal"
    assert answer.stop_details.type == "refusal"
    assert answer.content[-1].text == REFUSAL
    assert "purple" not in str(answer.content)


def test_responses_plain(stage: Start, openai_at: Start) -> None:
    """A plain response arrives whole."""
    answer = openai_at(stage()).responses.create(model="m", input="hi")
    assert answer.output_text == "Hello from the mock."
    assert answer.status == "completed"
    assert answer.usage.total_tokens == 12


def test_responses_stream(stage: Start, openai_at: Start) -> None:
    """A streamed response with reasoning arrives event by event and ends completed."""
    said = (SaidRun(("thinking",), channel="reasoning"), SaidRun(split("An answer.", 3)))
    client = openai_at(stage(Script(said=said)))
    with client.responses.stream(model="m", input="hi") as stream:
        events = list(stream)
        answer = stream.get_final_response()
    assert answer.output_text == "An answer."
    assert answer.output[0].content[0].text == "thinking"
    assert [event.sequence_number for event in events] == sorted(
        event.sequence_number for event in events
    )
    assert events[-1].type == "response.completed"


@pytest.mark.parametrize("streamed", [False, True])
def test_responses_tool_call(stage: Start, openai_at: Start, streamed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A function call arrives with its id, name and arguments."""
    client = openai_at(stage(TOOL))
    if streamed:
        with client.responses.stream(model="m", input="hi") as stream:
            list(stream)
            answer = stream.get_final_response()
    else:
        answer = client.responses.create(model="m", input="hi")
    call = answer.output[0]
    assert (call.call_id, call.name, call.arguments) == ("call_0", "lookup", '{"city":"Oslo"}')


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("where", ["prompt", "reply"])
def test_responses_blocked(stage: Start, openai_at: Start, streamed: bool, where: str) -> None:  # noqa: FBT001 - a parameter of the test
    """A block completes a response, so that no agent asks again, and says content_filter."""
    client = openai_at(stage(says("Some harmless words first. " * 10 + BAD, size=3)))
    prompt = MARKER if where == "prompt" else "hi"
    if streamed:
        events = list(client.responses.create(model="m", input=prompt, stream=True))
        assert events[-1].type == "response.completed"
        answer = events[-1].response
    else:
        answer = client.responses.create(model="m", input=prompt)
    assert answer.status == "completed"
    assert answer.incomplete_details.reason == "content_filter"
    assert answer.output_text.endswith(REFUSAL)
    assert "purple" not in answer.output_text


def test_models_and_token_counts(stage: Start, openai_at: Start, anthropic_at: Start) -> None:
    """Models can be listed and tokens counted through the gateway."""
    at = stage()
    assert [model.id for model in openai_at(at).models.list()] == ["mock"]
    assert [model.id for model in anthropic_at(at).models.list()] == ["mock"]
    counted = anthropic_at(at).messages.count_tokens(model="m", messages=asks("hi"))
    assert counted.input_tokens == 7
