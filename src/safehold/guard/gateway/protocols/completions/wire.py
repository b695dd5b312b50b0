"""The JSON of OpenAI Completions, and what every frame and answer repeats.

Source: the `openai` SDK's types (3.54).
"""

from typing import Any

import msgspec

from safehold.guard.gateway.protocols.chat.wire import ChatUsage, StreamOptions


class CompletionRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /v1/completions`."""

    model: str
    prompt: str | list[str | int | list[int]]
    suffix: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: int | None = None
    echo: bool | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    best_of: int | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    user: str | None = None


class CompletionChoice(msgspec.Struct, forbid_unknown_fields=True):
    """One text of an answer; its log probabilities are read and dropped."""

    text: str = ""
    index: int = 0
    finish_reason: str | None = None
    logprobs: Any = None


class Completion(msgspec.Struct, forbid_unknown_fields=True):
    """An answer, whole or a piece of a stream."""

    choices: list[CompletionChoice] = []
    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    usage: ChatUsage | None = None
    system_fingerprint: str | None = None
    error: Any = None


def head_of(name: str, created: int, model: str) -> dict[str, Any]:
    """Return the fields that an answer and every frame begin with."""
    return {"id": name, "object": "text_completion", "created": created, "model": model}


def choice_of(index: int, text: str, finish: str | None) -> dict[str, Any]:
    """Return one text of an answer, without log probabilities."""
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}
