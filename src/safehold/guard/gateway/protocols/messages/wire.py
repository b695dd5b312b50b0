"""The wire values of Anthropic Messages, as this gateway accepts them.

Source: the `anthropic` SDK's types (2.12). A field or block that is not here refuses. `Dropped`
fields are read and never forwarded to the client.
"""

from typing import Any, Literal

import msgspec

from safehold.guard.gateway.protocols.answer_words import (
    CACHE_CREATION,
    OUTPUT_DETAILS,
    counted,
)
from safehold.guard.gateway.protocols.json_border import always_written

Dropped = Any
Cache = dict[str, str]


class TextBlock(
    msgspec.Struct, tag="text", tag_field="type", forbid_unknown_fields=True, omit_defaults=True
):
    """A text block."""

    text: str
    cache_control: Cache | None = None
    citations: list[Dropped] | None = None


class ThinkingBlock(
    msgspec.Struct, tag="thinking", tag_field="type", forbid_unknown_fields=True, omit_defaults=True
):
    """The model's reasoning and the vendor's signature over it."""

    thinking: str
    signature: str = always_written("")


class RedactedBlock(
    msgspec.Struct, tag="redacted_thinking", tag_field="type", forbid_unknown_fields=True
):
    """Reasoning that only the vendor can read."""

    data: str


class ToolUseBlock(
    msgspec.Struct, tag="tool_use", tag_field="type", forbid_unknown_fields=True, omit_defaults=True
):
    """A tool call."""

    id: str
    name: str
    input: dict[str, Any]
    cache_control: Cache | None = None
    caller: Dropped = None
    toolset_name: None = None


class ImageBlock(
    msgspec.Struct, tag="image", tag_field="type", forbid_unknown_fields=True, omit_defaults=True
):
    """An image."""

    source: dict[str, str]
    cache_control: Cache | None = None


class DocumentBlock(
    msgspec.Struct, tag="document", tag_field="type", forbid_unknown_fields=True, omit_defaults=True
):
    """A document."""

    source: dict[str, Any]
    title: str | None = None
    context: str | None = None
    citations: dict[str, bool] | None = None
    cache_control: Cache | None = None


