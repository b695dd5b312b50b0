"""What keys and tenants may use: budgets, models, surfaces, and until when."""

import datetime as dt
import re
from collections.abc import Sequence

import msgspec

from safehold.errors import ConfigError
from safehold.guard.gateway.interface import Surface


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


def moment(text: str) -> float:
    """Return the seconds since 1970 of a time in ISO 8601 with its zone.

    Raises:
        ConfigError: It is no such time.
    """
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError("expires_at: expected a time like 2027-01-31T18:00:00Z") from error
    if at.tzinfo is None:
        raise ConfigError("expires_at: expected a time with its zone, like 2027-01-31T18:00:00Z")
    return at.timestamp()


def named(model: str, names: Sequence[str]) -> bool:
    """Whether a list of models has one; `*` stands for any letters, an empty list for all."""
    return not names or any(_pattern(name).fullmatch(model) for name in names)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in name.split("*")), re.DOTALL)
