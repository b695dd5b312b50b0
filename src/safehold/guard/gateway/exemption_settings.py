"""The exemptions' part of the configuration: the log, the seats, and whose a client's key is."""

import msgspec

from safehold.errors import ConfigError

_SLOWEST_S = 3600
"""The longest pause between two looks at the log."""


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose key it is, by the immutable ids that grants name. One user is one seat.

    `use_case` holds for requests that do not declare one (`x-safehold-use-case`).
    """

    organisation: str = ""
    user: str = ""
    use_case: str = ""


class ExemptionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where exemptions come from, and who the clients' keys belong to.

    Args:
        log: Directory of the transparency log, or of a copy that is kept up to date.
        log_keys: Your pinned copy of its `log.json`.
        constitution: Name or file: which clauses may be relaxed at all.
        seats: File that counts seats; every worker of this host shares it.
        callers: For each id of a client's key, whose it is. Keys that are not here are not exempt.
        reload_s: How often the log is looked at: a revocation takes effect within this time.
    """

    log: str
    log_keys: str
    constitution: str
    seats: str
    callers: dict[str, Member] = {}
    reload_s: float = 2.0

    def __post_init__(self) -> None:
        """Refuse a pause that would leave revocations unread.

        Raises:
            ConfigError: `reload_s` is out of range.
        """
        if not 0 < self.reload_s <= _SLOWEST_S:
            raise ConfigError("exemptions: expected reload_s of more than 0 to 3600")
