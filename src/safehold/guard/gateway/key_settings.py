"""What keys and tenants may use: budgets, models, surfaces, and until when."""

import datetime as dt
import unicodedata

import msgspec

from safehold.errors import ConfigError
from safehold.guard.gateway.interface import Surface

MOST_NAME_CHARS = 128


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one key may use; None is no limit. Flags are blocked or would-be-blocked exchanges.

    `unreadable_per_day`: characters that nobody can read; what a day has left of them is the most
    that one exchange may have.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    flags_per_day: int | None = None
    unreadable_per_day: int | None = 2_000


class TenantBudget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all keys of one tenant may use together; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    flags_per_day: int | None = None


class Tenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of all keys of one tenant, beside each key's own.

    `surfaces` and `models` empty mean all; a key may do what both its own and these allow.
    """

    surfaces: tuple[Surface, ...] = ()
    models: tuple[str, ...] = ()
    budget: TenantBudget = TenantBudget()


def check_name(what: str, name: str, *, slash: bool = True) -> None:
    """Refuse a name that no command line could type again, or no store could hold.

    An id has no slash: an account is `tenant/id`, and must be one pair alone.

    Raises:
        ConfigError: It is empty, too long, not printable, or not in composed characters.
    """
    if not 1 <= len(name) <= MOST_NAME_CHARS or not name.isprintable():
        raise ConfigError(
            f"{what}: expected 1 to {MOST_NAME_CHARS} printable characters in one line, came "
            + (f"{len(name)} characters" if name.isprintable() else "others")
        )
    if not unicodedata.is_normalized("NFC", name):
        raise ConfigError(f"{what}: expected composed characters (Unicode NFC), came others")
    if name != name.strip():
        raise ConfigError(f"{what}: expected no space at its ends")
    if not slash and "/" in name:
        raise ConfigError(f"{what}: expected a name without a slash: an account is tenant/id")


def moment(text: str) -> float:
    """Return the seconds since 1970 of a time in ISO 8601 with its zone.

    Raises:
        ConfigError: It is no such time.
    """
    try:
        at = dt.datetime.fromisoformat(text)
        seconds = at.timestamp() if at.tzinfo is not None else None
    except (ValueError, OverflowError) as error:
        raise ConfigError("expires_at: expected a time like 2027-01-31T18:00:00Z") from error
    if seconds is None:
        raise ConfigError("expires_at: expected a time with its zone, like 2027-01-31T18:00:00Z")
    return seconds
