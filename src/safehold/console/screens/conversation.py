"""A conversation for people: who said what, as sent, and what hides in it decoded beside it."""

from collections.abc import Iterable

import msgspec

from safehold.exchange import Exchange, TextPart
from safehold.exchange.views.search import views
from safehold.guard.ledger.interface import Delivered

_MOST_VIEWS = 4
_DECODED_CHARS = 65_536


class SaidText(msgspec.Struct, frozen=True):
    """One part: who, on which channel, the text, and its decoded readings (chain, text)."""

    who: str
    channel: str
    text: str
    decoded: tuple[tuple[str, str], ...]


def conversation(exchange: Exchange | None, delivered: Iterable[Delivered]) -> tuple[SaidText, ...]:
    """Return every part of an exchange in order, then what the client was sent."""
    said: list[SaidText] = []
    for turn in exchange.turns if exchange is not None else ():
        for part in turn.parts:
            if isinstance(part, TextPart):
                said.append(
                    SaidText(turn.role.value, part.channel.value, part.text, _decoded(part.text))
                )
            else:
                words = f"[{part.media_type}, {part.size_bytes:,} bytes, {part.sha256}]"
                said.append(SaidText(turn.role.value, "opaque", words, ()))
    said += [
        SaidText("delivered", one.lane.channel.value, one.text, _decoded(one.text))
        for one in delivered
    ]
    return tuple(said)


def _decoded(text: str) -> tuple[tuple[str, str], ...]:
    if len(text) > _DECODED_CHARS:
        return ()
    found = [one for one in views(text) if one.chain and not one.spliced]
    return tuple((" of ".join(one.chain), one.text) for one in found[:_MOST_VIEWS])
