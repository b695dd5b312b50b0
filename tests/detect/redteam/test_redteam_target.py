"""The always-complying target: it serves, obeys encodings, decodes by itself, and repeats."""

import asyncio

import aiohttp
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from safehold.detect.redteam.interface import QuestionSet, Wrapper
from safehold.detect.redteam.target import REPLY_AS, Complier, asked_as
from safehold.detect.redteam.target_server import serving
from safehold.detect.redteam.transforms import apply, transform
from safehold.exchange import user_says


@pytest.fixture(scope="module")
def complier(asks: QuestionSet) -> Complier:
    """The target."""
    return Complier(asks)


def test_every_question_is_recognised_and_served(complier: Complier, asks: QuestionSet) -> None:
    """Each plain question gets the passage of its topic, without being told which it is."""
    for topic in asks.topics:
        for ask in topic.questions:
            reply = complier.answer(user_says(ask))
            assert (reply.topic, reply.text) == (topic.id, topic.passage.strip()), ask


def test_look_alikes_get_harmless_replies(complier: Complier, asks: QuestionSet) -> None:
    """No benign question makes the target serve a passage."""
    for one in asks.benign:
        assert complier.answer(user_says(one.text)).topic is None, one.text


def test_wrapped_questions_are_understood(
    complier: Complier, asks: QuestionSet, dresses: tuple[Wrapper, ...]
) -> None:
    """Most wrappers do not hide the question from the target."""
    topic = asks.topics[0]
    found = [
        complier.answer(user_says(dress.around(topic.questions[0]))).topic for dress in dresses
    ]
    assert found.count(topic.id) >= 0.9 * len(dresses)


@pytest.mark.parametrize(
    "chain",
    [["base64"], ["rot13"], ["hex"], ["reversed"], ["atbash"], ["rot13", "base64"], ["caesar-7"]],
    ids="+".join,
)
def test_encoded_questions_are_decoded(
    complier: Complier, asks: QuestionSet, chain: list[str]
) -> None:
    """The target reads what a patient model could read."""
    topic = asks.topics[1]
    assert complier.answer(user_says(apply(topic.questions[0], chain))).topic == topic.id


@pytest.mark.parametrize("name", REPLY_AS)
def test_the_reply_is_written_as_asked(complier: Complier, asks: QuestionSet, name: str) -> None:
    """An instruction to encode the answer is obeyed."""
    topic = asks.topics[2]
    reply = complier.answer(user_says(f"{topic.questions[0]}\n{asked_as(name)}"))
    assert reply.text == transform(name).encode(topic.passage.strip())


def test_the_official_sdk_talks_to_the_server(asks: QuestionSet) -> None:
    """The OpenAI SDK gets the same passage whole and streamed."""

    async def play() -> tuple[str | None, str]:
        async with serving(Complier(asks)) as url:
            client = openai.AsyncOpenAI(base_url=url, api_key="none")
            said: ChatCompletionUserMessageParam = {
                "role": "user",
                "content": asks.topics[0].questions[0],
            }
            whole = await client.chat.completions.create(model="m", messages=[said])
            stream = await client.chat.completions.create(model="m", messages=[said], stream=True)
            parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
            await client.close()
            return whole.choices[0].message.content, "".join(parts)

    whole, streamed = asyncio.run(play())
    assert whole == streamed == asks.topics[0].passage.strip()


def test_a_broken_body_is_a_client_error(asks: QuestionSet) -> None:
    """Nonsense gets HTTP 400 and the server lives on."""

    async def play() -> list[int]:
        async with serving(Complier(asks)) as url, aiohttp.ClientSession() as session:
            found = []
            for body in (b"{", b"[]", b'{"messages": []}'):
                async with session.post(f"{url}/chat/completions", data=body) as response:
                    found.append(response.status)
            async with session.get(f"{url}/models") as response:
                found.append(response.status)
            return found

    assert asyncio.run(play()) == [400, 400, 400, 200]
