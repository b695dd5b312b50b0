"""The hot rules' part of the configuration: the signed file, and whose signatures count."""

import msgspec

from safehold.errors import ConfigError

_SLOWEST_S = 60
"""The longest pause between two looks at the file."""


class OverlaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where hot rules come from; see docs/response.md.

    Args:
        file: The signed file of hot rules, which every worker follows.
        keys: Whose signatures count: for each person, the file of their public key.
        memory: File that remembers the highest serial that was seen, so that no old file returns.
        approvals: How many distinct persons let a rule act.
        reload_s: How often the file is looked at; a rule acts within this time and its compiling.
        log: Directory of the transparency log. With one, a rule acts only once a grant of it stands
            there; a gateway with `releases` must name it.
        log_keys: Your pinned copy of its `log.json`.
    """

    file: str
    keys: dict[str, str]
    memory: str
    approvals: int = 2
    reload_s: float = 0.5
    log: str | None = None
    log_keys: str | None = None

    def __post_init__(self) -> None:
        """Refuse what would let one person act, or leave rules unread.

        Raises:
            ConfigError: A number is out of range, or there are fewer persons than approvals.
        """
        if not 1 <= self.approvals <= len(self.keys):
            raise ConfigError(
                f"hot_rules: {self.approvals} approvals are needed of {len(self.keys)} persons"
            )
        if (self.log is None) is not (self.log_keys is None):
            raise ConfigError("hot_rules: expected log and log_keys, or neither of them")
        if not 0 < self.reload_s <= _SLOWEST_S:
            raise ConfigError("hot_rules: expected reload_s of more than 0 to 60")
