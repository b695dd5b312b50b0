"""Which settings a running gateway takes anew, and what it says about the others."""

import msgspec

from safehold.errors import ConfigError
from safehold.guard.gateway.policy import Settings

RELOADED = frozenset(
    {"keys", "tenants", "default", "surfaces", "embeddings", "limits", "canary", "bundle"}
)
"""What takes effect without a restart; open streams keep the policy that they began with."""


def changed(old: Settings, new: Settings) -> tuple[str, ...]:
    """Return which settings differ.

    Raises:
        ConfigError: One of them can't change while the gateway runs; nothing is taken then.
    """
    names = tuple(
        name for name in Settings.__struct_fields__ if getattr(old, name) != getattr(new, name)
    )
    fixed = [name for name in names if name not in RELOADED]
    if fixed:
        raise ConfigError(
            f"{', '.join(fixed)}: can't change while the gateway runs; restart it, or put the "
            "old value back (nothing was reloaded)"
        )
    return names


def merged(current: Settings, declared: Settings) -> Settings:
    """Return the settings in use with what may change taken from newly declared ones."""
    return msgspec.structs.replace(current, **{name: getattr(declared, name) for name in RELOADED})
