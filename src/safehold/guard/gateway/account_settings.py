"""The account states' part of the configuration: the signed file, its keys, and the log."""

import msgspec

from safehold.errors import ConfigError

_SLOWEST_S = 60
"""The longest pause between two looks at the file."""


class AccountStateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where account states come from; see docs/detection.md.

    Args:
        file: The signed file of account states, which every worker follows.
        keys: Whose signature counts: for each writer, the file of its public key.
        memory: File that remembers the highest serial and the log's size, so that nothing returns.
        log: Directory of the transparency log that holds the grants of the upper steps. Without
            one no account can be suspended, and no step lasts more than a day.
        log_keys: Your pinned copy of its `log.json`.
        reload_s: How often file and log are looked at; a step is in force within this time.
    """

    file: str
    keys: dict[str, str]
    memory: str
    log: str | None = None
    log_keys: str | None = None
    reload_s: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what leaves states unread or unsigned.

        Raises:
            ConfigError: a number is out of range, no key is named, or the log lacks its keys.
        """
        if not self.keys:
            raise ConfigError("account_states: keys: expected the key of one writer at least")
        if (self.log is None) is not (self.log_keys is None):
            raise ConfigError("account_states: expected log and log_keys, or neither of them")
        if not 0 < self.reload_s <= _SLOWEST_S:
            raise ConfigError("account_states: expected reload_s of more than 0 to 60")
