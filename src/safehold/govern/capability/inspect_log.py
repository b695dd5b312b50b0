"""Logs of Inspect (`.eval`) as evidence: an own small reader, which believes no size in them.

An `.eval` is a zip whose members are stored, deflated, or compressed with Zstandard (method 93,
APPNOTE 6.3.8). Of its members only `header.json` and `summaries.json` are read.
"""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import msgspec

from safehold.canonical import sha256_hex
from safehold.errors import DependencyError
from safehold.govern.capability.interface import CapabilityError

_MAX_FILE = 512 * 2**20
_MAX_MEMBER = 64 * 2**20
_LOCAL_HEADER = 30
_SOLVED = ("C", "P", 1, True)
"""A partial credit counts as solved: the careful side."""
_UNSOLVED = ("I", "N", 0, False)


class _Dataset(msgspec.Struct, frozen=True):
    samples: int


class _Eval(msgspec.Struct, frozen=True):
    task: str
    model: str
    dataset: _Dataset
    created: str = ""
    task_version: int | str = 0


class _Header(msgspec.Struct, frozen=True):
    status: str
    eval: _Eval
    invalidated: bool = False


class _Score(msgspec.Struct, frozen=True):
    value: Any = None


class _Summary(msgspec.Struct, frozen=True):
    id: int | str
    epoch: int
    scores: dict[str, _Score] | None = None
    error: str | None = None


class InspectCounts(msgspec.Struct, frozen=True):
    """What a log says, by items: epochs of one item are attempts at it."""

    task: str
    model_name: str
    created: str
    items: int
    successes: int
    unscorable: int
    errors: int
    sha256: str


def read_inspect(path: Path) -> InspectCounts:
    """Return the counts of a log.

    Raises:
        CapabilityError: it is no log, not a finished one, or contradicts itself.
        DependencyError: it needs Zstandard, which is not installed.
    """
    try:
        if path.stat().st_size > _MAX_FILE:
            raise CapabilityError(f"{path.name}: expected at most {_MAX_FILE} bytes")
        data = path.read_bytes()
        header = msgspec.json.decode(_member(path, data, "header.json"), type=_Header)
        summaries = msgspec.json.decode(
            _member(path, data, "summaries.json"), type=tuple[_Summary, ...]
        )
    except OSError as error:
        raise CapabilityError(f"can't read {path}: {error.strerror}") from error
    except (zipfile.BadZipFile, zlib.error, struct.error, msgspec.DecodeError) as error:
        raise CapabilityError(f"{path.name} is no log of Inspect: {error}") from error
    return _counts(path.name, header, summaries, sha256_hex(data))


def _counts(
    name: str, header: _Header, summaries: tuple[_Summary, ...], digest: str
) -> InspectCounts:
    if header.status != "success" or header.invalidated:
        raise CapabilityError(f"{name}: expected a finished log, got {header.status[:40]}")
    pairs = [(str(one.id), one.epoch) for one in summaries]
    if len(pairs) != len(set(pairs)):
        raise CapabilityError(f"{name}: an epoch of a sample is there twice")
    items: dict[str, list[str]] = {}
    for one in summaries:
        items.setdefault(str(one.id), []).append(_outcome(one))
    if len(items) != header.eval.dataset.samples:
        raise CapabilityError(
            f"{name}: expected {header.eval.dataset.samples} samples, got {len(items)}"
        )
    best = [
        next((word for word in ("success", "error", "unscorable") if word in found), "failure")
        for found in items.values()
    ]
    return InspectCounts(
        header.eval.task,
        header.eval.model,
        header.eval.created,
        len(best),
        best.count("success"),
        best.count("unscorable"),
        best.count("error"),
        digest,
    )


def _outcome(one: _Summary) -> str:
    if one.error:
        return "error"
    values = [score.value for score in (one.scores or {}).values()]
    if any(value in _SOLVED for value in values if isinstance(value, str | int | float)):
        return "success"
    known = all(isinstance(value, str | int | float) and value in _UNSOLVED for value in values)
    return "failure" if values and known else "unscorable"


def _member(path: Path, data: bytes, name: str) -> bytes:
    """Return a member's bytes, whatever it is compressed with, up to a size."""
    with zipfile.ZipFile(path) as archive:
        found = [one for one in archive.infolist() if one.filename == name]
    if len(found) != 1:
        raise CapabilityError(f"{path.name}: expected one {name}, got {len(found)}")
    info = found[0]
    head = data[info.header_offset : info.header_offset + _LOCAL_HEADER]
    names, extra = struct.unpack("<HH", head[26:30])
    begin = info.header_offset + _LOCAL_HEADER + names + extra
    packed = data[begin : begin + info.compress_size]
    match info.compress_type:
        case 0:
            found_bytes = packed
        case 8:
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            found_bytes = unpacker.decompress(packed, _MAX_MEMBER + 1)
        case 93:
            found_bytes = _zstandard(path, packed)
        case other:
            raise CapabilityError(f"{path.name}: {name} is compressed by method {other}")
    if len(found_bytes) > _MAX_MEMBER or zlib.crc32(found_bytes) != info.CRC:
        raise CapabilityError(f"{path.name}: {name} is too large, or not what was packed")
    return found_bytes


def _zstandard(path: Path, packed: bytes) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise DependencyError("a log of Inspect needs: pip install safehold[inspect]") from error
    try:
        with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
            return bytes(reader.read(_MAX_MEMBER + 1))
    except zstandard.ZstdError as error:
        raise CapabilityError(f"{path.name}: a member can't be unpacked") from error
