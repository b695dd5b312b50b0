"""What was refused, counted: one line for each thing in each second, never one for each exec."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from safehold.secure.endpoint.interface import Ask, CodeKind, EndpointRecordError, ExecRefused

_MOST = 4096


class Denial(msgspec.Struct, frozen=True):
    """One line of the record: what was (or would have been) refused, to whom, how often."""

    time: int
    count: int
    mode: str
    kind: CodeKind
    path: str
    sha256: str
    package: str
    owned: bool
    uid: int
    exe: str
    row: str
    reason: str


class Records:
    """Appends lines to a file that was opened before the first mark."""

    def __init__(self, handle: int, mode: str, clock: Callable[[], float] = time.time) -> None:
        self._handle, self._clock = handle, clock
        self._mode = mode
        self._lock = threading.Lock()
        self._counts: dict[tuple[Ask, str, str], int] = {}
        self.dropped = 0

    def add(self, ask: Ask, refused: ExecRefused) -> None:
        """Count one refusal."""
        key = (ask, refused.row, refused.reason)
        with self._lock:
            if key in self._counts or len(self._counts) < _MOST:
                self._counts[key] = self._counts.get(key, 0) + 1
            else:
                self.dropped += 1

    def flush(self) -> None:
        """Write what was counted since the last call."""
        with self._lock:
            counts, self._counts = self._counts, {}
        now = int(self._clock())
        for (ask, row, reason), count in counts.items():
            target, subject = ask.target, ask.subject
            line = Denial(
                now,
                count,
                self._mode,
                target.kind,
                target.path,
                target.sha256,
                target.package,
                target.owned,
                subject.uid,
                subject.exe,
                row,
                reason,
            )
            os.write(self._handle, msgspec.json.encode(line) + b"\n")


def open_records(path: Path) -> int:
    """Return a descriptor that appends, for root alone.

    Raises:
        EndpointRecordError: the disk refused.
    """
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EndpointRecordError(f"{path.name}: can't be opened ({error.strerror})") from error


def read_records(path: Path) -> Iterator[Denial]:
    """Yield the lines of a record; a last line that was cut is left out.

    Raises:
        EndpointRecordError: another line is no record.
    """
    try:
        rows = path.read_bytes().split(b"\n")
    except OSError as error:
        raise EndpointRecordError(f"{path.name}: can't be read ({error.strerror})") from error
    for number, row in enumerate(rows[:-1], start=1):
        try:
            yield msgspec.json.decode(row, type=Denial)
        except msgspec.DecodeError as error:
            raise EndpointRecordError(f"{path.name}: line {number}: {error}") from error
