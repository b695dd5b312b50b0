"""Keys and tenants of the admin API, as the store holds them for all workers and hosts."""

from typing import TypeVar

import msgspec

from safehold.errors import ConfigError
from safehold.guard.gateway.access.key_ring import Former
from safehold.guard.gateway.key_settings import Tenant
from safehold.guard.gateway.operate.shared_state import SharedState
from safehold.guard.gateway.policy import Key

KEY, FORMER, TENANT, BLOCKED = "key", "key-before", "tenant", "tenant-blocked"
REVOKED = "revoked"
_Row = TypeVar("_Row", bound=msgspec.Struct)


def managed_keys(state: SharedState) -> dict[str, Key | None]:
    """Return the keys that were made or revoked; None is a revoked one, or one of no sense."""
    known = state.of(KEY).items()
    return {name: _read(value, Key) for name, value in known if value is not None}


def former_keys(state: SharedState) -> dict[str, Former]:
    """Return the digests that keys had before they were rotated."""
    return _known(state, FORMER, Former)


def managed_tenants(state: SharedState) -> dict[str, Tenant]:
    """Return the tenants that were given bounds."""
    return _known(state, TENANT, Tenant)


def blocked_tenants(state: SharedState) -> tuple[str, ...]:
    """Return the tenants that were blocked, in order."""
    return tuple(sorted(name for name, value in state.of(BLOCKED).items() if value))


def _known(state: SharedState, kind: str, of: type[_Row]) -> dict[str, _Row]:
    rows = {name: _read(value, of) for name, value in state.of(kind).items() if value is not None}
    return {name: row for name, row in rows.items() if row is not None}


def _read(value: object, of: type[_Row]) -> _Row | None:
    try:
        return msgspec.convert(value, of)
    except (msgspec.ValidationError, ConfigError):
        return None
