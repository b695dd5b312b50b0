"""Rows to table columns and back; hostile text goes in and comes out without an error."""

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Table

from safehold.errors import LedgerError
from safehold.guard.ledger.interface import (
    Delivered,
    Entry,
    EventRow,
    FinalRow,
    ProgressRow,
    PromptRow,
    Row,
)
from safehold.guard.ledger.schema import EVENTS, FINALS, PROGRESS, PROMPTS
from safehold.guard.ledger.sealing import is_sealed, key_at_hand

Columns = dict[str, str | int | float | bool | None]

TABLES: tuple[tuple[type[Row], Table], ...] = (
    (PromptRow, PROMPTS),
    (ProgressRow, PROGRESS),
    (FinalRow, FINALS),
    (EventRow, EVENTS),
)

_JSON_FIELDS = frozenset({"exchange", "lane", "delivered", "latency", "detail"})
_CONTENT_FIELDS = frozenset({"text"})
_RENAMED = {"offset": "char_offset"}
LOCKED: Mapping[str, object] = {"exchange": None, "delivered": [], "text": ""}
"""What a sealed column reads as where the key is not at hand."""
SEALED = "Sealed"
"""The error of a final row whose reply is sealed, where the key is not at hand."""
_MAX_NAME_CHARS = 512
_INT64 = 1 << 63


def table_of(row: Row) -> Table:
    """Return the table that keeps this kind of row.

    Raises:
        LedgerError: the value is no ledger row.
    """
    for kind, table in TABLES:
        if type(row) is kind:
            return table
    raise LedgerError("expected a ledger row, came something else")


def to_columns(row: Row, *, max_bytes: int) -> Columns:
    """Return the row's columns, without its sequence number and writer.

    Names that a client chose (a model, a tenant) lose what a database can't hold (NUL, lone
    surrogates become escapes) and what is over 512 characters; content loses nothing.

    Raises:
        LedgerError: the row is too large or holds a number that can't be kept.
    """
    columns: Columns = {}
    size = 0
    for field in row.__struct_fields__:
        value = getattr(row, field)
        name = _RENAMED.get(field, field)
        if value is None:
            columns[name] = None
        elif field in _JSON_FIELDS:
            columns[name] = encoded = _encode(value)
            size += len(encoded)
        elif isinstance(value, str):
            if field in _CONTENT_FIELDS:
                # JSON keeps any text, NUL and lone surrogates included.
                columns[name] = encoded = _encode(value)
                size += len(encoded)
            else:
                columns[name] = _clean(str(value))
        elif _is_kept_number(value):
            columns[name] = value
        else:
            raise LedgerError(f"expected a finite number or text in {field}, came another value")
    if size > max_bytes:
        raise LedgerError(f"expected a row of at most {max_bytes} bytes, came {size}")
    return columns


def to_entry(kind: type[Row], columns: Mapping[str, Any]) -> Entry:
    """Return the row that these columns hold.

    Raises:
        LedgerError: the columns hold no such row (a damaged or foreign table).
    """
    values: dict[str, object] = {}
    locked = False
    try:
        for field in kind.__struct_fields__:
            value = columns[_RENAMED.get(field, field)]
            if isinstance(value, str) and (field in _JSON_FIELDS or field in _CONTENT_FIELDS):
                if is_sealed(value):
                    value = _opened(value, str(columns["decision_id"]), field)
                    locked |= value is None
                value = LOCKED[field] if value is None else _decode(value)
            values[field] = value
        if locked and kind is FinalRow:
            values["error"] = SEALED
        values["type"] = kind.__struct_config__.tag
        row = msgspec.convert(values, kind)
        return msgspec.convert(
            {"seq": columns["seq"], "writer": columns["writer"], "row": row}, Entry
        )
    except (KeyError, ValueError, msgspec.MsgspecError) as error:
        raise LedgerError(
            f"row {columns.get('seq')} can't be read as one of kind {kind.__struct_config__.tag}"
        ) from error


def _opened(value: str, decision_id: str, field: str) -> str | None:
    key = key_at_hand()
    return None if key is None else key.open(value, decision_id=decision_id, column=field)


def _is_kept_number(value: object) -> bool:
    match value:
        case int():
            return -_INT64 <= value < _INT64
        case float():
            return math.isfinite(value)
        case _:
            return False


def decode_delivered(encoded: str, decision_id: str) -> list[Delivered] | None:
    """Return the lanes of a final row's `delivered` column; None: sealed, the key is not at hand.

    Raises:
        LedgerError: the column is damaged.
    """
    found: str | None = encoded
    if is_sealed(encoded):
        found = _opened(encoded, decision_id, "delivered")
    try:
        return None if found is None else msgspec.convert(_decode(found), list[Delivered])
    except (ValueError, msgspec.MsgspecError) as error:
        raise LedgerError("a final row's delivered text can't be read") from error


def _encode(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # a lone surrogate: only escapes can carry it
        return json.dumps(msgspec.to_builtins(value), ensure_ascii=True, separators=(",", ":"))


def _decode(encoded: str) -> object:
    try:
        return msgspec.json.decode(encoded)
    except msgspec.DecodeError:
        return json.loads(encoded)


def _clean(name: str) -> str:
    if len(name) <= _MAX_NAME_CHARS and name.isascii() and "\0" not in name:
        return name
    kept = name[:_MAX_NAME_CHARS].encode("utf-8", "backslashreplace").decode()
    return kept.replace("\0", "\\x00")
