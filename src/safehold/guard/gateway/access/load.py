"""How long a new request would wait for its verdict, and when to say so instead of taking it.

A worker that takes more than it can judge makes everybody wait. So each request that comes is held
against what is ahead of it: the prompts that have no verdict yet, times what a prompt costs here;
what replies have asked stage 2; and the turns of the event loop that a request needs, in each of
which every open stream has its turn too. Costs are measured in CPU seconds of the threads that do
the work, never by the clock on the wall: a busy machine around the worker does not turn clients
away.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

from safehold.guard.gateway.access.admission import HttpRefusal
from safehold.guard.interface import Escalation
from safehold.guard.session.batching import Ahead

T = TypeVar("T")
Work = Generator[Escalation, Any, T]

_SHARE = 0.1
"""How much one measurement counts against those before it."""
_BEAT_S = 0.1
_SETTLES_S = 2.0
"""So long being behind lasts until it counts whole."""
_LONGEST_S = 60
_TURNS = 8
"""Turns of the event loop from a request's arrival to its first text: its body, stage 2, the row of
its prompt, the upstream's head, its first words, and their way out."""


class Load:
    """What is ahead of a new request in one worker."""

    def __init__(
        self,
        stage2: Callable[[], Ahead] = Ahead,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        """Take what stands before stage 2, and the CPU clock of the calling thread."""
        self._stage2 = stage2
        self._cpu = cpu
        self._cost = 0.0
        self._asks = 0.0
        self._late = 0.0
        self._known = False
        self.judging = 0
        self.large = 0
        self.beat_s = _BEAT_S

    @property
    def wait_s(self) -> float:
        """Seconds of work that stand between a new request and its verdict."""
        stage2 = self._stage2()
        each = self._cost + self._asks * stage2.each_s
        replies = max(0, stage2.waiting - self.judging) * stage2.each_s
        # Large prompts are judged in threads beside the others: they share the time, by turns.
        return self.judging * each * (1 + self.large) + replies + self._late * _TURNS

    def refusal(self, most_s: float) -> HttpRefusal | None:
        """Return why a request may not be taken now, with when to come again; None: it may."""
        over = self.wait_s - most_s
        if over <= 0 and not self._stage2().crowded:
            return None
        again = min(_LONGEST_S, max(1, math.ceil(over)))
        return HttpRefusal(503, "the gateway is busy: it would answer too late", again)

    @contextlib.contextmanager
    def judged(self, work: Work[T], *, large: bool = False) -> Iterator[Work[T]]:
        """Count a prompt as ahead of others until its verdict; yield its flow, measured.

        A `large` one, judged in a thread, says nothing of what others cost.
        """
        if large:
            self.large += 1
            try:
                yield work
            finally:
                self.large -= 1
            return
        spent = _Spent()
        self.judging += 1
        try:
            yield _measured(work, spent, self._cpu)
        finally:
            self.judging -= 1
            self._note(spent)

    def behind(self, seconds: float) -> None:
        """Take note of how far the event loop was behind, in its own CPU seconds."""
        share = min(1.0, (max(0.0, seconds) + _BEAT_S) / _SETTLES_S)
        self._late += (max(0.0, seconds) - self._late) * share

    async def beat(self) -> None:
        """Measure the event loop, for as long as the worker lives."""
        while True:
            due, before = time.monotonic() + self.beat_s, self._cpu()
            await asyncio.sleep(self.beat_s)
            # What the loop did itself while the beat was due, and no other process's time.
            self.behind(min(time.monotonic() - due, self._cpu() - before))

    def _note(self, spent: "_Spent") -> None:
        share = _SHARE if self._known else 1.0
        self._known = True
        self._cost += (spent.seconds - self._cost) * share
        self._asks += (spent.asks - self._asks) * share


class _Spent:
    """What one prompt cost."""

    __slots__ = ("asks", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.asks = 0


def _measured(work: Work[T], spent: _Spent, cpu: Callable[[], float]) -> Work[T]:
    """Run a flow and keep the CPU seconds of its own steps, in whichever thread each runs."""
    answer = None
    while True:
        began = cpu()
        try:
            asked = work.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            spent.seconds += cpu() - began
        spent.asks += 1
        answer = yield asked
