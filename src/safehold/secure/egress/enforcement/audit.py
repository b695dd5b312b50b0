"""A hash-chained audit log in one file, for hosts without a transparency log."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from safehold.secure.egress.interface import StateError

_START = "0" * 64


class AuditEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event; `previous` is the SHA-256 of the line before."""

    index: int
    time: float
    kind: str
    body: dict[str, object]
    previous: str


class ChainedLog:
    """Appends events, each bound to all before it; durable before `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: str, body: Mapping[str, object]) -> int:
        """Write one event durably and return its index."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self.path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                size = self._mend(file.fileno())
                count, last = self._tail(file.fileno())
                entry = AuditEntry(count, time.time(), kind, dict(body), last)
                try:
                    file.write(msgspec.json.encode(entry) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    # A part of a line on a full disk must not end the chain.
                    os.truncate(file.fileno(), size)
                    raise
        except OSError as error:
            raise StateError(f"{self.path.name}: can't be appended ({error.strerror})") from error
        return count

    @staticmethod
    def _mend(descriptor: int) -> int:
        """Cut off a last line that a crash tore (`append` never returned); return the size."""
        size = os.fstat(descriptor).st_size
        step = min(size, 1 << 16)
        whole = os.pread(descriptor, step, size - step).rfind(b"\n") + 1
        if size and (whole or size == step):
            size = size - step + whole
            os.ftruncate(descriptor, size)
        return size

    def _tail(self, descriptor: int) -> tuple[int, str]:
        size = os.fstat(descriptor).st_size
        if size == 0:
            return 0, _START
        step = min(size, 1 << 16)
        tail = os.pread(descriptor, step, size - step).rstrip(b"\n").rsplit(b"\n", 1)[-1]
        try:
            entry = msgspec.json.decode(tail, type=AuditEntry)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise StateError(f"{self.path.name}: the last line is not an event") from error
        return entry.index + 1, hashlib.sha256(tail).hexdigest()

    def events(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        """Yield every event's kind and body; raises StateError where the chain is broken."""
        for entry in self.read():
            yield entry.kind, entry.body

    def read(self) -> Iterator[AuditEntry]:
        """Yield every event; raises StateError where the chain is broken."""
        previous = _START
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        for number, line in enumerate(lines):
            try:
                entry = msgspec.json.decode(line, type=AuditEntry)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise StateError(f"{self.path.name}: line {number + 1} is no event") from error
            if entry.index != number or entry.previous != previous:
                raise StateError(f"{self.path.name}: the chain is broken at line {number + 1}")
            previous = hashlib.sha256(line).hexdigest()
            yield entry
