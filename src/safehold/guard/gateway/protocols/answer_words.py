"""The words and counts of an upstream that go on unscored: each is of a set or of a small shape.

A reason why an answer ended is one short word. A vendor's new word costs no answer, and is told as
it came: a word of ours in its place would tell the client something that nobody said.
"""

import re
from collections.abc import Mapping
from typing import Any

from safehold.guard.gateway.interface import BrokenReplyError, UnknownReplyError

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_GAVE_UP = frozenset({"abort", "error", "cancelled", "insufficient_system_resource"})
_CHOICE_ENDS = {
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    "safety": "content_filter",
}
"""Other servers' words for a finish reason of OpenAI's, lower case."""
PHASES = frozenset({"commentary", "final_answer"})
"""What a message of a response may be; the model wants it back with the message."""
PROMPT_DETAILS = (
    "cached_tokens",
    "cache_write_tokens",
    "audio_tokens",
    "image_tokens",
    "text_tokens",
)
COMPLETION_DETAILS = (
    "reasoning_tokens",
    "audio_tokens",
    "image_tokens",
    "text_tokens",
    "accepted_prediction_tokens",
    "rejected_prediction_tokens",
)
CACHE_CREATION = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
OUTPUT_DETAILS = ("thinking_tokens",)


def word(value: object) -> str | None:
    """Return a value that is one short word, else None."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None


def ending(reason: str | None) -> str | None:
    """Return why an answer ended, None where it has not.

    Raises:
        BrokenReplyError: The server says that it gave up.
        UnknownReplyError: It is no word.
    """
    if not reason:
        return None
    if reason.lower() in _GAVE_UP:
        raise BrokenReplyError(
            f"upstream: gave up before its answer was complete ({reason.lower()})"
        )
    if word(reason) is None:
        raise UnknownReplyError("upstream: expected one word as the reason of an end, came text")
    return reason


def choice_ending(reason: str | None) -> str | None:
    """Return why a choice of OpenAI's protocols ended, in their words where they have one.

    Raises:
        BrokenReplyError: The server says that it gave up.
        UnknownReplyError: It is no word.
    """
    told = ending(reason.lower() if reason else None)
    return _CHOICE_ENDS.get(told, told) if told else None


def counted(given: Mapping[str, Any] | None, names: tuple[str, ...]) -> dict[str, int]:
    """Return the counts under known names; nothing else of a usage goes on."""
    told = {name: (given or {}).get(name) for name in names}
    return {name: value for name, value in told.items() if type(value) is int}
