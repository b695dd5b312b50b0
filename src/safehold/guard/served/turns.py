"""An exchange as the messages of a chat template."""

from safehold.exchange import Exchange, Role, TextPart
from safehold.guard.served.interface import Said

_ROLES = {Role.SYSTEM: "system", Role.USER: "user", Role.ASSISTANT: "assistant", Role.TOOL: "user"}


def said(exchange: Exchange, *, last_chars: int | None = None) -> tuple[Said, ...]:
    """Return the messages of an exchange; with `last_chars`, only the end of each text."""
    found: list[Said] = []
    for turn in exchange.turns:
        text = "\n".join(part.text for part in turn.parts if isinstance(part, TextPart))
        if last_chars is not None:
            text = text[-last_chars:]
        if text:
            found.append(Said(_ROLES[turn.role], text))
    return tuple(found)
