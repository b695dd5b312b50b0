"""Which files a model may consist of: formats that cannot run code when they are loaded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from safehold.secure.weights.interface import SealedFormatError, ShardName

MAX_TABLE_BYTES = 100 * 2**20
_PICKLE = tuple(bytes([0x80, version]) for version in range(2, 6))
_ZIP = b"PK\x03\x04"
_HEAD_BYTES = 16
_LENGTH_BYTES = 8
"""Of safetensors: the length of the table, before it."""
_EMPTY_TABLE = b"{}"


def _safetensors(path: Path, head: bytes) -> str | None:
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    size = path.stat().st_size
    most = min(MAX_TABLE_BYTES, size - _LENGTH_BYTES)
    if len(head) < _LENGTH_BYTES or not len(_EMPTY_TABLE) <= length <= most:
        return "its table is longer than the file"
    with path.open("rb") as file:
        file.seek(_LENGTH_BYTES)
        try:
            read_table(file.read(length), size - _LENGTH_BYTES - length)
        except SealedFormatError as error:
            return str(error)
    return None


def _gguf(path: Path, head: bytes) -> str | None:
    del path
    return None if head.startswith(b"GGUF") else "it does not begin with GGUF"


def _inert(path: Path, head: bytes) -> str | None:
    del path
    if head.startswith((*_PICKLE, _ZIP)):
        return "it is a pickle or an archive under another name"
    return None


# Adding a format is one line here. What is missing is refused, pickle above all.
FORMATS: dict[str, Callable[[Path, bytes], str | None]] = {
    ".safetensors": _safetensors,
    ".gguf": _gguf,
    ".onnx": _inert,
    ".json": _inert,
    ".txt": _inert,
    ".md": _inert,
    ".jinja": _inert,
    ".model": _inert,
    ".tiktoken": _inert,
}


def check_file(path: Path, name: str) -> None:
    """Refuse a file that a loader would execute, or that is not what its name says.

    Raises:
        SealedFormatError: another format, a damaged table, or a name that can't be kept.
    """
    try:
        msgspec.convert(name, ShardName)
    except msgspec.ValidationError as error:
        raise SealedFormatError(
            f"{name[:80]!r}: expected a name of letters, digits, dots, dashes and underscores"
        ) from error
    check = FORMATS.get(path.suffix)
    if check is None:
        known = ", ".join(sorted(FORMATS))
        raise SealedFormatError(
            f"{name}: expected a format that cannot run code ({known}); "
            "convert pickled weights to safetensors first"
        )
    with path.open("rb") as file:
        problem = check(path, file.read(_HEAD_BYTES))
    if problem is not None:
        raise SealedFormatError(f"{name}: not a sound {path.suffix} file: {problem}")


class TensorPlace(msgspec.Struct, frozen=True):
    """One row of a safetensors table; offsets in bytes after the table."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_table(data: bytes, body_bytes: int) -> dict[str, TensorPlace]:
    """Return the tensors of a safetensors table (the JSON after its length field).

    Raises:
        SealedFormatError: malformed, or a tensor that lies outside the file.
    """
    try:
        rows: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SealedFormatError("expected a safetensors table in JSON") from error
    if not isinstance(rows, dict):
        raise SealedFormatError("expected a safetensors table that is an object")
    table: dict[str, TensorPlace] = {}
    for name, row in rows.items():
        if name == "__metadata__":
            continue
        try:
            begin, end = row["data_offsets"]
            place = msgspec.convert(
                {"dtype": row["dtype"], "shape": row["shape"], "begin": begin, "end": end},
                TensorPlace,
            )
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            raise SealedFormatError("expected dtype, shape and data_offsets of a tensor") from error
        if not 0 <= place.begin <= place.end <= body_bytes or min(place.shape, default=0) < 0:
            raise SealedFormatError("a tensor lies outside its file")
        table[name] = place
    return table
