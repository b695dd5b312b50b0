"""The kernel's records, as values: bytes in, events out; an answer in, bytes out."""

import struct
from collections.abc import Iterator

import msgspec

from safehold.secure.fanotify.interface import FanotifyError

METADATA = struct.Struct("<IBBHQii")
_INFO = struct.Struct("<BBH")
_RANGE = struct.Struct("<4xQQ")
_RESPONSE = struct.Struct("<iI")
_VERSION = 3
_INFO_RANGE = 6
_ALLOW, _DENY = 0x1, 0x2
OVERFLOW = 0x4000


class Event(msgspec.Struct, frozen=True):
    """One record: what (`mask`), the open file, who; offset and count in bytes where given."""

    mask: int
    handle: int
    pid: int
    offset: int = 0
    count: int | None = None


def events(data: bytes) -> Iterator[Event]:
    """Yield the events of one read of the group.

    Raises:
        FanotifyError: the records are of another version, or cut.
    """
    while data:
        if len(data) < METADATA.size:
            raise FanotifyError(f"expected a record of {METADATA.size} bytes, got {len(data)}")
        length, version, _, head, mask, handle, pid = METADATA.unpack_from(data)
        if version != _VERSION or not METADATA.size <= head <= length <= len(data):
            raise FanotifyError(f"expected a record of version {_VERSION}, got {version}")
        offset, count = _range(data[head:length])
        yield Event(mask, handle, pid, offset, count)
        data = data[length:]


def _range(info: bytes) -> tuple[int, int | None]:
    while len(info) >= _INFO.size:
        kind, _, length = _INFO.unpack_from(info)
        if kind == _INFO_RANGE and len(info) >= _INFO.size + _RANGE.size:
            offset, count = _RANGE.unpack_from(info, _INFO.size)
            return offset, count
        if length == 0:
            break
        info = info[length:]
    return 0, None


def response(handle: int, *, allow: bool, refusal: int = 0) -> bytes:
    """Return the answer to one event; `refusal` is an error number (pre-content groups only)."""
    return _RESPONSE.pack(handle, _ALLOW if allow else _DENY | refusal << 24)
