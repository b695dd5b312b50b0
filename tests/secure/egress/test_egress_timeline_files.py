"""The timeline's lines and files: what is written comes back, stays small, and ends in time."""

import gzip
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.errors import DataError
from safehold.secure.egress.interface import StateError
from safehold.secure.egress.watch.timeline_files import (
    DAY_S,
    HOUR_S,
    KEPT_MINUTES_S,
    KEPT_S,
    TimelineFile,
    last_rows,
    rows_of_file,
    timeline_rows,
)
from safehold.secure.egress.watch.timeline_rows import RowReader, RowWriter, TimelineRow

BEGINS = 1_795_000_000.0
_names = st.sampled_from(["a", "b", "total"])
_sizes = st.integers(0, 2**50)
_exact = st.integers(0, 2**40).map(lambda n: n / 1000)
_windows = st.dictionaries(st.sampled_from(["hour", "day"]), _sizes)
_rows = st.builds(
    TimelineRow,
    time=st.integers(0, 2**31).map(float),
    passed=st.dictionaries(_names, _sizes),
    remaining=st.dictionaries(_names, _windows),
    residual=st.dictionaries(_names, _exact),
    undeclared=_sizes,
    line=_sizes,
    budgets=st.dictionaries(_names, _windows),
    actions=st.lists(st.tuples(st.just("warn"), _names, st.text(max_size=5))).map(tuple),
    shape=st.dictionaries(_names, st.integers(-(10**6), 10**6).map(lambda n: n / 1e6)),
    accounts_over=st.lists(_names).map(tuple),
    headers=st.dictionaries(_names, _sizes),
)


def look(at: float, sent: int = 0, **changes: object) -> TimelineRow:
    """One row of one flow."""
    row = {"passed": {"a": sent}, "remaining": {"a": {"hour": 10**9 - sent}}, "residual": {}}
    return TimelineRow(time=at, undeclared=0, line=1, **(row | changes))  # type: ignore[arg-type]


@given(st.lists(_rows, max_size=12))
def test_every_row_comes_back(rows: list[TimelineRow]) -> None:
    """Whatever changes between rows, names or numbers, each is read as it was written."""
    writer, reader = RowWriter(), RowReader()
    assert [reader.row(writer.line(row)) for row in rows] == rows


def test_quiet_flows_cost_nothing() -> None:
    """Of a thousand flows one sends: its row is a few bytes, not a thousand names."""
    writer = RowWriter()
    passed = dict.fromkeys(map(str, range(1000)), 5)
    writer.line(look(1.0, passed=passed))
    assert len(writer.line(look(2.0, passed=passed | {"7": 9}))) < 40


@pytest.mark.parametrize("line", [b"[1]", b"[1,[[-1,2]]]", b"[1,[[99,2]]]", b"{}", b"x", b"[]"])
def test_a_line_that_is_no_row_is_one_error(line: bytes) -> None:
    """A change of numbers that are not there, and any other text, is refused."""
    reader = RowReader()
    reader.row(RowWriter().line(look(1.0)))
    with pytest.raises(ValueError, match=r"."):
        reader.row(line)


def write(path: Path, times: list[float]) -> None:
    """Write a row for each time."""
    file = TimelineFile(path)
    for number, at in enumerate(times):
        file.append(look(at, number, actions=(("warn", "a", str(number)),) * (number % 97 == 0)))


