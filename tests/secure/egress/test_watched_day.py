"""A day before the real watch: a leak is unexplained to the byte, an honest day is not."""

from pathlib import Path

import pytest

from safehold.secure.egress.interface import StateError
from safehold.secure.egress.simulation.watched_day import Leak, WatchedDay, play_watched_day
from safehold.secure.egress.watch.timeline import read_timeline

BEGINS = 1_795_000_000.0
HALF = BEGINS + 12 * 3600


def test_an_hours_leak_is_seen_by_the_watch(tmp_path: Path) -> None:
    """The odometer holds what leaked, within the noise, and the watch warns past half the line."""
    leak = Leak(begins_s=6 * 3600.0)
    rows = read_timeline(play_watched_day(tmp_path / "a", WatchedDay(BEGINS, HALF, leak=leak)))
    residual = sum(rows[-1].residual.values())
    assert leak.size * 0.99 <= residual <= leak.size + 0.01 * rows[-1].line
    taken = [action[:2] for row in rows for action in row.actions]
    assert ("warn", "replies") in taken
    assert ("warn", "undeclared") in taken


def test_an_honest_day_is_quiet(tmp_path: Path) -> None:
    """The benign twin: nothing is left unexplained beyond a hundredth of the line; no step."""
    day = WatchedDay(BEGINS, HALF, leak=None, stray=0)
    rows = read_timeline(play_watched_day(tmp_path / "a", day))
    assert sum(rows[-1].residual.values()) < 0.01 * rows[-1].line
    assert not any(row.actions for row in rows)


def test_a_leak_past_the_line_seals(tmp_path: Path) -> None:
    """More than the line unexplained: the flow is blocked and everything sealed."""
    leak = Leak(begins_s=3600.0, size=3_000_000_000)
    rows = read_timeline(play_watched_day(tmp_path / "a", WatchedDay(BEGINS, HALF, leak=leak)))
    assert {"seal", "block"} <= {action[0] for row in rows for action in row.actions}


def test_a_played_folder_is_not_played_over(tmp_path: Path) -> None:
    """A second day in one folder is refused with a line."""
    day = WatchedDay(BEGINS, BEGINS + 3600, leak=None)
    play_watched_day(tmp_path / "a", day)
    with pytest.raises(StateError, match="choose another folder"):
        play_watched_day(tmp_path / "a", day)
