"""The coverage audit's signed watermark: what was audited, so that the next one goes on there.

A mark is a JSON file with an HMAC-SHA-256 under a secret of the operator's (RFC 2104). Keep the
secret where nobody who can write to the ledger reads it: whoever holds it can forge a mark.
"""

import hmac
from pathlib import Path

import msgspec

from safehold.errors import LedgerError
from safehold.guard.ledger.coverage import CoverageMark
from safehold.trust.log.files import change_whole
from safehold.trust.log.key_files import read_secret

_LABEL = b"safehold-coverage-mark/1\n"
_LEAST = 16
_MAX_BYTES = 64 * 2**20


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mark: msgspec.Raw
    hmac_sha256: str


def read_mark(path: Path, key: Path) -> CoverageMark | None:
    """Return the mark in a file; None where there is no file yet.

    Raises:
        ConfigError: the key can't be read, or others can.
        LedgerError: the file is none of ours, was changed, or another key made it.
    """
    secret = _secret(key)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise LedgerError(f"{path.name}: expected a coverage mark, got more than 64 MB")
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LedgerError(f"{path.name}: can't be read ({error.strerror})") from error
    try:
        file = msgspec.json.decode(data, type=_File)
    except msgspec.MsgspecError as error:
        raise LedgerError(f"{path.name}: expected a coverage mark, got something else") from error
    if not hmac.compare_digest(_sum(secret, bytes(file.mark)), file.hmac_sha256):
        raise LedgerError(
            f"{path.name}: the mark was changed, or another key made it; audit the whole ledger "
            "without --mark, then remove the file"
        )
    try:
        return msgspec.json.decode(file.mark, type=CoverageMark)
    except msgspec.MsgspecError as error:
        raise LedgerError(f"{path.name}: another release made this mark") from error


def write_mark(path: Path, key: Path, mark: CoverageMark) -> None:
    """Replace a mark's file in one step; a kill leaves the old one or the new one.

    Raises:
        ConfigError: the key can't be read, or others can.
        LedgerError: the file can't be written.
    """
    body = msgspec.json.encode(mark)
    data = msgspec.json.encode(_File(msgspec.Raw(body), _sum(_secret(key), body))) + b"\n"
    try:
        change_whole(path, lambda _: data)
    except OSError as error:
        raise LedgerError(f"{path.name}: can't be written ({error.strerror})") from error


def _secret(key: Path) -> bytes:
    secret = read_secret(key)
    if len(secret) < _LEAST:
        raise LedgerError(f"{key.name}: expected a key of {_LEAST} bytes or more: ledger new-key")
    return secret


def _sum(secret: bytes, body: bytes) -> str:
    return hmac.new(secret, _LABEL + body, "sha256").hexdigest()
