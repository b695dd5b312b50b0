"""A lane keeps released <= scored <= received, whatever it is asked for."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.exchange import Lane
from safehold.guard.overlay.live import HotSearch, no_hot_rules
from safehold.guard.session.lanes import LaneState
from safehold.guard.session.written import WrittenStream

WORDS = st.lists(st.sampled_from(["ale ", "malt and ", "\\u0068op ", "x" * 70, "y"]), max_size=12)


class Views:
    """Nothing is ever decoded."""

    pending = 0
    unreadable = 0

    def unknown(self, known: str) -> int:
        """Return 0."""
        del known
        return 0

    def feed(self, text: str) -> Iterable[str]:
        """Return nothing."""
        del text
        return ()

    def finish(self) -> Iterable[str]:
        """Return nothing."""
        return ()


def _lane(meaning: LaneState | None = None) -> LaneState:
    rules = WrittenStream(None, HotSearch(no_hot_rules).stream())
    return LaneState(Lane(), None, rules, Views(), meaning=meaning)


@given(WORDS, st.lists(st.booleans(), min_size=12, max_size=12), st.integers(0, 40))
def test_no_character_leaves_before_it_was_scored(
    texts: list[str], scoring: list[bool], hold: int
) -> None:
    """Text that was not scored stays, also where everything scored is asked for."""
    lane, released, waiting = _lane(), "", 0
    for text, scored in zip(texts, scoring, strict=False):
        for step in lane.arrive(text):
            words, chars = lane.grow(step)
            waiting += chars
            if scored:
                lane.take(waiting, len(words))
                waiting = 0
        released += lane.give(hold, everything=False) + lane.give(0, everything=True)
        assert lane.released == len(released) <= lane.scored <= lane.received
        assert "".join(texts).startswith(released)


def test_a_benign_lane_gives_everything_in_the_end() -> None:
    """The twin: what was scored to its end leaves to its last character."""
    lane, text, released = _lane(), "malt and hops, stirred slowly", ""
    for step in [*lane.arrive(text), lane.left()]:
        words, chars = lane.grow(step)
        lane.take(chars, len(words))
        released += lane.give(2, everything=False)
    words, chars = lane.rest()
    lane.take(chars, len(words))
    assert released + lane.give(0, everything=True) == text


def test_an_undecided_lane_gives_nothing() -> None:
    """While a score waits for stage 2 nothing leaves; once it was decided, it does."""
    lane = _lane()
    lane.grow("malt and hops ")
    lane.take(14, 3)
    lane.note_stage1(0.5)
    assert lane.give(0, everything=False) == ""
    lane.checked()
    assert lane.give(0, everything=False) == "malt and hops "


@pytest.mark.parametrize("cleared", [0, 3, 9])
def test_the_wire_waits_for_its_meaning(cleared: int) -> None:
    """Characters of JSON leave only as far as what they mean was cleared."""
    meaning = _lane()
    lane = _lane(meaning)
    wire = "\\u0068op ale "
    for text, fresh in lane.texts(wire):
        text.grow(fresh)
        text.take(len(fresh), 2)
    lane.note_meaning(min(cleared, len("hop ale ")))
    given = lane.give(0, everything=False)
    assert given == (wire if cleared == 9 else "")
    assert meaning.received == len("hop ale ")


def test_what_a_lane_owns_is_written_by_no_other() -> None:
    """The counts have no setter: a session can only tell a lane what it found."""
    lane = _lane()
    for name in ("received", "scored", "released", "waiting", "tail", "recent", "best", "final"):
        with pytest.raises(AttributeError):
            setattr(lane, name, 1)
