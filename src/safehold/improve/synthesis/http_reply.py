"""What the HTTP answer of a chat server means: an answer, a refusal, or which kind of error.

An error of the request (a status of 4xx) is no answer and is never kept, since the server or the
options may be set right. Only an error that says that a content filter stopped it is an answer to
this prompt: a refusal. A completion is read with patience, since it is paid for: what is odd in it
beside its text is left out.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from safehold.improve.synthesis.calls import GeneratorAnswer

_OK = 200
_BUSY = frozenset({408, 429, 503, 504, 524, 529})
"""A server, or a proxy before it, that has more to do than it can."""
_LATER = _BUSY | {409, 425}
_FINAL = {
    401: "the key is missing or wrong: set SAFEHOLD_SYNTH_KEY",
    402: "the account has no credit left",
    403: "the key has no right to this model",
    404: "there is no such model or address: expected a base URL that ends in /v1",
    405: "this is no chat completions address: expected a base URL that ends in /v1",
}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OF_THE_CLIENT = range(400, 500)
_LONGEST_SAID = 200
"""Characters of a server's own message that a line of ours repeats."""
_LONGEST_NUMBER = 15
_FILTERS = frozenset(
    {
        "contentfilter",
        "contentpolicyviolation",
        "datainspectionfailed",
        "inputflagged",
        "moderationblocked",
        "promptblocked",
        "responsibleaipolicyviolation",
    }
)
"""Codes and types by which servers say that a filter stopped a prompt, letters alone."""
_FILTERED = re.compile(
    r"content[ _-]?(?:filter|management policy|policy|moderation|exists risk)"
    r"|\bflagged\b|moderation|safety (?:system|filter)|usage polic",
    re.IGNORECASE,
)
_REASONING = ("reasoning_content", "reasoning", "thinking")


class HttpReply(msgspec.Struct, frozen=True):
    """What a server answered; `wait_s` is how long a busy one asks to wait."""

    status: int
    body: bytes
    wait_s: float = 0.0
    leads_to: str = ""
    """The host that a redirect names."""


class ReplyAnswers(msgspec.Struct, frozen=True):
    """The model's answer to this call, or its server's refusal of the prompt: kept."""

    answer: GeneratorAnswer


class ReplyRejects(msgspec.Struct, frozen=True):
    """The server does not accept this request, and the same one would fare no better."""

    said: str


class ReplyFails(msgspec.Struct, frozen=True):
    """It failed this time, and the same request may be answered later.

    `wait_s` is how long to wait at least. `busy`: it has more to do than it can. `late`: nothing
    came in time.
    """

    said: str
    wait_s: float = 0.0
    busy: bool = False
    late: bool = False


class ReplyEnds(msgspec.Struct, frozen=True):
    """No request of this run would be answered."""

    said: str


ReplyMeaning = ReplyAnswers | ReplyRejects | ReplyFails | ReplyEnds


def meaning(reply: HttpReply, key: str = "") -> ReplyMeaning:
    """Return what an answer means; the key is taken out of what the server says."""
    status = reply.status
    if status == _OK:
        return _completion(reply.body, key)
    if status in _OF_THE_CLIENT and _is_filtered(reply.body):
        return ReplyAnswers(GeneratorAnswer(text="", finish="content_filter", refused=status))
    end = ends(reply, key)
    if end is not None:
        return end
    said = f"HTTP {status}{said_in(reply.body, key)}"
    if status in _OF_THE_CLIENT and status not in _LATER:
        return ReplyRejects(said)
    return ReplyFails(said, wait_s=reply.wait_s, busy=status in _BUSY)


def ends(reply: HttpReply, key: str = "") -> ReplyEnds | None:
    """Return what no second try and no other request would change, if it is that."""
    status = reply.status
    if status in _REDIRECTS:
        return ReplyEnds(
            f"expected an answer, got a redirect to {reply.leads_to or 'another path'} "
            f"(HTTP {status}), which is not followed, since the key would go with it: name the "
            "address that it leads to"
        )
    if status in _FINAL:
        return ReplyEnds(f"{_FINAL[status]} (HTTP {status}{said_in(reply.body, key)})")
    return None


