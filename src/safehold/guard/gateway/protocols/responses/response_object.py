"""The response object that both forms of OpenAI Responses share."""

from typing import Any

import msgspec


class Settled(msgspec.Struct, frozen=True):
    """What a response echoes from its request."""

    model: str
    created: int
    instructions: str | None
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel: bool
    temperature: float | None
    top_p: float | None
    metadata: dict[str, str]
    previous: str | None

    def namespace(self, given: str | None) -> str | None:
        """Return the namespace of a call if the client's own tools name it; it is not scored."""
        known = {tool.get("name") for tool in self.tools if tool.get("type") == "namespace"}
        return given if given in known else None


def skeleton(settled: Settled, response_id: str, status: str) -> dict[str, Any]:
    """Return a response object without output."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": settled.created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": settled.instructions,
        "metadata": settled.metadata,
        "model": settled.model,
        "output": [],
        "parallel_tool_calls": settled.parallel,
        "previous_response_id": settled.previous,
        "temperature": settled.temperature,
        "tool_choice": settled.tool_choice,
        "tools": settled.tools,
        "top_p": settled.top_p,
        "usage": None,
    }


def text_part(text: str) -> dict[str, Any]:
    """Return an output_text part."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def message_item(item_id: str, text: str, status: str) -> dict[str, Any]:
    """Return a message item of one text part."""
    return {
        "type": "message",
        "id": item_id,
        "role": "assistant",
        "status": status,
        "content": [text_part(text)],
    }
