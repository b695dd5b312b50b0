"""A whole answer as the events of a stream, for a server that does not stream what was asked so.

The events go through the same readers as any other stream's, so nothing in them is trusted: what
a reader does not know is dropped or refused there.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from safehold.guard.gateway.interface import BrokenReplyError

Event = Mapping[str, Any]


def chat_events(body: bytes) -> list[bytes]:
    """Return a whole chat completion as chunks.

    Raises:
        BrokenReplyError: The body is no JSON object.
    """
    return _events(body, _chat)


def messages_events(body: bytes) -> list[bytes]:
    """Return a whole message as its blocks' events.

    Raises:
        BrokenReplyError: The body is no JSON object.
    """
    return _events(body, _messages)


def responses_events(body: bytes) -> list[bytes]:
    """Return a whole response as the one event that holds all of it.

    Raises:
        BrokenReplyError: The body is no JSON object.
    """
    return _events(body, _responses)


def _events(body: bytes, of: Callable[[dict[str, Any]], Iterator[Event]]) -> list[bytes]:
    try:
        value = msgspec.json.decode(body, type=dict[str, Any])
        return [msgspec.json.encode(event) for event in of(value)]
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BrokenReplyError("upstream: expected an event stream, came broken JSON") from error


def _dicts(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _chat(reply: dict[str, Any]) -> Iterator[Event]:
    if "error" in reply and reply["error"] is not None:
        yield reply
        return
    head = {name: value for name, value in reply.items() if name not in ("choices", "usage")}
    head["object"] = "chat.completion.chunk"
    texts, ends = [], []
    for choice in _dicts(reply.get("choices")):
        message = choice.get("message")
        delta = dict(message) if isinstance(message, dict) else {}
        calls = _dicts(delta.get("tool_calls"))
        if calls:
            delta["tool_calls"] = [{**call, "index": at} for at, call in enumerate(calls)]
        rest = {name: value for name, value in choice.items() if name != "message"}
        texts.append(rest | {"delta": delta, "finish_reason": None})
        ends.append({"index": choice.get("index", 0), "delta": {}} | _only(choice, "finish_reason"))
    yield head | {"choices": texts}
    yield head | {"choices": ends} | _only(reply, "usage")


def _only(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value[name] for name in names if name in value}


def _messages(reply: dict[str, Any]) -> Iterator[Event]:
    if reply.get("type") == "error":
        yield reply
        return
    yield {
        "type": "message_start",
        "message": reply | {"content": [], "stop_reason": None, "stop_sequence": None},
    }
    for index, block in enumerate(_dicts(reply.get("content"))):
        begun, deltas = _block(block)
        yield {"type": "content_block_start", "index": index, "content_block": begun}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended = {"type": "message_delta", "delta": _only(reply, "stop_reason", "stop_sequence")}
    yield ended | _only(reply, "usage")
    yield {"type": "message_stop"}


def _block(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a block as it begins, and the deltas that fill it."""
    match block.get("type"):
        case "text":
            text = {"type": "text_delta", "text": block.get("text", "")}
            return block | {"text": ""}, [text]
        case "thinking":
            deltas = [{"type": "thinking_delta", "thinking": block.get("thinking", "")}]
            if block.get("signature"):
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
            return block | {"thinking": "", "signature": ""}, deltas
        case "tool_use":
            given = json.dumps(block.get("input", {}), ensure_ascii=False)
            return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": given}]
        case _:
            return block, []


def _responses(reply: dict[str, Any]) -> Iterator[Event]:
    status = reply.get("status")
    known = status if status in ("completed", "incomplete", "failed") else "completed"
    yield {"type": f"response.{known}", "sequence_number": 0, "response": reply}
