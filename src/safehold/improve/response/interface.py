"""What a response is made of: the incident, its dress, and variants of it."""

from enum import StrEnum
from typing import Annotated

import msgspec

from safehold.detect.redteam.interface import Wrapper
from safehold.errors import DataError

MOST_CHARS = 200_000
"""Characters of one example; a longer one is refused, never cut: its end may be what matters."""


class Defence(StrEnum):
    """What stands against the attacker."""

    GUARD = "guard"
    ACCOUNTS = "accounts"
    RESPONSE = "response"


class ResponseError(DataError):
    """The incident can't be answered as it stands; the message says what is missing."""


class IncidentKind(StrEnum):
    """What went wrong."""

    MISS = "miss"
    """A restricted request was answered."""
    FALSE_ALARM = "false-alarm"
    """A permitted request was refused."""


class Incident(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing that went wrong, as somebody found it.

    `at` is when it was found (seconds since the epoch, UTC). `source` says where it comes from: a
    decision id, a bounty submission, a file. `confirmed_by` is the person who read the text and
    says that it is what `kind` says; without one the guard itself must find the ask restricted.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
    kind: IncidentKind
    at: int
    text: str
    clause: str
    source: str
    reporter: str
    confirmed_by: str = ""


class Dress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an incident's ask is dressed: the text around it, and how the ask itself is encoded.

    `wrapper` has the slot `<<ask>>` where the ask stood; `chain` are transforms of the ask.
    `known_as` is the family that it resembles, empty where it is new.
    """

    wrapper: Wrapper
    chain: tuple[str, ...]
    ask: str
    known_as: str = ""


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One text like the incident's: with a restricted or a permitted ask in the same dress."""

    text: str
    restricted: bool
    held_out: bool
    """It is for measuring only; nothing learns from it."""


class Asks(msgspec.Struct, frozen=True):
    """Asks to put into a dress; the held-out ones are of families that nothing learnt from."""

    restricted: tuple[str, ...]
    permitted: tuple[str, ...]
    held_restricted: tuple[str, ...]
    held_permitted: tuple[str, ...]
    gate_permitted: tuple[str, ...] = ()
    """For the gates alone: neither learnt from nor used to set a threshold."""


def checked(text: str) -> str:
    """Return an example's text.

    Raises:
        ResponseError: It is empty or too long to be worked with.
    """
    if not text.strip():
        raise ResponseError("the example is empty; expected the text as it was sent")
    if len(text) > MOST_CHARS:
        raise ResponseError(
            f"the example has {len(text):,} characters, at most {MOST_CHARS:,} can be answered; "
            "send the turn that carries the attack"
        )
    return text
