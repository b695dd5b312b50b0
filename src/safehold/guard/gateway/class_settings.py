"""The further classes' part of the configuration: bundles beside the first one, and their rollout.

Each class has a bundle of its own, with its own thresholds. It starts in shadow.
"""

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from safehold.errors import ConfigError
from safehold.guard.gateway.interface import Surface

FIRST = "first"
"""What the gateway's own bundle is called where `class_name` does not say it."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_LONGEST_WAIT_S = 10
_SLOWEST_S = 60
"""The longest pause between two looks at the log."""


def check_class_name(name: str) -> None:
    """Refuse a name that rows, metrics and grants could not carry.

    Raises:
        ConfigError: It is no such name.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"classes: {name[:40]!r}: expected a name of 1 to 32 of a-z, 0-9, _ and -"
        )


def check_class_names(first: str, others: Iterable[str]) -> None:
    """Refuse names that could not be told apart.

    Raises:
        ConfigError: One of them is no name, or a further class has the first one's.
    """
    names = tuple(others)
    for name in (first, *names):
        check_class_name(name)
    if first in names:
        raise ConfigError(f"classes: {first} is the name of the first class (class_name)")


class GuardClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A class beside the first one; see docs/gateway.md.

    Args:
        bundle: Folder of its bundle, or a YAML file of rules.
        bundle_keys: Public keys that sign it; those of the first bundle where none is named.
        bundle_sha256: Digest of the one manifest to trust.
        rollout: In `shadow` it delivers everything and records what it would have blocked.
        surfaces: Where it acts once it is `on`; everywhere where none is named.
        tenants: For whose keys it acts once it is `on`; for all where none is named.
        reads: Whether its stage 2 reads what its stage 1 escalates, or every last request too.
        constitution: Name or file: which of its clauses an exemption may relax; none without.
        wait_s: How long an exchange waits for its stage 2 while it is in shadow.
    """

    bundle: str
    bundle_keys: tuple[str, ...] = ()
    bundle_sha256: str | None = None
    rollout: Literal["shadow", "on"] = "shadow"
    surfaces: tuple[Surface, ...] = ()
    tenants: tuple[str, ...] = ()
    reads: Literal["escalated", "every-request"] = "escalated"
    constitution: str | None = None
    wait_s: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a wait that would hold up the first class.

        Raises:
            ConfigError: `wait_s` is out of range, or no bundle is named.
        """
        if not self.bundle:
            raise ConfigError("classes: bundle: expected the folder of a bundle")
        if not 0 < self.wait_s <= _LONGEST_WAIT_S:
            raise ConfigError("classes: expected wait_s of more than 0 to 10")

    def acts(self, surface: Surface, tenant: str | None) -> bool:
        """Whether its blocks count for an exchange."""
        return (
            self.rollout == "on"
            and (not self.surfaces or surface in self.surfaces)
            and (not self.tenants or tenant in self.tenants)
        )


class ClassSwitchSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where grants that switch a class off come from; see docs/gateway.md.

    Args:
        log: Directory of the transparency log, or of a copy that is kept up to date.
        log_keys: Your pinned copy of its `log.json`.
        reload_s: How often the log is looked at: a revocation takes effect within this time.
    """

    log: str
    log_keys: str
    reload_s: float = 2.0

    def __post_init__(self) -> None:
        """Refuse a pause that would leave revocations unread.

        Raises:
            ConfigError: `reload_s` is out of range.
        """
        if not 0 < self.reload_s <= _SLOWEST_S:
            raise ConfigError("class_switches: expected reload_s of more than 0 to 60")
