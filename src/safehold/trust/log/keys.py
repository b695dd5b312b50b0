"""`log.json`: the public keys of a log, read and written."""

from pathlib import Path

import msgspec

from safehold.trust.log.files import write_durably
from safehold.trust.log.interface import LogError
from safehold.trust.log.note import VerifierKey, parse_vkey


class LogKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`log.json`: the public keys of one log, as vkeys. Pin a copy of it where you verify."""

    origin: str
    key: str
    emitters: tuple[str, ...]
    witnesses: tuple[str, ...] = ()
    founding: str = ""
    """SHA-256 of the founding document: whose people decide here (empty: not founded yet)."""

    def log_key(self) -> VerifierKey:
        """Return the key that signs checkpoints."""
        return parse_vkey(self.key)

    def emitter_keys(self) -> dict[str, VerifierKey]:
        """Return the keys that sign leaves, by label."""
        return {key.label: key for key in map(parse_vkey, self.emitters)}

    def witness_keys(self) -> tuple[VerifierKey, ...]:
        """Return the witnesses' keys."""
        return tuple(map(parse_vkey, self.witnesses))


def read_keys(path: Path) -> LogKeys:
    """Return the keys of a `log.json`.

    Raises:
        LogError: unreadable or malformed.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=LogKeys)
    except OSError as error:
        raise LogError(f"can't read the log's keys {path.name}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise LogError(f"{path.name}: {error}") from error


def write_keys(path: Path, keys: LogKeys) -> None:
    """Write `log.json` durably."""
    write_durably(path, msgspec.json.format(msgspec.json.encode(keys), indent=2) + b"\n")
