"""A generator that is only slow is waited for and given less; one that hangs is left soon."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.constitution import load
from safehold.errors import UpstreamError
from safehold.improve.synthesis.calls import CallBook
from safehold.improve.synthesis.chat import ChatSettings
from safehold.improve.synthesis.generator import ModelGenerator
from safehold.improve.synthesis.interface import Example
from safehold.improve.synthesis.pace import CallFate, Pace
from safehold.progress import Progress
from safehold.testing.generator import GeneratorServer, Habit, Speed, generating

_CLASS = Path(__file__).parents[3] / "examples" / "classes" / "bicycle-repair.yaml"


class Heard(Progress):
    """What a run told."""

    def __init__(self) -> None:
        """Nothing was told yet."""
        self.lines: list[str] = []
        self.notes: list[tuple[str, float | None]] = []
        self.steps = self.total = 0

    def start(self, what: str, total: int) -> None:
        """Keep the total."""
        del what
        self.total += total

    def advance(self, steps: int = 1) -> None:
        """Count the steps."""
        self.steps += steps

    def note(self, detail: str, left_s: float | None = None) -> None:
        """Keep a note."""
        self.notes.append((detail, left_s))

    def say(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)


class ServersClock:
    """Seconds in which every call under way was at the server: a busy machine's own do not count.

    A request or an answer that waits for processor time is no slowness of the model.
    """

    def __init__(self, server: GeneratorServer) -> None:
        """Begin at nought, with no call under way."""
        self._server = server
        self._lock = threading.Lock()
        self._last, self._there = time.monotonic(), False
        self._passed = 0.0
        self.under_way: Callable[[], int] = lambda: 0

    def __call__(self) -> float:
        """Return the seconds so far."""
        with self._lock:
            now = time.monotonic()
            there = self.under_way() <= self._server.busy + self._server.hanging
            if there and self._there:
                self._passed += now - self._last
            self._last, self._there = now, there
            return self._passed


def _run(
    server: GeneratorServer, folder: Path, timeout_s: float, concurrency: int
) -> tuple[list[Example], Heard]:
    heard = Heard()
    server.clock = clock = ServersClock(server)
    asked = ChatSettings(
        url=server.url, model="canned", batch=1, rounds=1, languages=("en",), backoff_s=0.0,
        timeout_s=timeout_s, concurrency=concurrency,
    )  # fmt: skip
    with CallBook(folder) as book:
        generator = ModelGenerator("openai", load(str(_CLASS)), asked, book, heard, clock=clock)
        clock.under_way = lambda: generator._pace.under_way
        return list(generator.generate(seed=1)), heard


def _again(server: GeneratorServer) -> int:
    return sum(count - 1 for count in Counter(server.asked).values())


@pytest.mark.parametrize(
    ("speed", "timeout_s", "wasted"),
    [
        (Speed(work_s=0.45), 0.3, 4),  # slow, however many
        (Speed(work_s=0.06, shared=True), 0.3, 6),  # too slow for so many
        (Speed(work_s=0.06, shared=True, stubborn=True), 0.3, 6),  # and works for the dead
        (Speed(work_s=0.01, load_s=0.45), 0.3, 6),  # slow at first
    ],
)
def test_a_slow_generator_is_waited_for(
    tmp_path: Path, speed: Speed, timeout_s: float, wasted: int
) -> None:
    """It ends with all answers, few calls were made in vain, and what was changed was said."""
    with generating(GeneratorServer()) as server:
        quick, _ = _run(server, tmp_path / "quick", 20.0, 8)
    with generating(GeneratorServer(speed=speed)) as server:
        found, heard = _run(server, tmp_path / "slow", timeout_s, 8)
        assert server.wasted <= wasted
        assert _again(server) <= wasted
    assert found == quick
    assert heard.lines
    for line in heard.lines:
        assert "\n" not in line
        assert "--timeout" in line or "at once again" in line
    assert heard.steps == heard.total > 0


def test_a_generator_in_time_is_never_given_less(tmp_path: Path) -> None:
    """The benign twin: slow, but within the time-out: nothing is said, nothing made again."""
    with generating(GeneratorServer(speed=Speed(work_s=0.1))) as server:
        _, heard = _run(server, tmp_path, 5.0, 8)
        assert (server.wasted, _again(server), heard.lines) == (0, 0, [])
        assert server.most_busy > 4
    detail, left = heard.notes[-1]
    assert re.search(r"under way, .*tokens written, about .* to come", detail)
    assert left is not None


@pytest.mark.parametrize("concurrency", [1, 4, 12])
def test_a_generator_that_hangs_is_left_after_twice_the_timeout(
    tmp_path: Path, concurrency: int
) -> None:
    """However many calls wait: one line that says what to do, and no more calls than lanes."""
    began = time.monotonic()
    with generating(GeneratorServer(Habit.HANGS)) as server:
        with pytest.raises(UpstreamError, match=r"no answer within .*raise --timeout") as caught:
            _run(server, tmp_path, 0.5, concurrency)
        took = time.monotonic() - began
        assert ("--concurrency" in str(caught.value)) is (concurrency > 1)
        assert len(server.asked) <= concurrency
    assert 1.0 <= took < 30.0


def test_a_generator_that_dies_half_way_is_left_too(tmp_path: Path) -> None:
    """Answers before do not make it wait for ever, and they are kept."""
    answered = iter([Habit.GOOD] * 9)
    server = GeneratorServer(wanted=lambda _: next(answered, Habit.HANGS))
    with generating(server), pytest.raises(UpstreamError, match="no answer within"):
        _run(server, tmp_path, 0.5, 4)
    assert len((tmp_path / "calls.jsonl").read_bytes().splitlines()) == 9


def test_a_call_that_is_lost_is_made_again(tmp_path: Path) -> None:
    """One call that nobody answers while others are answered does not stop the run."""
    habits = iter([Habit.GOOD, Habit.HANGS])
    server = GeneratorServer(wanted=lambda _: next(habits, Habit.GOOD))
    with generating(server):
        found, heard = _run(server, tmp_path, 0.6, 4)
        assert _again(server) == 1
    assert found
    assert ["made again" in line for line in heard.lines] == [True]


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        """Begin at nought."""
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@given(
    work=st.floats(1.0, 200.0), width=st.integers(1, 24), shared=st.booleans(), load=st.floats(0, 9)
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_answered_alone_in_the_time_is_answered(
    *, work: float, width: int, shared: bool, load: float
) -> None:
    """A model that answers one call within the time-out is never said to hang.

    Simulated: every call costs `work` seconds, of a machine of its own or of one that all share.
    """
    timeout = 100.0
    if work > timeout or (shared and work > timeout / 2):
        return
    clock = Clock()
    pace = Pace(width, timeout, clock=clock)
    done: dict[int, float] = {}
    wanted, late = 2 * width, 0
    while pace.answered < wanted:
        while pace.under_way < pace.width and pace.under_way + pace.answered < wanted:
            done[pace.begin()] = 0.0
        clock.now += 0.5
        each = 0.5 / (len(done) if shared else 1)
        for ticket in list(done):
            done[ticket] += each if clock.now > load else 0.0
            if done[ticket] >= work:
                pace.answer(ticket, 1)
                verdict = CallFate.TAKE_BACK
            else:
                verdict = pace.verdict(ticket)
            assert verdict is not CallFate.HANGS
            late += verdict is CallFate.LATE
            if verdict is not CallFate.WAIT:
                pace.end(ticket)
                del done[ticket]
    assert late == 0
    assert pace.timed_out <= width
    assert 1 <= pace.width <= width


def test_a_machine_that_slept_is_no_silence() -> None:
    """Hours in which nobody looked are not counted: the next look waits on; silence after is."""
    clock = Clock()
    pace = Pace(4, 60.0, clock=clock)
    ticket = pace.begin()
    clock.now = 30_000.0
    assert pace.verdict(ticket) is CallFate.WAIT
    looks = 0
    while pace.verdict(ticket) is CallFate.WAIT:
        clock.now += pace.look_s
        looks += 1
    assert pace.verdict(ticket) is CallFate.HANGS
    assert 110 <= looks * pace.look_s <= 121


def test_a_server_that_says_it_is_busy_gets_half() -> None:
    """One wave of HTTP 429 halves the calls once, not once for each of them."""
    said: list[str] = []
    clock = Clock()
    pace = Pace(8, 60.0, said.append, clock)
    tickets = [pace.begin() for _ in range(8)]
    clock.now = 1.0
    for ticket in tickets:
        pace.busy(ticket, 429)
        pace.end(ticket)
    assert pace.width == 4
    assert len(said) == 1
    assert "HTTP 429" in said[0]
    for _ in range(40):
        clock.now += 1.0
        pace.answer(ticket := pace.begin(), 5)
        pace.end(ticket)
    assert pace.width == 8
