"""A response told again: `GET /v1/responses/{id}`, from what was delivered."""

from typing import Any

from safehold.exchange import Channel, TextPart, Turn
from safehold.guard.gateway.protocols.json_border import encode


def retrieved(name: str, turn: Turn) -> bytes:
    """Return the response object of an answer; its texts are those that the client was given.

    Reasoning is left out: its signatures are not kept, so no client could send it back.
    """
    texts, calls = [], []
    for part in turn.parts:
        if not isinstance(part, TextPart):
            continue
        match part.channel:
            case Channel.TEXT | Channel.REFUSAL:
                texts.append({"type": "output_text", "text": part.text, "annotations": []})
            case Channel.TOOL_NAME:
                calls.append({"name": part.text, "arguments": ""})
            case Channel.TOOL_ARGUMENTS if calls:
                calls[-1]["arguments"] += part.text
            case _:
                continue
    output: list[dict[str, Any]] = []
    if texts:
        message = {"type": "message", "id": f"msg_{name}", "role": "assistant"}
        output.append(message | {"status": "completed", "content": texts})
    output += [
        {"type": "function_call", "id": f"fc_{name}_{at}", "call_id": f"call_{name}_{at}"} | call
        for at, call in enumerate(calls)
    ]
    body = {
        "id": name,
        "object": "response",
        "created_at": 0,
        "status": "completed",
        "model": "",
        "output": output,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "temperature": None,
        "top_p": None,
    }
    return encode(body)
