"""The output items of OpenAI Responses: the texts in each, and each written anew.

A message, a call and reasoning grow by deltas. An action (a shell command, a patch, a step on a
screen) is JSON that is of use only whole: its text is that JSON, and it is written when all of it
was released.
"""

from typing import Any, assert_never

import msgspec

from safehold.exchange import Channel, Lane
from safehold.guard.gateway.protocols.answer_words import PHASES
from safehold.guard.gateway.protocols.json_border import encode, identifier
from safehold.guard.gateway.protocols.passed_fields import Field
from safehold.guard.gateway.protocols.responses import wire as w
from safehold.guard.gateway.protocols.responses.response_object import text_part

KINDS = {
    "text": Channel.TEXT,
    "refusal": Channel.REFUSAL,
    "reasoning": Channel.REASONING,
    "summary": Channel.REASONING,
    "arguments": Channel.TOOL_ARGUMENTS,
    "input": Channel.TOOL_ARGUMENTS,
    "action": Channel.TOOL_ARGUMENTS,
}
ALLOWED = {
    "message": ("text", "refusal"),
    "function_call": ("arguments",),
    "custom_tool_call": ("input",),
    "reasoning": ("reasoning", "summary"),
}
"""The kinds of text that an item may hold; an item that is not here is an action."""
GROWING = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "summary",
    "response.function_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
}
WHOLE = {
    "response.output_text.done": "text",
    "response.refusal.done": "refusal",
    "response.reasoning_text.done": "reasoning",
    "response.reasoning_summary_text.done": "summary",
    "response.function_call_arguments.done": "arguments",
    "response.custom_tool_call_input.done": "input",
}
_TAGS = {
    w.OutputMessage: "message",
    w.OutputCall: "function_call",
    w.OutputCustomCall: "custom_tool_call",
    w.OutputReasoning: "reasoning",
    w.LocalShellCall: "local_shell_call",
    w.ShellCall: "shell_call",
    w.ApplyPatchCall: "apply_patch_call",
    w.ComputerCall: "computer_call",
    w.ToolSearchCall: "tool_search_call",
}


def kind_of(item: w.OutputItem) -> str:
    """Return the item's type, as the protocol writes it."""
    return _TAGS[type(item)]


def texts_of(item: w.OutputItem) -> list[tuple[str, int, str]]:
    """Return the texts of a whole item but its name: their kind, place and text."""
    match item:
        case w.OutputMessage(content=parts):
            return [
                ("text", at, part.text)
                if isinstance(part, w.OutputText)
                else ("refusal", at, part.refusal)
                for at, part in enumerate(parts)
            ]
        case w.OutputCall(arguments=arguments):
            return [("arguments", 0, arguments)]
        case w.OutputCustomCall(input=given):
            return [("input", 0, given)]
        case w.OutputReasoning(summary=summary, content=content):
            told = [("summary", at, part.text) for at, part in enumerate(summary)]
            return told + [("reasoning", at, part.text) for at, part in enumerate(content or ())]
        case w.Action():
            return [("action", 0, encode(item.asked()).decode())]
        case other:
            assert_never(other)


class ItemText:
    """One text of one item: its lane, and what was released."""

    def __init__(self, item: "ClientItem", kind: str, lane: Lane, at: int) -> None:
        self.item, self.kind, self.lane, self.at = item, kind, lane, at
        self.texts: list[str] = []
        self.begun = False
        self.prefix = b""

    @property
    def text(self) -> str:
        """What was released of it."""
        return "".join(self.texts)


class ClientItem:
    """One output item as the client gets it."""

    def __init__(self, kind: str, item_id: str, call_id: str) -> None:
        self.kind, self.item_id, self.call_id = kind, item_id, call_id
        self.parts: dict[tuple[str, int], ItemText] = {}
        self.name_texts: list[str] = []
        self.namespace: str | None = None
        self.phase: str | None = None
        self.secret: str | None = None
        self.index = -1
        self.fields: list[Field] = []

    @property
    def name(self) -> str:
        """What was released of its name."""
        return "".join(self.name_texts)

    def learn_phase(self, item: w.OutputItem) -> None:
        """Take which phase of its answer a message says that it is, if it is one of the known."""
        phase = item.phase if isinstance(item, w.OutputMessage) else None
        self.phase = phase if phase in PHASES else self.phase

    def shown(self, status: str) -> dict[str, Any]:
        """Return the item as far as its text was released."""
        parts = [part for part in self.parts.values() if part.begun]
        text = "".join(part.text for part in parts)
        head: dict[str, Any] = {"type": self.kind, "id": self.item_id}
        call = head | {"call_id": self.call_id}
        match self.kind:
            case "function_call":
                return call | self._named() | {"arguments": text, "status": status}
            case "custom_tool_call":
                return call | self._named() | {"input": text, "status": status}
            case "reasoning":
                summary = [part.text for part in parts if part.kind == "summary"]
                thoughts = [part.text for part in parts if part.kind == "reasoning"]
                return head | reasoning_fields(summary, thoughts, self.secret)
            case "message":
                content = [shown_part(part.kind, part.text) for part in parts]
                message = {"role": "assistant", "status": status, "content": content}
                return head | message | ({"phase": self.phase} if self.phase else {})
            case _:
                asked = msgspec.json.decode(text) if text else {}
                return call | {"status": status} | _action_defaults(self.kind) | asked

    def _named(self) -> dict[str, Any]:
        space = {} if self.namespace is None else {"namespace": self.namespace}
        return {"name": self.name, **space}


def shown_part(kind: str, text: str) -> dict[str, Any]:
    """Return a part of a message or of reasoning."""
    if kind == "refusal":
        return {"type": "refusal", "refusal": text}
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return text_part(text)


def reasoning_fields(summary: list[str], thoughts: list[str], secret: str | None) -> dict[str, Any]:
    """Return what a reasoning item holds beside its type and id."""
    return {
        "summary": [{"type": "summary_text", "text": text} for text in summary],
        "content": [{"type": "reasoning_text", "text": text} for text in thoughts] or None,
        "encrypted_content": secret,
    }


def _action_defaults(kind: str) -> dict[str, Any]:
    return {"execution": "client"} if kind == "tool_search_call" else {}


def whole_item(item: w.OutputItem, index: int, namespace: str | None) -> dict[str, Any]:
    """Return an item of a complete answer, built from the fields that were scored."""
    prefix = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
    kind = kind_of(item)
    call = getattr(item, "call_id", None)
    entry = ClientItem(
        kind,
        identifier(item.id, f"{prefix.get(kind, 'item')}_{index}"),
        identifier(call, f"call_{index}"),
    )
    if isinstance(item, w.OutputCall | w.OutputCustomCall):
        entry.name_texts.append(item.name)
        entry.namespace = namespace
    entry.learn_phase(item)
    if isinstance(item, w.OutputReasoning):
        entry.secret = item.encrypted_content
    for number, (part_kind, at, text) in enumerate(texts_of(item)):
        lane = Lane(channel=KINDS[part_kind], index=number)
        part = entry.parts[part_kind, at] = ItemText(entry, part_kind, lane, at)
        part.begun = True
        part.texts.append(text)
    return entry.shown("completed")
