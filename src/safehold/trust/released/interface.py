"""Where a verifier finds the releases of its channel: the same part in every configuration."""

import tomllib
from pathlib import Path

import msgspec

from safehold.errors import ConfigError
from safehold.toml_text import parse_toml

_YEAR_S = 366 * 86_400


class ReleaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where releases come from. Whoever has this part enforces: nothing else takes effect.

    Args:
        log: Directory of the transparency log, or of a copy that is kept up to date.
        log_keys: Your pinned copy of its `log.json`.
        channel: Whose releases these are: this host's, or its fleet's.
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


def read_release_settings(path: Path) -> ReleaseSettings:
    """Return the settings of a TOML file; paths are meant beside it.

    Raises:
        ConfigError: unreadable, an unknown member, or a value of another kind.
    """
    try:
        text = path.read_text(encoding="utf-8")
        settings = msgspec.convert(parse_toml(text), ReleaseSettings)
    except OSError as error:
        raise ConfigError(f"can't read {path.name}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path.name}: {error}") from error
    return beside(settings, path.absolute().parent)


def beside(settings: ReleaseSettings, folder: Path) -> ReleaseSettings:
    """Return the settings with their paths meant beside a folder."""
    paths = ("log", "log_keys", "documents", "memory")
    fields = {name: str(folder / getattr(settings, name)) for name in paths}
    return msgspec.structs.replace(settings, **fields)
