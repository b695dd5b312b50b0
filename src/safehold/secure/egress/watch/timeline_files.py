"""The timeline on disk: the newest hour in full, a row a minute for 35 days, then a row an hour.

Beside `timeline.jsonl` lie `timeline.1.jsonl` (the hour before), `timeline.minutes.jsonl` (the
minutes of this hour), and one compressed file for each hour before:
`timeline.<UTC>.minutes.jsonl.gz`, later `timeline.<UTC>.hours.jsonl.gz`, gone after 400 days.
"""

import calendar
import gzip
import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from safehold.errors import DataError
from safehold.secure.egress.interface import StateError
from safehold.secure.egress.watch.timeline_rows import (
    RollUp,
    RowReader,
    RowWriter,
    TimelineRow,
    rolled_up,
)
from safehold.trust.log.files import append_whole

MINUTE_S, HOUR_S, DAY_S = 60.0, 3_600.0, 86_400.0
KEPT_MINUTES_S = 35 * DAY_S
KEPT_S = 400 * DAY_S
_MOST_BYTES = 64 * 2**20
"""A file of full rows that grew so large is rolled up before its hour is over."""
_AT_ONCE = 2
"""Files that are thinned or removed when an hour ends, so that no look takes long."""
_FIRST_LOOK = 1 << 16


class TimelineFile:
    """Writes the timeline of one watch."""

    def __init__(self, path: Path) -> None:
        """Begin where the last watch ended; nothing is read or written before the first row."""
        self._path = path
        self._stem = path.name.removesuffix(".jsonl")
        self._before = path.with_name(f"{self._stem}.1.jsonl")
        self._minutes = path.with_name(f"{self._stem}.minutes.jsonl")
        self._began: float | None = None
        self._full, self._thin = RowWriter(), RowWriter()
        self._minute = RollUp(MINUTE_S)

    def append(self, row: TimelineRow) -> None:
        """Write a row; now and then, what lies behind it is rolled up.

        Raises:
            StateError: The disk refused; the next row is written whole.
        """
        try:
            if self._began is None:
                self._resume(row)
            if abs(row.time - (self._began or 0.0)) >= HOUR_S or self._size() > _MOST_BYTES:
                self._rotate(row)
            append_whole(self._path, self._full.line(row))
            self._roll_up(row)
        except OSError as error:
            self._full.begin()
            self._thin.begin()
            raise StateError(f"{self._path.name}: can't be appended ({error.strerror})") from error

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _resume(self, row: TimelineRow) -> None:
        """Cut a row that a crash tore; roll up what the last watch had not come to.

        A file from before there were roll-ups becomes minutes whole.
        """
        for path in (self._path, self._minutes):
            _cut_torn(path)
        rolled = max((one.time for one in rows_of_file(self._minutes, strict=False)), default=None)
        self._began = row.time
        for number, one in enumerate(rows_of_file(self._path, strict=False)):
            self._began = one.time if number == 0 else self._began
            if rolled is None or one.time > rolled:
                self._roll_up(one)

    def _roll_up(self, row: TimelineRow) -> None:
        if (minute := self._minute.add(row)) is not None:
            append_whole(self._minutes, self._thin.line(minute))

    def _rotate(self, row: TimelineRow) -> None:
        """End an hour: its minutes are compressed, and what is old becomes thinner."""
        if (minute := self._minute.rest()) is not None:
            append_whole(self._minutes, self._thin.line(minute))
        first = next(rows_of_file(self._minutes, strict=False), None)
        if first is not None:
            with self._minutes.open("rb") as file:
                self._compress(file, self._stamp(first.time), "minutes")
            self._minutes.unlink()
        if self._path.exists():
            self._path.replace(self._before)
        self._full.begin()
        self._thin.begin()
        self._began = row.time
        self._retire(row.time)

    def _retire(self, now: float) -> None:
        folder, stem = self._path.parent, self._stem
        old = _stamp(now - KEPT_MINUTES_S)
        minutes = sorted(folder.glob(f"{stem}.*.minutes.jsonl.gz"))
        for path in [one for one in minutes if _stamped(one, stem) < old][:_AT_ONCE]:
            lines = RowWriter()
            rows = list(rolled_up(rows_of_file(path, strict=False), HOUR_S))
            if rows:
                self._compress(map(lines.line, rows), _stamped(path, stem), "hours")
            path.unlink()
        hours = sorted(folder.glob(f"{stem}.*.hours.jsonl.gz"))
        gone = _stamp(now - KEPT_S)
        for path in [one for one in hours if _stamped(one, stem) < gone][:_AT_ONCE]:
            path.unlink()

    def _stamp(self, began: float) -> str:
        """Return the name of the hour that began then, after those of all hours before.

        A clock that was set back gives no name twice. The same hour again, which a kill kept from
        being taken away, keeps its name.
        """
        packed = _packed(self._path)
        if not packed:
            return _stamp(began)
        newest = _stamped(packed[-1], self._stem)
        first = next(rows_of_file(packed[-1], strict=False), None)
        if first is not None and first.time == began:
            return newest
        return max(_stamp(began), _stamp(_seconds(newest) + 1))

    def _compress(self, lines: Iterable[bytes], stamp: str, kind: str) -> None:
        path = self._path.with_name(f"{self._stem}.{stamp}.{kind}.jsonl.gz")
        temporary = path.with_name(path.name + ".new")
        with gzip.open(temporary, "wb", compresslevel=6) as file:
            for line in lines:
                file.write(line)
        temporary.replace(path)


