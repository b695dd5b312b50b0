"""The releases' part of the configuration: the log, the documents, and what is remembered."""

import msgspec

from safehold.errors import ConfigError

_YEAR_S = 366 * 86_400


class ReleaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where releases come from. A gateway that has this part enforces: nothing else loads.

    Args:
        log: Directory of the transparency log, or of a copy that is kept up to date.
        log_keys: Your pinned copy of its `log.json`.
        channel: Whose releases these are: this gateway's, or its fleet's.
        documents: Folder of release documents, `SHA256.json`.
        memory: File that remembers what was accepted; `begin_memory` makes it once.
        max_age_s: How old the log's newest leaf may be when something is loaded.
    """

    log: str
    log_keys: str
    channel: str
    documents: str
    memory: str
    max_age_s: int = 7 * 86_400

    def __post_init__(self) -> None:
        """Refuse an age that would never be reached.

        Raises:
            ConfigError: `max_age_s` is out of range.
        """
        if not 0 < self.max_age_s <= _YEAR_S:
            raise ConfigError("releases: expected max_age_s of more than 0, at most a year")
