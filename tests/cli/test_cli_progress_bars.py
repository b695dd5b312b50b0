"""What long commands tell off a terminal: a line every few seconds, though no step is done."""

import io

from rich.console import Console

from safehold.cli._progress_bars import Bars


class Clock:
    """A clock that is set."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_a_pipe_hears_of_work_whose_steps_are_long() -> None:
    """A note is a line every five seconds, before any step, with what is left where it is known."""
    told, clock = io.StringIO(), Clock()
    with Bars(Console(file=told), clock) as bars:
        bars.start("calls to the generator", 40)
        for _ in range(12):
            clock.now += 1.0
            bars.note("4 under way, no answer for 9 s")
        bars.advance(10)
        clock.now += 5.0
        bars.note("4 under way", 70.0)
        bars.say("fewer at once")
    assert told.getvalue().splitlines() == [
        "calls to the generator: 40 steps",
        "calls to the generator: 0 of 40, 4 under way, no answer for 9 s",
        "calls to the generator: 0 of 40, 4 under way, no answer for 9 s",
        "calls to the generator: 10 of 40, about 70 s left, 4 under way",
        "fewer at once",
        "calls to the generator: 10 done in 17 s",
    ]


def test_a_terminal_shows_the_detail_beside_the_bar() -> None:
    """What is said stands above the bar; what is noted is a part of it."""
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=120, color_system=None)
    with Bars(console) as bars:
        bars.start("calls to the generator", 40)
        bars.note("4 under way")
        bars.say("fewer at once [no markup]")
        bars.advance()
    assert "4 under way" in drawn.getvalue()
    assert "fewer at once [no markup]" in drawn.getvalue()
    assert "1/40" in drawn.getvalue()
