"""One exchange as chat messages in the form of Inspect (`ChatMessage` of inspect-ai 0.3)."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec

from safehold.exchange import Channel, OpaquePart, Part, Role, TextPart, Turn
from safehold.guard.ledger.joined import Joined
from safehold.guard.ledger.parquet_files import readable


def messages(one: Joined, *, content: bool) -> list[dict[str, Any]]:
    """Return the prompt's turns, and a message for each choice of what was delivered.

    Without `content` every text is the number of its characters, and no tool is named.
    """
    turns = list(one.exchange.turns) if one.exchange is not None else []
    choices: dict[int, list[TextPart]] = defaultdict(list)
    for lane in one.final.delivered:
        if lane.text:
            choices[lane.lane.choice].append(TextPart(lane.text, lane.lane.channel))
    turns += [Turn(Role.ASSISTANT, tuple(choices[choice])) for choice in sorted(choices)]
    return [
        _message(f"{one.decision_id}-{place}", turn, content=content)
        for place, turn in enumerate(turns)
    ]


def _message(name: str, turn: Turn, *, content: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"id": name, "role": turn.role.value}
    calls = _calls(name, turn.parts) if turn.role is Role.ASSISTANT else []
    told = [part for part in turn.parts if not (calls and _of_a_tool(part))]
    if not content:
        size = sum(len(part.text) for part in turn.parts if isinstance(part, TextPart))
        message["content"] = f"[{size} characters]"
        return message
    message["content"] = [_content(part) for part in told]
    if calls:
        message["tool_calls"] = calls
    return message


def _content(part: Part) -> dict[str, Any]:
    if isinstance(part, OpaquePart):
        about = f"[{part.media_type}, {part.size_bytes} bytes, sha256 {part.sha256}]"
        return {"type": "text", "text": readable(about)}
    text = readable(part.text)
    match part.channel:
        case Channel.REASONING:
            return {"type": "reasoning", "reasoning": text}
        case Channel.REFUSAL:
            return {"type": "text", "text": text, "refusal": True}
        case _:
            return {"type": "text", "text": text}


def _of_a_tool(part: Part) -> bool:
    return isinstance(part, TextPart) and part.channel in (
        Channel.TOOL_NAME,
        Channel.TOOL_ARGUMENTS,
    )


def _calls(name: str, parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Pair each tool's name with the arguments of the same place among the arguments."""
    texts = [part for part in parts if isinstance(part, TextPart)]
    tools = [part.text for part in texts if part.channel is Channel.TOOL_NAME]
    given = [part.text for part in texts if part.channel is Channel.TOOL_ARGUMENTS]
    given += [""] * (len(tools) - len(given))
    tools += ["unnamed"] * (len(given) - len(tools))
    return [
        {
            "id": f"{name}-{place}",
            "type": "function",
            "function": readable(tool),
            "arguments": _arguments(readable(text)),
        }
        for place, (tool, text) in enumerate(zip(tools, given, strict=True))
    ]


def _arguments(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):  # not an object: kept as it came
        return {"text": text} if text else {}