def timeline_rows(path: Path, *, since: float = 0.0) -> Iterator[TimelineRow]:
    """Yield the rows of a timeline and of the files beside it, as they were written, one at a time.

    With `since`, files that ended before that time are not opened. Where the clock was set back,
    times go back too; no row is left out for it.

    Raises:
        DataError: A file can't be read, or a line is no row.
    """
    stem = path.name.removesuffix(".jsonl")
    before = path.with_name(f"{stem}.1.jsonl")
    newest = [one for one in (before, path) if one.exists()] or [path]
    full = itertools.chain.from_iterable(map(rows_of_file, newest))
    first = next(full, None)
    end = first.time if first is not None else float("inf")
    oldest = _stamp(max(0.0, since - 2 * HOUR_S))
    thin = [one for one in _packed(path) if _stamped(one, stem) >= oldest]
    minutes = path.with_name(f"{stem}.minutes.jsonl")
    if minutes.exists() and thin and _first_time(thin[-1]) == _first_time(minutes):
        thin.pop()  # a kill came before the minutes that it holds were taken away
    doubled = {*thin[-1:], minutes}  # of hours that are there in full, from `end` on
    for file in (*thin, *([minutes] if minutes.exists() else ())):
        for row in rows_of_file(file):
            if since <= row.time and (file not in doubled or row.time < end):
                yield row
    for row in itertools.chain([] if first is None else [first], full):
        if row.time >= since:
            yield row


def rows_of_file(path: Path, *, strict: bool = True) -> Iterator[TimelineRow]:
    """Yield the rows of one file, compressed or not; no file has none unless `strict`.

    Raises:
        DataError: It can't be read, or (`strict`) a line is no row.
    """
    reader = RowReader()
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = reader.row(line)
                except ValueError as error:
                    if strict:
                        raise DataError(f"{path.name}: line {number} is no timeline row") from error
                    continue
                if row is not None:
                    yield row
    except FileNotFoundError as error:
        if strict:
            raise DataError(f"{path.name}: can't be read ({error.strerror})") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path.name}: can't be read ({error})") from error


def last_rows(path: Path, *, at_least_bytes: int) -> list[TimelineRow]:
    """Return the rows in about the last bytes of a file; a line on its way is left out.

    A line that is no row is left out too, with those that count on it.

    Raises:
        DataError: It can't be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            wanted = max(_FIRST_LOOK, at_least_bytes)
            while True:
                begin = max(0, size - wanted)
                file.seek(begin)
                data = file.read(size - begin)
                # From the first whole row in it on; where there is none, from further back.
                at = 0 if begin == 0 and data.startswith((b"{", b"[")) else data.find(b"\n{") + 1
                if at > 0 or begin == 0:
                    break
                wanted *= 4
    except OSError as error:
        raise DataError(f"{path.name}: can't be read ({error.strerror})") from error
    return list(rows_in(data[at:]))


def rows_in(data: bytes, *, strict: bool = False) -> Iterator[TimelineRow]:
    """Yield the rows in the bytes of a file; lines that are none are left out.

    Raises:
        ValueError: With `strict`, a line is no row.
    """
    reader = RowReader()
    for line in data.splitlines():
        try:
            row = reader.row(line)
        except ValueError:
            if strict:
                raise
            continue
        if row is not None:
            yield row


def _stamp(at: float) -> str:
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(max(0.0, at)))


def _seconds(stamp: str) -> int:
    return calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%S"))


def _packed(path: Path) -> list[Path]:
    """Return the compressed files beside a timeline, oldest first; of one hour only its hours."""
    stem = path.name.removesuffix(".jsonl")
    found: dict[str, Path] = {}
    for one in sorted(path.parent.glob(f"{stem}.*.jsonl.gz"), reverse=True):
        found[_stamped(one, stem)] = one  # `hours` stands before `minutes`
    return [found[stamp] for stamp in sorted(found)]


def _first_time(path: Path) -> float | None:
    first = next(rows_of_file(path, strict=False), None)
    return None if first is None else first.time


def _stamped(path: Path, stem: str) -> str:
    return path.name.removeprefix(f"{stem}.").partition(".")[0]


def _cut_torn(path: Path) -> None:
    """Take a last line without an end off a file."""
    try:
        with path.open("r+b") as file:
            size = file.seek(0, 2)
            if size == 0:
                return
            file.seek(max(0, size - _MOST_BYTES))
            whole = file.read().rfind(b"\n") + 1
            file.truncate(max(0, size - _MOST_BYTES) + whole)
    except FileNotFoundError:
        return
