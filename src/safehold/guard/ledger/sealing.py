"""Content of held decisions, encrypted at rest where the operator gives a key.

A hold keeps content longer than retention would; with a key it is kept encrypted (AES-256-GCM, a
nonce for each value). The decision and the column are inside, so that no value can stand in for
another. Every other column stays readable: who asked, when, and what the guard said.

The key is a file of 32 bytes that `SAFEHOLD_LEDGER_KEY` names, in every process that shall read or
hold. Without it a sealed exchange reads as none, and a sealed reply as empty with the error
`Sealed`: nothing else breaks.
"""

import base64
import binascii
import os
import secrets
from functools import lru_cache
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from safehold.errors import ConfigError, LedgerError
from safehold.trust.log.files import write_new
from safehold.trust.log.key_files import read_secret

VARIABLE = "SAFEHOLD_LEDGER_KEY"
PREFIX = "sealed:1:"  # never the beginning of JSON, which every content column holds
_KEY_BYTES = 32
_NONCE_BYTES = 12


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    decision_id: str
    column: str
    value: str


class ContentKey:
    """The operator's key for held content."""

    def __init__(self, raw: bytes) -> None:
        """Take the 32 bytes."""
        if len(raw) != _KEY_BYTES:
            raise ConfigError(f"a ledger key is {_KEY_BYTES} bytes, came {len(raw)}")
        self._cipher = AESGCM(raw)

    def seal(self, value: str, *, decision_id: str, column: str) -> str:
        """Return the value encrypted; a sealed one as it is."""
        if is_sealed(value):
            return value
        nonce = secrets.token_bytes(_NONCE_BYTES)
        body = msgspec.json.encode(_Value(decision_id, column, value))
        return PREFIX + base64.b64encode(nonce + self._cipher.encrypt(nonce, body, None)).decode()

    def open(self, value: str, *, decision_id: str, column: str) -> str:
        """Return what was sealed.

        Raises:
            LedgerError: it is another key's, another place's, or changed.
        """
        try:
            data = base64.b64decode(value.removeprefix(PREFIX), validate=True)
            plain = self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], None)
            found = msgspec.json.decode(plain, type=_Value)
        except (InvalidTag, binascii.Error, ValueError, msgspec.DecodeError) as error:
            raise LedgerError(f"held content of {decision_id}: not this key's") from error
        if (found.decision_id, found.column) != (decision_id, column):
            raise LedgerError(f"held content of {decision_id} was put there from another place")
        return found.value


def is_sealed(value: str) -> bool:
    """Tell whether a content column holds a sealed value."""
    return value.startswith(PREFIX)


def make_key(path: Path) -> None:
    """Write a new key that its owner alone can read.

    Raises:
        ConfigError: the file is there, or can't be written.
    """
    try:
        write_new(path, secrets.token_bytes(_KEY_BYTES))
    except OSError as error:
        raise ConfigError(f"{path}: can't be made ({error.strerror})") from error


def key_at_hand() -> ContentKey | None:
    """Return the key that `SAFEHOLD_LEDGER_KEY` names; None where the variable is not set.

    Raises:
        ConfigError: the file can't be read, is no key, or others may read it.
    """
    name = os.environ.get(VARIABLE)
    return None if not name else _loaded(name)


@lru_cache(maxsize=8)
def _loaded(name: str) -> ContentKey:
    return ContentKey(read_secret(Path(name)))
