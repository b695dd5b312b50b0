"""The wire values of OpenAI Responses, as this gateway accepts them.

Source: the `openai` SDK's types (3.54) and what vLLM and llama.cpp send. A field, item or part
that is not here refuses. `Dropped` fields are read and never forwarded to the client.
"""

from typing import Any, Literal

import msgspec

from safehold.guard.gateway.protocols.answer_words import (
    COMPLETION_DETAILS,
    PROMPT_DETAILS,
    counted,
    word,
)
from safehold.guard.gateway.protocols.json_border import always_written

Dropped = Any


class InputText(msgspec.Struct, tag="input_text", tag_field="type", forbid_unknown_fields=True):
    """Text of the user."""

    text: str


class OutputText(
    msgspec.Struct,
    tag="output_text",
    tag_field="type",
    forbid_unknown_fields=True,
):
    """Text of the model."""

    text: str
    annotations: list[Dropped] = []
    logprobs: list[Dropped] | msgspec.UnsetType | None = msgspec.UNSET


class RefusalPart(msgspec.Struct, tag="refusal", tag_field="type", forbid_unknown_fields=True):
    """The model's own refusal."""

    refusal: str


class InputImage(
    msgspec.Struct,
    tag="input_image",
    tag_field="type",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """An image."""

    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None


class InputFile(
    msgspec.Struct,
    tag="input_file",
    tag_field="type",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """A file."""

    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None


class ReasoningText(
    msgspec.Struct, tag="reasoning_text", tag_field="type", forbid_unknown_fields=True
):
    """Reasoning of the model."""

    text: str


class SummaryText(msgspec.Struct, tag="summary_text", tag_field="type", forbid_unknown_fields=True):
    """A summary of the model's reasoning."""

    text: str


InputPart = InputText | OutputText | RefusalPart | InputImage | InputFile
Status = Literal["in_progress", "completed", "incomplete"]


class MessageItem(
    msgspec.Struct, tag="message", tag_field="type", forbid_unknown_fields=True, omit_defaults=True
):
    """A message of any role."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputPart]
    id: str | None = None
    status: Status | None = None
    phase: Dropped = None


class CallItem(
    msgspec.Struct,
    tag="function_call",
    tag_field="type",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """A tool call."""

    name: str
    call_id: str
    arguments: str = always_written("")
    id: str | None = None
    status: Status | None = None
    namespace: str | None = None


class CallOutputItem(
    msgspec.Struct,
    tag="function_call_output",
    tag_field="type",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """What a tool answered."""

    call_id: str
    output: str | list[InputPart]
    id: str | None = None
    status: Status | None = None


class ReasoningItem(
    msgspec.Struct,
    tag="reasoning",
    tag_field="type",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Reasoning, readable or encrypted."""

    summary: list[SummaryText]
    id: str | None = None
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None
    status: Status | None = None


class CustomCallItem(
    msgspec.Struct,
    tag="custom_tool_call",
    tag_field="type",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """A call of a tool that takes free text."""

    name: str
    call_id: str
    input: str = always_written("")
    id: str | None = None
    status: Status | None = None
    namespace: str | None = None


class CustomCallOutputItem(
    msgspec.Struct,
    tag="custom_tool_call_output",
    tag_field="type",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """What a tool that takes free text answered."""

    call_id: str
    output: str | list[InputPart]
    id: str | None = None
    status: Status | None = None


ActionStatus = Literal["in_progress", "searching", "completed", "incomplete", "failed"]


class Action(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, omit_defaults=True):
    """What the model asks a tool of the client's to do, as JSON; each kind fills other fields."""

    id: str | None = None
    call_id: str | None = None
    status: ActionStatus | None = None
    action: dict[str, Any] | None = None
    actions: list[dict[str, Any]] | None = None
    operation: dict[str, Any] | None = None
    arguments: Any = None
    pending_safety_checks: list[dict[str, Any]] | None = None
    acknowledged_safety_checks: list[dict[str, Any]] | None = None
    execution: Literal["client"] | None = None
    environment: dict[str, Any] | None = None
    created_by: Dropped = None

    def asked(self) -> dict[str, Any]:
        """Return the fields that hold what is asked; every string in them is scored."""
        unread = ("id", "call_id", "status", "execution", "created_by")
        names = [name for name in self.__struct_fields__ if name not in unread]
        told = {name: getattr(self, name) for name in names}
        return {name: value for name, value in told.items() if value is not None}


class LocalShellCall(Action, tag="local_shell_call"):
    """A command for the client's shell."""


class ShellCall(Action, tag="shell_call"):
    """Commands for the client's shell."""


class ApplyPatchCall(Action, tag="apply_patch_call"):
    """A change of a file."""


class ComputerCall(Action, tag="computer_call"):
    """A step on the client's screen."""


class ToolSearchCall(Action, tag="tool_search_call"):
    """A search among the client's tools."""


AnyAction = LocalShellCall | ShellCall | ApplyPatchCall | ComputerCall | ToolSearchCall


class ActionOutput(
    msgspec.Struct, tag_field="type", forbid_unknown_fields=True, omit_defaults=True
):
    """What a tool of the client's answered to an action."""

    id: str | None = None
    call_id: str | None = None
    status: ActionStatus | None = None
    output: Any = None
    tools: list[dict[str, Any]] | None = None
    max_output_length: int | None = None
    execution: Literal["client"] | None = None
    acknowledged_safety_checks: list[dict[str, Any]] | None = None


class LocalShellOutput(ActionOutput, tag="local_shell_call_output"):
    """What the client's shell answered."""


class ShellOutput(ActionOutput, tag="shell_call_output"):
    """What the client's shell answered."""


class ApplyPatchOutput(ActionOutput, tag="apply_patch_call_output"):
    """Whether a file was changed."""


class ComputerOutput(ActionOutput, tag="computer_call_output"):
    """A picture of the client's screen."""


class ToolSearchOutput(ActionOutput, tag="tool_search_output"):
    """The tools that were found."""


AnyActionOutput = (
    LocalShellOutput | ShellOutput | ApplyPatchOutput | ComputerOutput | ToolSearchOutput
)


class MoreTools(
    msgspec.Struct, tag="additional_tools", tag_field="type", forbid_unknown_fields=True
):
    """Tools that are offered in the middle of a conversation."""

    tools: list[dict[str, Any]]
    role: str = "developer"
    id: str | None = None


InputItem = (
    MessageItem
    | CallItem
    | CallOutputItem
    | ReasoningItem
    | CustomCallItem
    | CustomCallOutputItem
    | AnyAction
    | AnyActionOutput
    | MoreTools
)


class ResponsesRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /v1/responses`; `input` items without a type are messages."""

    input: str | list[dict[str, Any]]
    model: str = ""
    instructions: str | None = None
    previous_response_id: str | None = None
    stream: bool | None = None
    stream_options: dict[str, bool] | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, str | None] | None = None
    metadata: dict[str, str] | None = None
    include: list[str] | None = None
    store: bool | None = None
    truncation: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    background: Literal[False] | None = None


class ResponsesUsage(msgspec.Struct):
    """Token counts; other fields of an upstream's usage are not read."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_tokens_details: dict[str, Any] | None = None
    output_tokens_details: dict[str, Any] | None = None

    def counts(self) -> dict[str, Any]:
        """Return the counts as the client gets them."""
        read = counted(self.input_tokens_details, PROMPT_DETAILS)
        written = counted(self.output_tokens_details, COMPLETION_DETAILS)
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": 0, **read},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0, **written},
            "total_tokens": self.total_tokens,
        }


OutputPart = OutputText | RefusalPart | ReasoningText


class OutputMessage(msgspec.Struct, tag="message", tag_field="type", forbid_unknown_fields=True):
    """A message of the model."""

    content: list[OutputText | RefusalPart]
    id: str | None = None
    role: str | None = None
    status: str | None = None
    phase: str | None = None


class OutputCall(msgspec.Struct, tag="function_call", tag_field="type", forbid_unknown_fields=True):
    """A tool call of the model."""

    name: str
    arguments: str = ""
    call_id: str | None = None
    id: str | None = None
    status: str | None = None
    namespace: str | None = None
    caller: Dropped = None


class OutputCustomCall(
    msgspec.Struct, tag="custom_tool_call", tag_field="type", forbid_unknown_fields=True
):
    """A call of a tool that takes free text."""

    name: str
    input: str = ""
    call_id: str | None = None
    id: str | None = None
    status: str | None = None
    namespace: str | None = None
    caller: Dropped = None


class OutputReasoning(
    msgspec.Struct, tag="reasoning", tag_field="type", forbid_unknown_fields=True
):
    """Reasoning of the model."""

    id: str | None = None
    summary: list[SummaryText] = []
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None
    status: str | None = None


OutputItem = OutputMessage | OutputCall | OutputCustomCall | OutputReasoning | AnyAction


class Response(msgspec.Struct):
    """A response object; fields that are not here are settings echoed back, and are not read."""

    id: str | None = None
    status: str | None = None
    created_at: float | None = None
    model: str | None = None
    output: list[OutputItem] = []
    usage: ResponsesUsage | None = None
    incomplete_details: dict[str, Any] | None = None
    error: Dropped = None

    def cut_by(self) -> dict[str, str]:
        """Return the `incomplete_details` of a response that is incomplete."""
        reason = word((self.incomplete_details or {}).get("reason"))
        return {"reason": reason or "max_output_tokens"}


class Begun(msgspec.Struct):
    """A response that has only begun; its output is not read."""

    id: str | None = None
    created_at: float | None = None
    model: str | None = None


class ResponsesEvent(msgspec.Struct, forbid_unknown_fields=True):
    """Any event of a stream; `type` says which fields matter."""

    type: str
    sequence_number: Dropped = None
    response: msgspec.Raw = msgspec.Raw(b"{}")
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    item_id: str | None = None
    item: msgspec.Raw = msgspec.Raw(b"{}")
    part: msgspec.Raw = msgspec.Raw(b"{}")
    delta: str | None = None
    text: str | None = None
    refusal: str | None = None
    arguments: str | None = None
    input: str | None = None
    name: str | None = None
    status: Dropped = None
    logprobs: Dropped = None
    obfuscation: Dropped = None
    timings: Dropped = None
    annotation: Dropped = None
    annotation_index: Dropped = None
    code: Dropped = None
    message: Dropped = None
    param: Dropped = None
    error: Dropped = None