def test_a_day_is_kept_in_minutes_and_the_last_hours_in_full(tmp_path: Path) -> None:
    """Every action of the day is read again, and no minute of it is missing."""
    path = tmp_path / "timeline.jsonl"
    times = [BEGINS + 10 * n for n in range(8_640 // 4)]
    write(path, times)
    rows = list(timeline_rows(path))
    said = [action for row in rows for action in row.actions]
    assert said == [("warn", "a", str(n)) for n in range(0, len(times), 97)]
    assert max(b.time - a.time for a, b in itertools.pairwise(rows)) <= 60
    assert [row.time for row in rows] == sorted({row.time for row in rows})
    assert rows[-1] == look(times[-1], len(times) - 1)
    assert len(rows) < len(times) / 2
    assert len(list(timeline_rows(path, since=BEGINS + 3 * HOUR_S))) < len(rows)


def test_old_rows_get_thin_and_then_go(tmp_path: Path) -> None:
    """After 35 days an hour has few rows, after 400 none; a busy time is not kept longer."""
    path = tmp_path / "timeline.jsonl"
    hour = [60.0 * n for n in range(60)]
    write(path, [BEGINS + at for at in hour])
    ends = BEGINS + KEPT_MINUTES_S + 2 * DAY_S
    write(path, [ends, ends + HOUR_S, ends + 2 * HOUR_S])
    old = [row for row in timeline_rows(path) if row.time < ends]
    assert 1 <= len(old) <= 3
    assert old[-1].passed["a"] == 59
    gone = BEGINS + KEPT_S + 2 * DAY_S
    write(path, [gone, gone + HOUR_S])
    assert all(row.time >= ends for row in timeline_rows(path))


def test_a_watch_that_starts_again_loses_no_row(tmp_path: Path) -> None:
    """Each start begins with a whole row behind the others; a torn one is cut off."""
    path = tmp_path / "timeline.jsonl"
    for number in range(5):
        TimelineFile(path).append(look(BEGINS + number, number))
        with path.open("ab") as file:
            file.write(b"[179500")
    TimelineFile(path).append(look(BEGINS + 9, 9))
    assert [row.passed["a"] for row in timeline_rows(path)] == [0, 1, 2, 3, 4, 9]


def test_a_timeline_of_before_is_read_and_rolled_up(tmp_path: Path) -> None:
    """A file of whole rows only, days long, becomes minutes when the hour after it ends."""
    path = tmp_path / "timeline.jsonl"
    writer = RowWriter()
    with path.open("wb") as file:
        for number in range(2_000):
            writer.begin()
            file.write(writer.line(look(BEGINS + 30 * number, number)))
    now = BEGINS + 30 * 2_000
    assert len(list(timeline_rows(path))) == 2_000
    write(path, [now, now + HOUR_S, now + 2 * HOUR_S])
    rows = list(timeline_rows(path))
    assert rows[0].time == BEGINS
    assert 900 < len(rows) < 1_100


def test_the_end_is_found_whatever_lies_before(tmp_path: Path) -> None:
    """The newest rows are read from the last whole row that is far enough back."""
    path = tmp_path / "timeline.jsonl"
    passed = {f"flow{n}": n for n in range(2_000)}
    writer = RowWriter()
    rows = [look(float(n), passed=passed | {"flow1": n}) for n in range(130)]
    path.write_bytes(b"".join(map(writer.line, rows)) + b"[130,[[5")
    found = last_rows(path, at_least_bytes=100)
    assert found == rows[-len(found) :]
    assert 10 <= len(found) <= 70


def test_what_is_no_timeline_is_told(tmp_path: Path) -> None:
    """A missing file, a cut compressed one and a folder in its place are one error each."""
    with pytest.raises(DataError, match="can't be read"):
        list(timeline_rows(tmp_path / "timeline.jsonl"))
    cut = tmp_path / "timeline.20261101T000000.minutes.jsonl.gz"
    cut.write_bytes(gzip.compress(RowWriter().line(look(1.0)) * 50)[:-9])
    with pytest.raises(DataError, match="can't be read"):
        list(rows_of_file(cut))
    (tmp_path / "timeline.jsonl").mkdir()
    with pytest.raises(StateError, match="can't be appended"):
        TimelineFile(tmp_path / "timeline.jsonl").append(look(1.0))


@pytest.mark.parametrize("back_s", [0, 1_800, 3_600, 7_200, 172_800])
def test_a_clock_that_is_set_back_loses_no_action_and_no_file(tmp_path: Path, back_s: int) -> None:
    """Hours are named and read in the order in which they were written, whatever the clock says."""
    timeline, at = TimelineFile(tmp_path / "timeline.jsonl"), 1_700_000_400.0
    for number in range(340):
        at += 60.0 - (back_s if number == 150 else 0)
        timeline.append(
            TimelineRow(
                time=at,
                passed={"a": number},
                remaining={},
                residual={},
                undeclared=0,
                line=1,
                actions=(("warn", f"f{number}", "why"),) if number % 10 == 0 else (),
            )
        )
    read = list(timeline_rows(tmp_path / "timeline.jsonl"))
    done = [flow for row in read for _, flow, _ in row.actions]
    assert set(done) == {f"f{number}" for number in range(0, 340, 10)}
    if not back_s:
        assert len(done) == len(set(done))
