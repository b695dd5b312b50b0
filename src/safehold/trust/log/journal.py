"""The write-ahead file: entries that are durable but not yet in a signed tree.

Header: `SAFEJNL1` and the index of the first entry (u64). Then frames, one per group commit:
payload length (u32), number of entries (u32), SHA-256 of the payload, CRC-32 of those three, and
the payload (an entry bundle).
"""

import hashlib
import os
import zlib
from pathlib import Path

from safehold.trust.log.files import write_durably
from safehold.trust.log.interface import LogError, LogTamperError
from safehold.trust.log.tiles import decode_bundle, encode_bundle

MAGIC = b"SAFEJNL1"
_HEADER_BYTES = len(MAGIC) + 8
_HEAD_BYTES = 4 + 4 + 32
_FRAME_BYTES = _HEAD_BYTES + 4
# Zeros in a row that no JSON entry has, but a page that never reached the disk does.
_ZERO_RUN = 16
MAX_FRAME_BYTES = 64 * 2**20


def new_journal(path: Path, base: int) -> None:
    """Put an empty journal in place, durably: the entries before `base` are in the tree."""
    write_durably(path, MAGIC + base.to_bytes(8, "big"), mode=0o600)


def encode_frame(entries: list[bytes]) -> bytes:
    """Return one frame."""
    payload = encode_bundle(entries)
    head = len(payload).to_bytes(4, "big") + len(entries).to_bytes(4, "big")
    head += hashlib.sha256(payload).digest()
    return head + zlib.crc32(head).to_bytes(4, "big") + payload


def read_journal(data: bytes) -> tuple[int, list[bytes], int]:
    """Return the first index, the entries, and how many bytes of the file are sound.

    A torn last frame (its write was interrupted, so nobody was told it is durable) is left out.

    Raises:
        LogTamperError: the header is wrong, or a frame before the last one is damaged.
    """
    if len(data) < _HEADER_BYTES or not data.startswith(MAGIC):
        raise LogTamperError("the log's journal has no header")
    base = int.from_bytes(data[len(MAGIC) : _HEADER_BYTES], "big")
    entries: list[bytes] = []
    at = _HEADER_BYTES
    while at < len(data):
        if _is_torn(data, at):
            break
        found, at = _frame(data, at)
        entries.extend(found)
    return base, entries, at


def _is_torn(data: bytes, at: int) -> bool:
    """Tell whether the frame at `at` is the rest of an interrupted write, and the file's last.

    An interrupted write leaves a beginning, or zeros where a page never came. A frame that is
    there in full and merely wrong was acknowledged once, and damaged since: that is no torn tail.
    """
    head = data[at : at + _FRAME_BYTES]
    if len(head) < _FRAME_BYTES:
        return True
    if not any(head):
        return not any(data[at:])
    if zlib.crc32(head[:_HEAD_BYTES]).to_bytes(4, "big") != head[_HEAD_BYTES:]:
        return False
    length = int.from_bytes(head[:4], "big")
    payload = data[at + _FRAME_BYTES :]
    if len(payload) < length:
        return True
    whole = hashlib.sha256(payload).digest() == head[8:_HEAD_BYTES]
    return len(payload) == length and not whole and bytes(_ZERO_RUN) in payload


def _frame(data: bytes, at: int) -> tuple[list[bytes], int]:
    """Return a frame's entries and its end.

    Raises:
        LogTamperError: any byte of it is not what was written.
    """
    head = data[at : at + _FRAME_BYTES]
    length, count = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:8], "big")
    payload = data[at + _FRAME_BYTES : at + _FRAME_BYTES + length]
    if (
        zlib.crc32(head[:_HEAD_BYTES]).to_bytes(4, "big") != head[_HEAD_BYTES:]
        or hashlib.sha256(payload).digest() != head[8:_HEAD_BYTES]
    ):
        raise LogTamperError("a frame of the log's journal is damaged")
    entries = decode_bundle(payload)
    if len(entries) != count:
        raise LogTamperError("a frame of the log's journal has another number of entries")
    return entries, at + _FRAME_BYTES + length


class JournalFile:
    """An open journal at its end; append is one write and one sync."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise LogError("the log has no journal: it was not made here, or is a copy") from error
        except OSError as error:
            raise LogError(f"can't open the log's journal: {error.strerror}") from error
        try:
            self.base, self.entries, self._end = read_journal(self._read_all())
        except LogTamperError:
            os.close(self._fd)
            raise

    def _read_all(self) -> bytes:
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            return file.read()

    def is_current(self) -> bool:
        """Tell whether nobody replaced or extended the file since it was read."""
        try:
            there = self._path.stat()
        except OSError:
            return False
        here = os.fstat(self._fd)
        same = (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev)
        return same and here.st_size == self._end

    def discard_tail(self) -> None:
        """Cut a torn last frame off. Only under the log's lock: a writer may be at work."""
        if os.fstat(self._fd).st_size != self._end:
            os.ftruncate(self._fd, self._end)
            os.fsync(self._fd)

    def append(self, entries: list[bytes]) -> None:
        """Write one frame and wait until it is on disk.

        Raises:
            LogError: the disk refused; the file is cut back to what it was.
        """
        frame = encode_frame(entries)
        if len(frame) > MAX_FRAME_BYTES:
            raise LogError(f"expected at most {MAX_FRAME_BYTES} bytes in one append")
        try:
            written = 0
            while written < len(frame):
                written += os.pwrite(self._fd, frame[written:], self._end + written)
            os.fdatasync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, self._end)
            raise LogError(f"can't append to the log: {error.strerror}") from error
        self._end += len(frame)
        self.entries.extend(entries)

    def close(self) -> None:
        """Release the file."""
        os.close(self._fd)