def said_in(body: bytes, key: str = "") -> str:
    """Return `: ` and the message of a server's error, in one short line; empty where it has none.

    The key is taken out: some servers repeat it.
    """
    text = _message(body)
    if key:
        text = text.replace(key, "***")
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return f": {text[:_LONGEST_SAID]}" if text else ""


def _decoded(body: bytes) -> object:
    """Return the JSON of a body; None where it is none. A number of no sensible length is -1."""

    def whole(digits: str) -> int:
        return int(digits) if len(digits) <= _LONGEST_NUMBER else -1

    try:
        return json.loads(body, parse_int=whole)
    except (ValueError, RecursionError):
        return None


def _error(body: bytes) -> Mapping[str, Any]:
    """Return a server's error; empty where there is none. Some put it into a list."""
    found = _decoded(body)
    if isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, dict):
        return {}
    inner = found.get("error")
    if isinstance(inner, str):
        return {**found, "message": inner}
    return inner if isinstance(inner, dict) else found


def _message(body: bytes) -> str:
    """Return the message of an error as the servers in use write it; a short text is one too."""
    error = _error(body)
    for name in ("message", "detail", "msg"):
        said = error.get(name)
        if isinstance(said, str):
            return said
        if isinstance(said, list):
            parts = [one.get("msg") for one in said if isinstance(one, dict)]
            return "; ".join(part for part in parts if isinstance(part, str))
    plain = body.strip()
    if not plain or plain[:1] in b'<{["' or plain.startswith(b"data:"):
        return ""
    try:
        return plain.decode() if _decoded(plain) is None else ""
    except UnicodeDecodeError:
        return ""


def _codes(error: Mapping[str, Any]) -> Iterator[str]:
    for name in ("code", "type", "status"):
        if isinstance(error.get(name), str):
            yield "".join(char for char in error[name].casefold() if char.isalpha())
    for name in ("innererror", "inner_error"):
        if isinstance(error.get(name), dict):
            yield from _codes(error[name])


def _is_filtered(body: bytes) -> bool:
    return bool(_FILTERS & set(_codes(_error(body))) or _FILTERED.search(_message(body)))


def _completion(body: bytes, key: str) -> ReplyMeaning:
    """Read a body of status 200; what is no completion and would be none again ends the run."""
    found = _decoded(body)
    whole = found if isinstance(found, dict) else {}
    choices = whole.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if isinstance(choice, dict) and isinstance(message, dict):
        finish = choice.get("finish_reason")
        usage = whole.get("usage")
        return ReplyAnswers(
            GeneratorAnswer(
                text=_text(message),
                finish=_whole_text(finish) if isinstance(finish, str) else "",
                prompt_tokens=_tokens(usage, "prompt_tokens"),
                completion_tokens=_tokens(usage, "completion_tokens"),
            )
        )
    said = said_in(body, key) if found is not None else ""
    if said:
        return ReplyFails(f"expected a chat completion, got an error{said}")
    if not body.strip() or body.lstrip()[:1] == b"<":  # of a proxy, or of a server that starts
        return ReplyFails(
            f"expected a chat completion, got {'HTML' if body.strip() else 'nothing'}"
        )
    if body.lstrip().startswith(b"data:"):
        return ReplyEnds("expected a chat completion, got a stream of events")
    other = "something else" if choices is None else "one without a message"
    return ReplyEnds(f"expected a chat completion, got {other}")


def _text(message: Mapping[str, Any]) -> str:
    """Return what a message says, its text parts joined.

    Reasoning beside an empty message is returned as an unclosed block: what came is kept, and no
    reader takes it for an answer.
    """
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = [one.get("text") if isinstance(one, dict) else one for one in parts]
    text = "".join(one for one in texts if isinstance(one, str))
    if text.strip():
        return _whole_text(text)
    thought = next((message[name] for name in _REASONING if message.get(name)), "")
    return _whole_text(f"<think>{thought}") if isinstance(thought, str) and thought else ""


def _whole_text(text: str) -> str:
    """Return a text without half characters, which a cut can leave."""
    return text.encode("utf-8", "replace").decode()


def _tokens(usage: object, name: str) -> int:
    """Return a count of tokens; 0 where there is none that can be one."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if type(count) is int and count >= 0 else 0
