"""Every further endpoint, by the official SDK's method for it where there is one."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from gateway_wire import Start, post

from safehold.guard.gateway.interface import REFUSAL, Surface
from safehold.guard.gateway.policy import Budget, Key, SurfacePolicy, digest_key
from safehold.guard.interface import DeliveryMode
from safehold.guard.ledger.interface import Outcome
from safehold.testing.guards import MARKER
from safehold.testing.upstream import Fault, SaidRun, Script, says, split

BAD = f"Before it. Then the {MARKER} and what comes after."
KEY = "sk-safehold-0123456789abcdefghijklmnop"


@pytest.fixture
def client() -> Iterator[Any]:
    """Return a function that gives an OpenAI client for a stage."""
    made = []

    def make(at: Any, key: str = "unused") -> openai.OpenAI:
        one = openai.OpenAI(base_url=f"{at.gateway.url}/v1", api_key=key, max_retries=0, timeout=60)
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


def test_completion_is_answered_whole_and_streamed(stage: Start, client: Any) -> None:
    """`completions.create` gives the model's text, its end and its counts, and rows tell of it."""
    at = stage()
    asked = client(at).completions.create
    whole = asked(model="m", prompt="Say hello", max_tokens=9)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == (
        "Hello from the mock.",
        "stop",
    )
    assert whole.usage.completion_tokens == 5
    assert whole.choices[0].logprobs is None
    chunks = list(asked(model="m", prompt="Say hello", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello from the mock."
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert [row.surface for row in at.prompts()] == ["openai.completions"] * 2
    assert [row.delivered_bytes for row in at.finals()] == [20, 20]
    assert all(row.scored_bytes >= row.delivered_bytes for row in at.finals())


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("where", ["prompt", "suffix", "several", "reply", "extra"])
def test_completion_is_blocked_wherever_the_text_lies(
    stage: Start, client: Any, where: str, *, streamed: bool
) -> None:
    """A marker in any prompt, a suffix, a passed field or the reply is stopped."""
    at = stage(
        says(BAD)
        if where == "reply"
        else Script(
            said=(SaidRun(("fine",)), SaidRun(("fine",), choice=1))
            if where == "several"
            else (SaidRun(("fine",)),)
        )
    )
    given: dict[str, Any] = {"model": "m", "prompt": "hi", "stream": streamed}
    given |= {
        "prompt": {"prompt": MARKER},
        "suffix": {"suffix": MARKER},
        "several": {"prompt": ["hi", MARKER]},
        "extra": {"extra_body": {"guided_regex": MARKER}},
    }.get(where, {})
    answer = client(at).completions.create(**given)
    choices = [chunk.choices[0] for chunk in answer] if streamed else list(answer.choices)
    text = "".join(choice.text for choice in choices)
    assert MARKER not in text
    assert text.endswith(REFUSAL)
    assert choices[-1].finish_reason == "content_filter"
    assert at.finals()[-1].outcome is Outcome.BLOCKED_BY_GUARD


def test_echoed_prompt_is_scored_as_a_prompt_and_as_a_reply(stage: Start, client: Any) -> None:
    """With `echo` the prompt comes back: it was scored before, and its bytes are counted."""
    at = stage(says("hi there"))
    answer = client(at).completions.create(model="m", prompt="hi", echo=True)
    assert answer.choices[0].text == "hi there"
    assert at.upstream.requests[-1]["echo"] is True
    assert at.finals()[-1].scored_bytes >= 8


@pytest.mark.parametrize(
    "given",
    [
        {"prompt": [1, 2, 3]},
        {"prompt": [[1, 2], [3]]},
        {"prompt": ["a", [4]]},
        {"prompt": []},
        {"prompt": "x", "n": 500},
        {"prompt": "x", "prompt_embeds": "AAAA"},
        {"prompt": {"text": "x"}},
        {},
    ],
)
def test_prompt_that_no_scorer_reads_is_refused(stage: Start, given: dict) -> None:
    """Token ids, embeddings and other shapes are 400, with a row, and nothing goes upstream."""
    at = stage()
    body = json.dumps({"model": "m"} | given).encode()
    assert post(at.gateway.port, "/v1/completions", body)[0] in (400, 413)
    assert at.upstream.requests == []
    assert at.prompts()[-1].action == "refuse"


@pytest.mark.parametrize("fault", [Fault.HALF_CLOSE, Fault.BROKEN_JSON, Fault.STATUS_500])
def test_completion_that_breaks_ends_with_an_error(stage: Start, fault: Fault) -> None:
    """A stream that breaks has the protocol's error ending; a status is told as one."""
    at = stage(Script(said=(SaidRun(split("Hello there, friend. " * 9, 4)),), fault=fault))
    body = json.dumps({"model": "m", "prompt": "x", "stream": True}).encode()
    status, _, answer = post(at.gateway.port, "/v1/completions", body)
    assert status >= 500 or b'"error"' in answer
    assert at.finals()[-1].outcome is Outcome.ERROR


def test_completion_in_every_mode(stage: Start, client: Any) -> None:
    """`full` withholds all of a blocked text, `audit` delivers it and marks its end."""
    for mode, whole in ((DeliveryMode.FULL, False), (DeliveryMode.AUDIT, True)):
        at = stage(says(BAD), default=SurfacePolicy(mode=mode))
        stream = client(at).completions.create(model="m", prompt="hi", stream=True)
        text = "".join(chunk.choices[0].text for chunk in stream)
        assert (text == BAD) is whole
        assert ("Before" in text) is whole


def test_canary_goes_through_completions(stage: Start) -> None:
    """The new surface has its canary, like every surface whose answer is text."""
    at = stage()
    assert "openai.completions" in {
        row.surface for row in at.ledger.rows if getattr(row, "kind", "") == "canary"
    }


def test_moderation_is_answered_by_our_own_guard(stage: Start, client: Any) -> None:
    """One bit an input, a pair of rows each, no score, and no model is asked."""
    at = stage()
    found = client(at).moderations.create(input=["bread", BAD, "soap"], model="m")
    assert [result.flagged for result in found.results] == [False, True, False]
    assert found.results[1].categories.model_extra == {"restricted": True}
    scores = {
        value for result in found.results for value in result.category_scores.model_extra.values()
    }
    assert scores <= {0.0, 1.0}
    assert at.upstream.requests == []
    assert [row.surface for row in at.prompts()] == ["openai.moderations"] * 3
    assert len({row.decision_id for row in at.prompts()}) == 3
    assert [row.outcome for row in at.finals()].count(Outcome.BLOCKED_BY_GUARD) == 1
    one = client(at).moderations.create(input="plain", model="m")
    assert [result.flagged for result in one.results] == [False]
    parts = [{"type": "text", "text": "a " + MARKER[:8]}, {"type": "text", "text": MARKER}]
    assert client(at).moderations.create(input=parts).results[0].flagged


@pytest.mark.parametrize(
    "given",
    [{"input": []}, {"input": ["x"] * 33}, {"input": 7}, {}, {"input": [{"type": "image_url"}]}],
)
def test_moderation_of_what_no_scorer_reads_is_refused(stage: Start, given: dict) -> None:
    """Images, too many and other shapes are an error of the client's."""
    at = stage()
    assert post(at.gateway.port, "/v1/moderations", json.dumps(given).encode())[0] in (400, 413)


def test_flag_of_a_moderation_counts_against_the_budget(stage: Start, client: Any) -> None:
    """Asking the guard is not free: a flagged input is a flag, and suspends as any other."""
    key = Key(id="k", sha256=digest_key(KEY), budget=Budget(flags_per_day=1))
    at = stage(keys=(key,))
    client(at, KEY).moderations.create(input=BAD)
    with pytest.raises(openai.PermissionDeniedError):
        client(at, KEY).moderations.create(input="fine")


def test_embeddings_are_scored_as_prompts(stage: Start, client: Any) -> None:
    """Vectors of fair texts pass with rows; one bad input of many is a 400 and no vector."""
    at = stage(embeddings="pass")
    found = client(at).embeddings.create(model="m", input=["a", "b"], encoding_format="float")
    assert found.data[0].embedding == [0.5, 0.25]
    assert at.prompts()[-1].surface == "openai.embeddings"
    assert at.finals()[-1].outcome is Outcome.COMPLIED
    with pytest.raises(openai.BadRequestError) as caught:
        client(at).embeddings.create(model="m", input=["a", BAD])
    assert caught.value.code == "content_filter"
    assert at.finals()[-1].outcome is Outcome.BLOCKED_BY_GUARD
    for tokens in ([1, 2], [[1], [2]], ["x", [3]]):
        body = json.dumps({"model": "m", "input": tokens}).encode()
        assert post(at.gateway.port, "/v1/embeddings", body)[0] == 400


@pytest.mark.parametrize("place", ["query", "document", "field", None])
def test_rerank_is_scored_as_a_prompt(stage: Start, place: str | None) -> None:
    """Query and documents are scored; places and scores come back, never a document."""
    at = stage(embeddings="pass")
    given: dict[str, Any] = {"model": "m", "query": "q", "documents": ["d", {"text": "e"}]}
    match place:
        case "query":
            given["query"] = MARKER
        case "document":
            given["documents"][0] = MARKER
        case "field":
            given["documents"][1] = {"title": MARKER}
    status, _, answer = post(at.gateway.port, "/v1/rerank", json.dumps(given).encode())
    assert status == (200 if place is None else 400)
    assert b"unread" not in answer
    if place is None:
        assert json.loads(answer)["results"] == [{"index": 0, "relevance_score": 0.5}]
    assert post(stage().gateway.port, "/v1/rerank", json.dumps(given).encode())[0] == 400


def test_models_keep_what_a_client_reads(stage: Start, client: Any) -> None:
    """`models.list` keeps numbers and switches such as `max_model_len`; free text is left out."""
    at = stage()
    (model,) = client(at).models.list().data
    assert model.model_extra["max_model_len"] == 32_768
    assert model.model_extra["permission"] == [{"allow_sampling": True}]
    with anthropic.Anthropic(base_url=at.gateway.url, api_key="x", max_retries=0) as other:
        assert other.models.list().data[0].id == "mock"


def test_token_counts_of_both_vendors(stage: Start, client: Any) -> None:
    """`responses.input_tokens.count` and `messages.count_tokens` are answered."""
    at = stage()
    assert client(at).responses.input_tokens.count(model="m", input="hi").input_tokens == 9
    with anthropic.Anthropic(base_url=at.gateway.url, api_key="x", max_retries=0) as other:
        asked = [{"role": "user", "content": "hi"}]
        assert other.messages.count_tokens(model="m", messages=asked).input_tokens == 7


def test_response_is_retrieved_as_it_was_delivered(stage: Start, client: Any) -> None:
    """`responses.retrieve` tells again what this key was given; another key gets 404."""
    keys = tuple(
        Key(id=name, sha256=digest_key(secret)) for name, secret in (("a", KEY), ("b", KEY[::-1]))
    )
    at = stage(keys=keys)
    mine, other = client(at, KEY), client(at, KEY[::-1])
    given = mine.responses.create(model="m", input="hi")
    again = _eventually(mine, given.id)
    assert again.output_text == given.output_text == "Hello from the mock."
    assert again.status == "completed"
    with pytest.raises(openai.NotFoundError):
        other.responses.retrieve(given.id)
    with pytest.raises(openai.NotFoundError):
        mine.responses.retrieve("resp_nosuch")


def test_blocked_response_is_retrieved_without_what_was_withheld(stage: Start, client: Any) -> None:
    """Retrieval is no way round the guard: what was withheld is not there either."""
    at = stage(says(BAD))
    with client(at).responses.stream(model="m", input="hi") as stream:
        events = list(stream)
    assert events
    status = httpx.get(f"{at.gateway.url}/v1/responses/resp_1", timeout=60)
    assert MARKER not in status.text
    assert "what comes after" not in status.text


def _eventually(client: openai.OpenAI, name: str) -> Any:
    """Return a response once it is kept: that is after its last byte."""
    for attempt in itertools.count():
        try:
            return client.responses.retrieve(name)
        except openai.NotFoundError:
            if attempt > 200:
                raise
    return None


def test_new_surfaces_have_policies_of_their_own(stage: Start) -> None:
    """A surface is closed, and a key kept from it, by its own name."""
    closed = {Surface.COMPLETIONS: SurfacePolicy(closed=True)}
    at = stage(surfaces=closed)
    body = json.dumps({"model": "m", "prompt": "x"}).encode()
    assert post(at.gateway.port, "/v1/completions", body)[0] == 503
    key = Key(id="k", sha256=digest_key(KEY), surfaces=(Surface.CHAT,))
    at = stage(keys=(key,))
    extra = f"x-api-key: {KEY}\r\n"
    assert post(at.gateway.port, "/v1/completions", body, extra=extra)[0] == 403
    asked = json.dumps({"input": "x"}).encode()
    assert post(at.gateway.port, "/v1/moderations", asked, extra=extra)[0] == 403
