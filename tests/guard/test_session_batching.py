"""A scorer that is stuck is told from a queue that moves."""

import asyncio
import threading
import time

from safehold.guard.interface import Escalation, Failed, Scored
from safehold.guard.scorers.interface import ExchangeScore, ScoringInput
from safehold.guard.session.batching import BatchLimits, Stage2


class Slow:
    """Takes its time for each batch, or waits for a sign."""

    def __init__(self, each_s: float) -> None:
        self.go = threading.Event()
        self.each_s = each_s
        self.scored = 0

    def score(self, inputs: list[ScoringInput]) -> list[ExchangeScore]:
        """Score after a while; with no time of its own, when the sign is given."""
        if self.each_s:
            time.sleep(self.each_s)
        else:
            self.go.wait(60)
        self.scored += len(inputs)
        return [ExchangeScore(logit=0.0, clause="") for _ in inputs]


def asked(scorer: Slow, count: int, limits: BatchLimits) -> list[Scored | Failed]:
    """Ask so many questions at once."""

    async def go() -> list[Scored | Failed]:
        stage2 = Stage2(scorer, limits)
        questions = [stage2(Escalation(prompt=str(n), reply="")) for n in range(count)]
        found = await asyncio.gather(*questions)
        scorer.go.set()
        stage2.close()
        return list(found)

    return asyncio.run(go())


def test_a_queue_that_moves_fails_nobody() -> None:
    """The last of a queue waits for several time-outs: each before it was answered in time."""
    limits = BatchLimits(batch=1, timeout_s=5.0)
    found = asked(Slow(0.6), 10, limits)
    assert found == [Scored(logit=0.0, clause="")] * 10


def test_a_stuck_scorer_fails_all_who_wait() -> None:
    """No batch ends: everybody is told after one time-out, and the queue is empty afterwards."""
    scorer = Slow(0.0)
    assert asked(scorer, 5, BatchLimits(batch=1, timeout_s=0.1)) == [Failed("TimeoutError")] * 5


def test_a_scorer_that_hardly_moves_fails_in_bounded_time() -> None:
    """Six time-outs are the most that anybody waits, whatever is scored meanwhile."""
    found = asked(Slow(0.08), 16, BatchLimits(batch=1, timeout_s=0.1))
    assert found[-1] == Failed("TimeoutError")


def test_who_gives_up_is_not_scored() -> None:
    """A client that hung up leaves no question behind."""

    async def go() -> int:
        scorer = Slow(0.0)
        stage2 = Stage2(scorer, BatchLimits(batch=1))
        first = asyncio.ensure_future(stage2(Escalation(prompt="a", reply="")))
        await asyncio.sleep(0.02)
        second = asyncio.ensure_future(stage2(Escalation(prompt="b", reply="")))
        await asyncio.sleep(0.02)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        scorer.go.set()
        await first
        await asyncio.sleep(0.02)
        stage2.close()
        return scorer.scored

    assert asyncio.run(go()) == 1
