"""Which texts of a prompt are scored: every part alone, the user's words together, every view.

A long text is also scored in pieces, so that stage 2 can be shown the piece that is hot and a
request can't hide in a long wrapper.
"""

from collections.abc import Iterator

import msgspec

from safehold.exchange import Channel, Exchange, Role, TextPart
from safehold.guard.session.escapes import unescaped

PIECE = 600
"""Characters of a piece of a long text."""
READ = 1200
"""Characters of prompt that stage 2 is shown."""


class Segment(msgspec.Struct, frozen=True):
    """A text to score and the turn it came from (-1: the user's turns joined)."""

    text: str
    turn: int


def segments(exchange: Exchange) -> Iterator[Segment]:
    """Yield the texts of a prompt: each part, then the user's recent words across turns."""
    said: list[str] = []
    for index, turn in enumerate(exchange.turns):
        for part in turn.parts:
            if isinstance(part, TextPart) and part.text.strip():
                yield Segment(part.text, index)
                if part.channel is Channel.TOOL_ARGUMENTS and "\\" in part.text:
                    yield Segment(unescaped(part.text), index)
                if turn.role is Role.USER:
                    said.append(part.text)
    if len(said) > 1:
        yield Segment("\n".join(said)[-2 * READ :], -1)


def pieces(text: str) -> list[str]:
    """Cut a long text into overlapping pieces at white space; a short text is its only piece."""
    if len(text) <= PIECE:
        return [text]
    step = PIECE // 2
    return [text[start : start + PIECE] for start in range(0, len(text) - step, step)]


def reading(exchange: Exchange) -> str:
    """Return the end of the conversation as stage 2 reads it beside a reply."""
    texts = [
        part.text
        for turn in exchange.turns
        for part in turn.parts
        if isinstance(part, TextPart) and turn.role is not Role.SYSTEM
    ]
    return "\n".join(texts)[-READ:]


def last_answer(exchange: Exchange) -> str:
    """Return the end of what the assistant said before, so that a split answer adds up."""
    for turn in reversed(exchange.turns):
        if turn.role is Role.ASSISTANT:
            return "\n".join(
                part.text
                for part in turn.parts
                if isinstance(part, TextPart) and part.channel is Channel.TEXT
            )[-READ // 2 :]
    return ""
