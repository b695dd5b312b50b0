"""Which settings a running gateway takes anew, and what it says about the others."""

import msgspec

from safehold.errors import ConfigError
from safehold.guard.gateway.policy import Settings

RELOADED = frozenset(
    {
        "keys",
        "tenants",
        "default",
        "surfaces",
        "embeddings",
        "limits",
        "canary",
        "bundle",
        "classes",
    }
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
    if _bundles(old) != _bundles(new):
        raise ConfigError(
            "classes: which there are and their bundles can't change while the gateway runs; "
            "restart it (nothing was reloaded)"
        )
    return names


def _bundles(settings: Settings) -> dict[str, tuple[str, tuple[str, ...], str | None]]:
    """Return what a running gateway has loaded, by class."""
    return {
        name: (one.bundle, one.bundle_keys, one.bundle_sha256)
        for name, one in settings.classes.items()
    }


def merged(current: Settings, declared: Settings) -> Settings:
    """Return the settings in use with what may change taken from newly declared ones."""
    return msgspec.structs.replace(current, **{name: getattr(declared, name) for name in RELOADED})
