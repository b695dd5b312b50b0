"""Rows of the timeline as lines: a whole row now and then, and between them what changed.

A line that begins with `{` is a whole row; one that begins with `[` holds the row's time and the
differences of the numbers that changed since the line before. Numbers stand in one order, the one
of the whole row, so that no name is written twice; what an account's window has left is told with
what passed added, which changes only when something slides out of the window.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

T = TypeVar("T")

WHOLE_EVERY = 60
"""A whole row comes at least so often, so that a reader can begin near the end."""
_MILLI, _MICRO = 1e3, 1e6
_NEAR = 2
"""Unchanged numbers between two changed ones that are cheaper written as zeros."""


class TimelineRow(msgspec.Struct, frozen=True):
    """One tick as the timeline shows it."""

    time: float
    passed: dict[str, int]
    remaining: dict[str, dict[str, int]]
    residual: dict[str, float]
    undeclared: int
    line: int
    budgets: dict[str, dict[str, int]] = {}
    actions: tuple[tuple[str, str, str], ...] = ()
    shape: dict[str, float] = {}
    accounts_over: tuple[str, ...] = ()
    headers: dict[str, int] = {}


class _Shape(msgspec.Struct, frozen=True):
    """The names in a row, in their order: what two rows share where only numbers changed."""

    passed: tuple[str, ...]
    remaining: tuple[tuple[str, tuple[str, ...]], ...]
    residual: tuple[str, ...]
    budgets: tuple[tuple[str, tuple[str, ...]], ...]
    shape: tuple[str, ...]
    headers: tuple[str, ...]
    over: tuple[str, ...]


class _Change(msgspec.Struct, frozen=True, array_like=True):
    """A row as differences; a run is how many numbers to pass over, then what is added to each."""

    time: float
    runs: tuple[tuple[int, ...], ...]
    actions: tuple[tuple[str, str, str], ...] = ()


class RowWriter:
    """Makes lines of rows."""

    def __init__(self) -> None:
        self._shape: _Shape | None = None
        self._numbers: list[int] = []
        self._since = 0

    def begin(self) -> None:
        """Write the next row whole, whatever came before."""
        self._shape = None

    def line(self, row: TimelineRow) -> bytes:
        """Return the line of the next row, with its end."""
        shape, numbers = _shape(row), _numbers(row)
        self._since += 1
        if shape != self._shape or self._since >= WHOLE_EVERY:
            self._since = 0
            text = msgspec.json.encode(_row(row.time, shape, numbers, row.actions))
        else:
            change = _Change(row.time, _runs(self._numbers, numbers), row.actions)
            text = msgspec.json.encode(change)
        self._shape, self._numbers = shape, numbers
        return text + b"\n"


class RowReader:
    """Makes rows of lines."""

    def __init__(self) -> None:
        self._shape: _Shape | None = None
        self._numbers: list[int] = []

    def row(self, line: bytes) -> TimelineRow | None:
        """Return the row of the next line; None where no whole row came before it.

        Raises:
            ValueError: It is no row.
        """
        if not line.startswith(b"["):
            self._shape = None
            row = _decoded(line, TimelineRow)
            self._shape, self._numbers = _shape(row), _numbers(row)
            return row
        change = _decoded(line, _Change)
        if self._shape is None:
            return None
        at = 0
        numbers = self._numbers
        for gap, *more in change.runs:
            at += gap
            if gap < 0 or at + len(more) > len(numbers):
                self._shape = None
                raise ValueError("a change of numbers that are not there")
            for place, step in enumerate(more, at):
                numbers[place] += step
            at += len(more)
        return _row(change.time, self._shape, numbers, change.actions)


class RollUp:
    """Keeps the last row of each stretch of time; what was done in the stretch stays in it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._held: TimelineRow | None = None

    def add(self, row: TimelineRow) -> TimelineRow | None:
        """Take the next row; return the row of a stretch that is over."""
        before, self._held = self._held, row
        if before is None:
            return None
        if int(before.time // self._seconds) != int(row.time // self._seconds):
            return before
        if before.actions:
            self._held = msgspec.structs.replace(row, actions=(*before.actions, *row.actions))
        return None

    def rest(self) -> TimelineRow | None:
        """Return the row of the stretch that had begun."""
        held, self._held = self._held, None
        return held


def rolled_up(rows: Iterable[TimelineRow], seconds: float) -> Iterator[TimelineRow]:
    """Yield the first row, then the last one of each stretch of time."""
    stretches = RollUp(seconds)
    first: TimelineRow | None = None
    for row in rows:
        if first is None:
            first = row
            yield row
            continue
        if (whole := stretches.add(row)) is not None:
            yield whole
    if (whole := stretches.rest()) is not None:
        yield whole


def _decoded(line: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error


def _shape(row: TimelineRow) -> _Shape:
    return _Shape(
        passed=tuple(row.passed),
        remaining=tuple((name, tuple(windows)) for name, windows in row.remaining.items()),
        residual=tuple(row.residual),
        budgets=tuple((name, tuple(windows)) for name, windows in row.budgets.items()),
        shape=tuple(row.shape),
        headers=tuple(row.headers),
        over=row.accounts_over,
    )


def _numbers(row: TimelineRow) -> list[int]:
    passed = row.passed
    numbers = [row.undeclared, row.line, *passed.values(), *row.headers.values()]
    numbers += [round(value * _MILLI) for value in row.residual.values()]
    for name, windows in row.remaining.items():
        sent = passed.get(name, 0)
        numbers += [left + sent for left in windows.values()]
    for windows in row.budgets.values():
        numbers += windows.values()
    numbers += [round(value * _MICRO) for value in row.shape.values()]
    return numbers


def _row(
    time: float,
    shape: _Shape,
    numbers: Sequence[int],
    actions: tuple[tuple[str, str, str], ...],
) -> TimelineRow:
    left = iter(numbers)
    undeclared, line = next(left), next(left)
    passed = _taken(shape.passed, left)
    headers = _taken(shape.headers, left)
    residual = {name: value / _MILLI for name, value in _taken(shape.residual, left).items()}
    remaining = {}
    for name, windows in shape.remaining:
        sent = passed.get(name, 0)
        remaining[name] = {one: value - sent for one, value in _taken(windows, left).items()}
    return TimelineRow(
        time=time,
        passed=passed,
        remaining=remaining,
        residual=residual,
        undeclared=undeclared,
        line=line,
        budgets={name: _taken(windows, left) for name, windows in shape.budgets},
        actions=actions,
        shape={name: value / _MICRO for name, value in _taken(shape.shape, left).items()},
        accounts_over=shape.over,
        headers=headers,
    )


def _taken(names: Sequence[str], left: Iterator[int]) -> dict[str, int]:
    return dict(zip(names, itertools.islice(left, len(names)), strict=True))


def _runs(before: Sequence[int], now: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    runs: list[list[int]] = []
    end = 0
    for place, (old, new) in enumerate(zip(before, now, strict=True)):
        if old == new:
            continue
        gap = place - end
        if runs and gap <= _NEAR:
            runs[-1] += [0] * gap
        else:
            runs.append([gap])
        runs[-1].append(new - old)
        end = place + 1
    return tuple(map(tuple, runs))
