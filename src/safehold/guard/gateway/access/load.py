"""How long a new request would wait for its verdict, and when to say so instead of taking it.

A worker that takes more than it can judge makes everybody wait. So each request that comes is held
against what is ahead of it: the prompts that have no verdict yet, times what a prompt costs here,
in the share of the time that open streams leave; what replies have asked stage 2; and the turns of
the event loop that a request needs, in each of which every open stream has its turn too. Costs are
measured in CPU seconds of the threads that do the work, never by the clock on the wall: a busy
machine around the worker does not turn clients away.
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
_CATCHES_UP = 0.3
"""How much a turn that was quicker than those before counts: a loop that is free again is free."""
_LONGEST_S = 60
_LEAST_LEFT = 0.25
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
        self._each_open = 0.0
        self._idle = 0.0
        self._known = 0
        self.judging = 0
        self.large = 0
        self.open = 0
        """Exchanges under way, those whose prompts are being judged among them."""
        self.beat_s = _BEAT_S

    @property
    def wait_s(self) -> float:
        """Seconds of work that stand between a new request and its verdict."""
        return self._wait(self._stage2())

    def _wait(self, stage2: Ahead) -> float:
        each = self._cost + self._asks * stage2.each_s
        replies = max(0, stage2.waiting - self.judging) * stage2.each_s
        # Large prompts are judged in threads beside the others: they share the time, by turns.
        prompts = self.judging * each * (1 + self.large) / self.left
        return prompts + replies + self._late * _TURNS

    @property
    def left(self) -> float:
        """The share of the event loop's time that open exchanges leave to new prompts.

        Every prompt that is judged becomes an answer that is scored as it comes: a crowd of them is
        in each other's way before the first word of any. What cannot keep its pace is scored in
        larger pieces, so a quarter is always left.
        """
        return max(_LEAST_LEFT, 1.0 - self.open * self._each_open)

    def refusal(self, most_s: float) -> HttpRefusal | None:
        """Return why a request may not be taken now, with when to come again; None: it may."""
        stage2 = self._stage2()  # asked once: both answers are of one moment
        over = self._wait(stage2) - most_s
        if over <= 0 and not stage2.crowded:
            return None
        again = min(_LONGEST_S, max(1, math.ceil(over)))
        return HttpRefusal(503, "the gateway is busy: it would answer too late", again)

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        """Count an exchange as under way."""
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1

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
        began, beside = self._cpu(), max(self.judging, self.open)
        try:
            yield _measured(work, spent, self._cpu)
        finally:
            # All that the thread did meanwhile was for those who shared it: what a request costs
            # beside its verdict (its bytes, its row, its call upstream) is in there too.
            shared = (self._cpu() - began) / max(beside, self.judging, self.open)
            self.judging -= 1
            self._note(max(spent.seconds, shared), spent.asks)

    def behind(self, seconds: float) -> None:
        """Take note of how far the event loop was behind, in its own CPU seconds."""
        share = min(1.0, (max(0.0, seconds) + _BEAT_S) / _SETTLES_S)
        if seconds < self._late:
            share = max(share, _CATCHES_UP)
        self._late += (max(0.0, seconds) - self._late) * share

    def used(self, seconds: float, of_s: float) -> None:
        """Take note of what the event loop's thread did in some time, for those who were open."""
        share = seconds / of_s
        if self.open:
            each = max(0.0, share - self._idle) / self.open
            self._each_open += (each - self._each_open) * _SHARE
        else:
            self._idle += (share - self._idle) * _SHARE

    async def beat(self) -> None:
        """Measure the event loop, for as long as the worker lives."""
        while True:
            due, before = time.monotonic() + self.beat_s, self._cpu()
            await asyncio.sleep(self.beat_s)
            now, did = time.monotonic(), self._cpu() - before
            # What the loop did itself while the beat was due, and no other process's time.
            self.behind(min(now - due, did))
            self.used(did, now - due + self.beat_s)

    def _note(self, seconds: float, asks: int) -> None:
        self._known += 1
        share = max(_SHARE, 1 / self._known)  # the plain mean of the first ones, some of them slow
        self._cost += (seconds - self._cost) * share
        self._asks += (asks - self._asks) * share


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
