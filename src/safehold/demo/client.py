"""A small client of both protocols, streaming and not, that reads what any client would see."""

import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec

from safehold.demo.scenes import Scene, SceneProtocol, SceneVerdict
from safehold.errors import UpstreamError
from safehold.http_words import why_no_answer

MODEL = "smollm2-135m-instruct"
_MAX_TOKENS = 40
_TIMEOUT_S = 120.0
_OK = 200


class Heard(msgspec.Struct, frozen=True):
    """What came back: the verdict as the protocol says it, the text, the decision's id."""

    verdict: SceneVerdict
    text: str
    decision_id: str


async def play(base: str, scene: Scene) -> Heard:
    """Send one scene to the gateway at `base` and read the answer to its end.

    Raises:
        UpstreamError: The gateway answered with an error, or not at all.
    """
    path = "/v1/chat/completions" if scene.wire is SceneProtocol.OPENAI else "/v1/messages"
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(base + path, json=_body(scene)) as response,
        ):
            content = (await response.read()).decode()
            if response.status != _OK:
                raise UpstreamError(f"the gateway answered with status {response.status}")
            decision_id = response.headers.get("x-safehold-decision-id", "")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UpstreamError(f"the gateway did not answer ({why_no_answer(error)})") from error
    bodies = list(_events(content)) if scene.stream else [json.loads(content)]
    read = _openai if scene.wire is SceneProtocol.OPENAI else _anthropic
    blocked, text = read(bodies)
    return Heard(SceneVerdict.BLOCKED if blocked else SceneVerdict.ANSWERED, text, decision_id)


def _body(scene: Scene) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [
        {"role": roles[index % 2], "content": text} for index, text in enumerate(scene.said)
    ]
    return {
        "model": MODEL,
        "messages": messages,
        "max_tokens": _MAX_TOKENS,
        "temperature": 0,
        "stream": scene.stream,
    }


def _events(content: str) -> Iterator[dict[str, Any]]:
    for line in content.split("\n"):
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def _openai(bodies: list[dict[str, Any]]) -> tuple[bool, str]:
    choices = [choice for body in bodies for choice in body.get("choices", ())]
    parts = [choice.get("delta") or choice.get("message") or {} for choice in choices]
    text = "".join(part.get("content") or "" for part in parts)
    return any(choice.get("finish_reason") == "content_filter" for choice in choices), text


def _anthropic(bodies: list[dict[str, Any]]) -> tuple[bool, str]:
    texts: list[str] = []
    blocked = False
    for body in bodies:
        delta = body.get("delta") or {}
        texts.append(delta.get("text") or "")
        texts += [block.get("text") or "" for block in body.get("content") or ()]
        blocked = blocked or "refusal" in (body.get("stop_reason"), delta.get("stop_reason"))
    return blocked, "".join(texts)
