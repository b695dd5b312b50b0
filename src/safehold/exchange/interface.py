"""The unit that every part of Safehold speaks: one exchange with a model."""

from collections.abc import Iterator
from enum import StrEnum

import msgspec


class Role(StrEnum):
    """Who speaks in a turn."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Channel(StrEnum):
    """What kind of text a part holds; every channel is scored."""

    TEXT = "text"
    REASONING = "reasoning"
    REFUSAL = "refusal"
    TOOL_NAME = "tool_name"
    TOOL_ARGUMENTS = "tool_arguments"
    TOOL_RESULT = "tool_result"
    FIELD = "field"

    # Enum's own hash is a call of Python; lanes are looked up for every delta.
    __hash__ = str.__hash__


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="text"):
    """A run of text on one channel."""

    text: str
    channel: Channel = Channel.TEXT


class OpaquePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="opaque"):
    """Content that no text scorer can read (an image, a sound); only its identity is kept."""

    media_type: str
    sha256: str
    size_bytes: int


Part = TextPart | OpaquePart


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One speaker's contribution, in parts."""

    role: Role
    parts: tuple[Part, ...]


class Exchange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A conversation up to the point where the model is to answer, or with its answer."""

    turns: tuple[Turn, ...]

    def texts(self, *roles: Role) -> Iterator[TextPart]:
        """Yield every text part in order, of the given roles or (none given) of all."""
        for turn in self.turns:
            if not roles or turn.role in roles:
                for part in turn.parts:
                    if isinstance(part, TextPart):
                        yield part


class Lane(msgspec.Struct, frozen=True, forbid_unknown_fields=True, cache_hash=True):
    """One stream of characters inside a reply: a choice, a channel, and which part of it.

    `index` tells apart several blocks of one channel, such as parallel tool calls.
    """

    choice: int = 0
    channel: Channel = Channel.TEXT
    index: int = 0


def user_says(text: str, *, system: str | None = None) -> Exchange:
    """Return the one-turn exchange in which a user says `text`."""
    turns: list[Turn] = []
    if system is not None:
        turns.append(Turn(role=Role.SYSTEM, parts=(TextPart(text=system),)))
    turns.append(Turn(role=Role.USER, parts=(TextPart(text=text),)))
    return Exchange(turns=tuple(turns))
