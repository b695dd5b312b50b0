"""An event stream as the whole answer that was asked, for a server that streams unasked.

The events go through the readers and writers of a stream first, so that dialects, unknown fields
and errors are what they always are; what those wrote is in one known form, and is joined here. The
joined body is then read and scored like any whole answer: nothing was released before.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from safehold.guard.gateway.interface import BrokenReplyError, Delta, Stream
from safehold.guard.gateway.protocols.json_border import encode
from safehold.guard.gateway.protocols.sse import EventReader

_NO_LIMIT = 1 << 40  # the events were bounded when they were read
Event = dict[str, Any]
_ONCE = ("role", "id", "type", "index", "name", "model", "object")
"""Fields that say what a piece belongs to; every other text of a piece is a part of a text."""


def is_stream(data: bytes) -> bool:
    """Whether a body begins as an event stream does (which no JSON text can)."""
    begun = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    return begun.startswith((b"data:", b"event:", b"id:", b"retry:", b":"))


def assembled(
    stream: Stream, events: Iterable[bytes], join: Callable[[list[Event]], Event]
) -> bytes:
    """Return a stream as a whole answer in the protocol's own form.

    Raises:
        UpstreamError: The stream is broken, ends with an error, or ends in the middle.
    """
    frames = [stream.begin()]
    for event in events:
        for piece in stream.read(event):
            if isinstance(piece, Delta):
                frames.append(stream.release(piece.lane, piece.text))
            else:
                frames.append(stream.close(piece.lane))
    if not stream.complete:
        raise BrokenReplyError("upstream: ended its stream in the middle of an answer")
    frames.append(stream.end())
    written = EventReader(_NO_LIMIT).feed(b"".join(frames))
    return encode(join([msgspec.json.decode(one) for one in written if one != b"[DONE]"]))


def joined_chat(events: list[Event]) -> Event:
    """Return the chunks of a chat answer, or of a completion, as one."""
    whole: Event = {}
    choices: dict[int, Event] = {}
    for event in events:
        for choice in event.pop("choices", ()):
            into = choices.setdefault(choice["index"], {})
            delta = choice.pop("delta", None)
            if delta is not None:
                _add(into.setdefault("message", {}), delta)
            finish = choice.pop("finish_reason", None)
            _add(into, choice)
            into["finish_reason"] = finish or into.get("finish_reason")
        _add(whole, event)
    return whole | {"choices": [choices[at] for at in sorted(choices)]}


def joined_messages(events: list[Event]) -> Event:
    """Return the events of a message as one."""
    message: Event = {}
    blocks: list[Event] = []
    inputs: dict[int, str] = {}
    for event in events:
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                blocks.append(event["content_block"])
            case "content_block_delta":
                delta = event["delta"]
                delta.pop("type")
                given = delta.pop("partial_json", None)
                if given is not None:
                    inputs[event["index"]] = inputs.get(event["index"], "") + given
                _add(blocks[event["index"]], delta)
            case "message_delta":
                message |= event["delta"] | {"usage": event["usage"]}
            case _:
                continue
    for at, text in inputs.items():
        try:
            blocks[at]["input"] = msgspec.json.decode(text or "{}")
        except msgspec.DecodeError as error:
            raise BrokenReplyError("upstream: expected a tool's input as JSON") from error
    return message | {"content": blocks}


def joined_responses(events: list[Event]) -> Event:
    """Return the response that the last event of a stream holds."""
    response: Event = events[-1]["response"]
    return response


def _add(into: Event, piece: Event) -> None:
    """Put a piece into what came before: texts and lists grow, objects by their fields."""
    for name, value in piece.items():
        known = into.get(name)
        if name == "tool_calls":
            _add_calls(into.setdefault(name, []), value)
        elif isinstance(known, dict) and isinstance(value, dict):
            _add(known, value)
        elif isinstance(known, list) and isinstance(value, list):
            known += value
        elif isinstance(known, str) and isinstance(value, str) and name not in _ONCE:
            into[name] = known + value
        elif value is not None or name not in into:
            into[name] = value


def _add_calls(calls: list[Event], pieces: list[Event]) -> None:
    for piece in pieces:
        call = next((one for one in calls if one["index"] == piece["index"]), None)
        if call is None:
            calls.append(piece)
        else:
            _add(call, piece)
