"""The wire values of OpenAI Chat Completions, as this gateway accepts them.

Source: the `openai` SDK's types (3.54) and what vLLM, SGLang and llama.cpp add. A field that is
not here refuses. `Dropped` fields are read and never forwarded to the client.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from safehold.guard.gateway.protocols.answer_words import (
    COMPLETION_DETAILS,
    PROMPT_DETAILS,
    counted,
)
from safehold.guard.gateway.protocols.json_border import always_written

Dropped = Any


class FunctionCall(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A tool's name and its arguments as JSON text."""

    name: str | None = None
    arguments: str | None = None


class CustomCall(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A custom tool's name and its free-form input."""

    name: str | None = None
    input: str | None = None


class ToolCall(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A complete tool call."""

    id: str | None = None
    type: Literal["function", "custom"] = always_written("function")
    function: FunctionCall | None = None
    custom: CustomCall | None = None
    index: int | None = None


class TextContent(msgspec.Struct, tag="text", tag_field="type", forbid_unknown_fields=True):
    """A text part."""

    text: str


class RefusalContent(msgspec.Struct, tag="refusal", tag_field="type", forbid_unknown_fields=True):
    """A refusal part of an earlier answer."""

    refusal: str


class ImageContent(msgspec.Struct, tag="image_url", tag_field="type", forbid_unknown_fields=True):
    """An image, by address or as data."""

    image_url: dict[str, str]


class AudioContent(msgspec.Struct, tag="input_audio", tag_field="type", forbid_unknown_fields=True):
    """A sound."""

    input_audio: dict[str, str]


class FileContent(msgspec.Struct, tag="file", tag_field="type", forbid_unknown_fields=True):
    """A file."""

    file: dict[str, str]


Content = TextContent | RefusalContent | ImageContent | AudioContent | FileContent


class ChatMessage(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One message of a request."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[Content] | UnsetType | None = UNSET
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    annotations: list[Dropped] | None = None
    audio: None = None


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a stream should carry beside text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /v1/chat/completions`."""

    messages: list[ChatMessage]
    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    modalities: list[Literal["text"]] | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    # What vLLM, SGLang and llama.cpp add: numbers and switches only, never text for the model.
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    length_penalty: float | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None
    skip_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    priority: int | None = None


class ChatUsage(msgspec.Struct, omit_defaults=True):
    """Token counts."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: dict[str, int | None] | None = None
    completion_tokens_details: dict[str, int | None] | None = None
    prompt_cache_hit_tokens: int | None = None  # DeepSeek's
    prompt_cache_miss_tokens: int | None = None

    def counts(self) -> dict[str, Any]:
        """Return the counts as the client gets them: numbers under known names only."""
        counts: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
        }
        for name in ("prompt_cache_hit_tokens", "prompt_cache_miss_tokens"):
            if getattr(self, name) is not None:
                counts[name] = getattr(self, name)
        if read := counted(self.prompt_tokens_details, PROMPT_DETAILS):
            counts["prompt_tokens_details"] = read
        if written := counted(self.completion_tokens_details, COMPLETION_DETAILS):
            counts["completion_tokens_details"] = written
        return counts


class Logprob(msgspec.Struct):
    """One token's log probability; alternatives and bytes are not read."""

    token: str
    logprob: float


class Logprobs(msgspec.Struct):
    """The log probabilities that came with a piece of text."""

    content: list[Logprob] | None = None
    refusal: list[Logprob] | None = None


class ToolCallDelta(msgspec.Struct, forbid_unknown_fields=True):
    """A piece of a tool call."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionCall | None = None
    custom: CustomCall | None = None


class ReplyDelta(msgspec.Struct, forbid_unknown_fields=True):
    """A piece of one choice."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    function_call: FunctionCall | None = None
    audio: None = None
    annotations: list[Dropped] | None = None


class ChunkChoice(msgspec.Struct, forbid_unknown_fields=True):
    """One choice of one event."""

    delta: ReplyDelta
    index: int = 0
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    stop_reason: Dropped = None
    matched_stop: Dropped = None
    token_ids: Dropped = None
    content_filter_results: Dropped = None
    heard: tuple[float, ...] | None = None


class Chunk(msgspec.Struct, forbid_unknown_fields=True):
    """One event of a stream."""

    choices: list[ChunkChoice] = []
    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    usage: ChatUsage | None = None
    system_fingerprint: Dropped = None
    service_tier: Dropped = None
    obfuscation: Dropped = None
    moderation: Dropped = None
    timings: Dropped = None
    prompt_token_ids: Dropped = None
    prompt_filter_results: Dropped = None
    error: Dropped = None


class ReplyMessage(msgspec.Struct, forbid_unknown_fields=True):
    """The message of one choice of a complete answer."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None
    audio: None = None
    annotations: list[Dropped] | None = None


class ReplyChoice(msgspec.Struct, forbid_unknown_fields=True):
    """One choice of a complete answer."""

    message: ReplyMessage
    index: int = 0
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    stop_reason: Dropped = None
    matched_stop: Dropped = None
    token_ids: Dropped = None
    content_filter_results: Dropped = None
    heard: tuple[float, ...] | None = None


class ChatReply(msgspec.Struct, forbid_unknown_fields=True):
    """A complete answer."""

    choices: list[ReplyChoice]
    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    usage: ChatUsage | None = None
    system_fingerprint: Dropped = None
    service_tier: Dropped = None
    metadata: Dropped = None
    moderation: Dropped = None
    timings: Dropped = None
    prompt_logprobs: Dropped = None
    prompt_token_ids: Dropped = None
    prompt_filter_results: Dropped = None
    kv_transfer_params: Dropped = None