class SearchResultBlock(
    msgspec.Struct,
    tag="search_result",
    tag_field="type",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """What a search of the client's found."""

    source: str
    title: str
    content: list[TextBlock]
    citations: dict[str, bool] | None = None
    cache_control: Cache | None = None


class ToolReference(
    msgspec.Struct, tag="tool_reference", tag_field="type", forbid_unknown_fields=True
):
    """A tool that a client-run search of tools found."""

    tool_name: str


class ToolResultBlock(
    msgspec.Struct,
    tag="tool_result",
    tag_field="type",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """What a tool answered."""

    tool_use_id: str
    content: (
        str
        | list[TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolReference]
        | None
    ) = None
    is_error: bool | None = None
    cache_control: Cache | None = None


Block = (
    TextBlock
    | ThinkingBlock
    | RedactedBlock
    | ToolUseBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ToolResultBlock
    | ToolReference
)


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """One message of a request."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class MessagesRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /v1/messages`."""

    model: str
    messages: list[Message]
    max_tokens: int
    system: str | list[TextBlock] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, str | int] | None = None
    output_config: dict[str, Any] | None = None
    metadata: dict[str, str | None] | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    cache_control: Cache | None = None


class CountRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /v1/messages/count_tokens`."""

    model: str
    messages: list[Message]
    system: str | list[TextBlock] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, str | int] | None = None
    output_config: dict[str, Any] | None = None
    speed: str | None = None
    cache_control: Cache | None = None


class MessagesUsage(msgspec.Struct):
    """Token counts; other fields of an upstream's usage are not read."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: dict[str, int | None] | None = None
    output_tokens_details: dict[str, int | None] | None = None

    def counts(self) -> dict[str, Any]:
        """Return the counts as the client gets them."""
        counts: dict[str, Any] = {
            "input_tokens": self.input_tokens or 0,
            "output_tokens": self.output_tokens or 0,
        }
        if self.cache_creation_input_tokens is not None:
            counts["cache_creation_input_tokens"] = self.cache_creation_input_tokens
        if self.cache_read_input_tokens is not None:
            counts["cache_read_input_tokens"] = self.cache_read_input_tokens
        if created := counted(self.cache_creation, CACHE_CREATION):
            counts["cache_creation"] = created
        if written := counted(self.output_tokens_details, OUTPUT_DETAILS):
            counts["output_tokens_details"] = written
        return counts

    def plus(self, later: "MessagesUsage") -> "MessagesUsage":
        """Return these counts, overlaid by those that a later event gave."""
        given = {
            name: value
            for name, value in msgspec.structs.asdict(later).items()
            if value is not None
        }
        return msgspec.structs.replace(self, **given)


ReplyBlock = TextBlock | ThinkingBlock | RedactedBlock | ToolUseBlock


class Reply(msgspec.Struct, forbid_unknown_fields=True):
    """A complete answer."""

    content: list[ReplyBlock]
    id: str | None = None
    type: Literal["message"] = "message"
    role: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: MessagesUsage = msgspec.field(default_factory=MessagesUsage)
    stop_details: Dropped = None
    container: Dropped = None
    diagnostics: Dropped = None
    context_management: Dropped = None


class TextDelta(msgspec.Struct, tag="text_delta", tag_field="type", forbid_unknown_fields=True):
    """Text added to a text block."""

    text: str


class ThinkingDelta(
    msgspec.Struct, tag="thinking_delta", tag_field="type", forbid_unknown_fields=True
):
    """Text added to a thinking block."""

    thinking: str
    estimated_tokens: Dropped = None


class SignatureDelta(
    msgspec.Struct, tag="signature_delta", tag_field="type", forbid_unknown_fields=True
):
    """The signature of a thinking block."""

    signature: str


class CitationsDelta(msgspec.Struct, tag="citations_delta", tag_field="type"):
    """Where a text is from; it is not scored, so it is dropped."""

    citation: Dropped = None


class InputDelta(
    msgspec.Struct, tag="input_json_delta", tag_field="type", forbid_unknown_fields=True
):
    """JSON text added to a tool call's input."""

    partial_json: str


class MessageStart(
    msgspec.Struct, tag="message_start", tag_field="type", forbid_unknown_fields=True
):
    """The stream's first event."""

    message: Reply


class BlockStart(
    msgspec.Struct, tag="content_block_start", tag_field="type", forbid_unknown_fields=True
):
    """A block begins."""

    index: int
    content_block: ReplyBlock


class BlockDelta(
    msgspec.Struct, tag="content_block_delta", tag_field="type", forbid_unknown_fields=True
):
    """A block grows."""

    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputDelta | CitationsDelta


class BlockStop(
    msgspec.Struct, tag="content_block_stop", tag_field="type", forbid_unknown_fields=True
):
    """A block is complete."""

    index: int


class StopDelta(msgspec.Struct, forbid_unknown_fields=True):
    """Why the message ended."""

    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: Dropped = None
    container: Dropped = None


class MessageDelta(
    msgspec.Struct, tag="message_delta", tag_field="type", forbid_unknown_fields=True
):
    """The message's ending and counts."""

    delta: StopDelta
    usage: MessagesUsage = msgspec.field(default_factory=MessagesUsage)
    context_management: Dropped = None


class MessageStop(msgspec.Struct, tag="message_stop", tag_field="type"):
    """The stream's last event."""


class Ping(msgspec.Struct, tag="ping", tag_field="type"):
    """Nothing, to keep the connection open."""


class Failure(msgspec.Struct, tag="error", tag_field="type"):
    """The upstream gave up."""

    error: Dropped = None


Event = (
    MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | Ping | Failure
)
