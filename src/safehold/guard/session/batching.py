"""Stage 2 off the event loop: requests of all streams share batches.

Dynamic micro-batching: while one batch is being scored, further requests gather and form the next,
so a lone stream waits for nothing and many streams share the model's fixed cost.
"""

import asyncio
import functools
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from safehold.guard.interface import Escalation, Failed, Scored
from safehold.guard.scorers.interface import ExchangeScore, ExchangeScorer, ScoringInput
from safehold.guard.session.drivers import Answer, guarded, hand_over

_PATIENCE = 6
"""Time-outs that a question waits for at most, while others before it are answered."""
_SHARE = 0.1
"""How much one batch counts in the running mean."""


class BatchLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds on waiting and on the size of a batch.

    A question fails where no batch was scored within `timeout_s`: that is a scorer that is stuck. A
    queue that moves is none, however slow the machine is: it has only so many places.
    """

    batch: int = 16
    waiting: int = 512
    timeout_s: float = 10.0


class Ahead(NamedTuple):
    """What stands before a new question to stage 2."""

    each_s: float = 0.0
    """What a text costs, in seconds of the scoring thread (a running mean)."""
    waiting: int = 0
    """Texts that wait."""
    crowded: bool = False
    """Whether they take half of the places, so that new prompts leave the rest to replies."""


class Stage2:
    """Answers escalations from every session of a process; one scoring thread."""

    def __init__(self, scorer: ExchangeScorer, limits: BatchLimits | None = None) -> None:
        """Take the scorer; nothing runs until the first request."""
        hand_over()
        self._scorer = scorer
        self._limits = limits or BatchLimits()
        self._waiting: deque[tuple[Escalation, asyncio.Future[Answer]]] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stage2")
        self._worker: asyncio.Task[None] | None = None
        self.batches = 0
        self.scored = 0
        self.each_s = 0.0

    @property
    def ahead(self) -> Ahead:
        """What stands before a new question."""
        waiting = len(self._waiting)
        return Ahead(self.each_s, waiting, waiting * 2 >= self._limits.waiting)

    async def __call__(self, request: Escalation) -> Answer:
        """Return the score of one escalation; never raises for a scorer's failure or a time-out."""
        if len(self._waiting) >= self._limits.waiting:
            return Failed(reason="Overloaded")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._drain())
        try:
            for _ in range(_PATIENCE):
                before = self.batches
                await asyncio.wait((future,), timeout=self._limits.timeout_s)
                if future.done():
                    return future.result()
                if self.batches == before:
                    break
            return Failed(reason="TimeoutError")
        finally:
            future.cancel()

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            taken = [
                self._waiting.popleft() for _ in range(min(self._limits.batch, len(self._waiting)))
            ]
            taken = [pair for pair in taken if not pair[1].done()]
            if not taken:
                continue
            inputs = [ScoringInput(request.prompt, request.reply) for request, _ in taken]
            scores, spent = await loop.run_in_executor(
                self._thread, functools.partial(_timed, self._scorer, inputs)
            )
            self.batches += 1
            share = max(_SHARE, 1 / self.batches)
            self.each_s += (spent / len(taken) - self.each_s) * share
            self.scored += len(taken)
            for (_, future), answer in zip(taken, _answers(scores, len(taken)), strict=True):
                if not future.done():
                    future.set_result(answer)

    def close(self) -> None:
        """Stop the scoring thread once its batch is done."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _timed(
    scorer: ExchangeScorer, inputs: list[ScoringInput]
) -> tuple[list[ExchangeScore] | Failed, float]:
    """Score a batch; return the CPU seconds of this thread too, which no other process spends."""
    began = time.thread_time()
    scores = guarded(scorer.score, inputs)
    return scores, time.thread_time() - began


class InlineStage2:
    """Answers escalations where they arise; for the command line, evaluation and tests."""

    def __init__(self, scorer: ExchangeScorer) -> None:
        """Take the scorer."""
        self._scorer = scorer

    def __call__(self, request: Escalation) -> Answer:
        """Return the score of one escalation; a broken scorer gives `Failed`."""
        scores = guarded(self._scorer.score, [ScoringInput(request.prompt, request.reply)])
        return _answers(scores, 1)[0]


def _answers(scores: list[ExchangeScore] | Failed, count: int) -> list[Answer]:
    if isinstance(scores, Failed):
        return [scores] * count
    if len(scores) != count:
        return [Failed(reason="WrongCount")] * count
    return [Scored(logit=score.logit, clause=score.clause) for score in scores]
