"""The trial's part of the configuration: the signed file, the memory, whose signatures count."""

import msgspec

from safehold.errors import ConfigError

_SLOWEST_S = 60
"""The longest pause between two looks at the file."""


class TrialSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a trial comes from; see docs/response.md.

    Args:
        file: The signed file, which every worker follows; there is no trial where it is missing.
        memory: File that the workers share: how far the trial is and what its evidence says.
        keys: Whose signatures count: for each person, the file of their public key.
        secret_file: At least 16 random bytes: nobody without them knows which accounts are drawn.
        approvals: How many distinct persons let a trial go forward.
        reload_s: How often the file and the memory are looked at.
    """

    file: str
    memory: str
    keys: dict[str, str]
    secret_file: str
    approvals: int = 2
    reload_s: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what would let one person go forward, or leave the file unread.

        Raises:
            ConfigError: A number is out of range, or there are fewer persons than approvals.
        """
        if not 1 <= self.approvals <= len(self.keys):
            raise ConfigError(
                f"trial: {self.approvals} approvals are needed of {len(self.keys)} persons"
            )
        if not 0 < self.reload_s <= _SLOWEST_S:
            raise ConfigError("trial: expected reload_s of more than 0 to 60")
