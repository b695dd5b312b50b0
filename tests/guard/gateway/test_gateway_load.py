"""A worker that is behind says so at once; how far it is behind is measured, and told here."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Generator
from typing import Any

import msgspec
import pytest
from gateway_limits import SMALL
from gateway_wire import PATHS, Start, body_for, post, read

from safehold.guard.gateway.access.load import Load
from safehold.guard.interface import Allow, Escalation, Failed, Scored
from safehold.guard.ledger.interface import Action
from safehold.guard.scorers.interface import ExchangeScore, ScoringInput
from safehold.guard.session.batching import Ahead, BatchLimits, Stage2
from safehold.guard.session.drivers import drive, run_flow


class Hand:
    """A CPU clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def prompt(clock: Hand, seconds: float, asks: int) -> Generator[Escalation, Any, Allow]:
    """Judge a prompt that costs so much CPU and asks stage 2 so often."""
    for _ in range(asks):
        yield Escalation(prompt="x", reply="")
    clock.now += seconds
    return Allow(score=0.0)


def answer(request: Escalation) -> Scored | Failed:
    """Answer for stage 2."""
    del request
    return Scored(logit=0.0, clause="")


def test_what_is_ahead_is_counted_and_measured() -> None:
    """Nobody waits in an idle worker; with prompts ahead, each counts what prompts cost here."""
    clock = Hand()
    load = Load(stage2=lambda: Ahead(each_s=0.5), cpu=clock)
    assert load.refusal(5.0) is None
    with load.judged(prompt(clock, 2.0, 3)) as flow:
        assert drive(flow, answer) == Allow(score=0.0)
        assert load.wait_s == 0.0  # its cost is not known before it ends
    assert load.wait_s == 0.0
    waiting = [load.judged(prompt(clock, 2.0, 3)) for _ in range(4)]
    flows = [one.__enter__() for one in waiting]
    assert load.wait_s == pytest.approx(4 * (2.0 + 3 * 0.5))
    told = load.refusal(5.0)
    assert told is not None
    assert (told.status, told.retry_after_s) == (503, 9)
    assert load.refusal(14.0) is None
    for flow, one in zip(flows, waiting, strict=True):
        flow.close()
        one.__exit__(None, None, None)
    assert load.judging == 0
    assert load.refusal(5.0) is None


def test_what_a_request_costs_beside_its_verdict_counts() -> None:
    """What the thread did while prompts were judged is shared among all who were under way."""
    clock = Hand()
    load = Load(cpu=clock)
    open_exchanges = [load.exchange() for _ in range(4)]
    for one in open_exchanges:
        one.__enter__()
    with load.judged(prompt(clock, 0.1, 0)) as flow:
        drive(flow, answer)
        clock.now += 1.9  # rows, calls upstream, others' deltas
    with load.judged(prompt(clock, 0.0, 0)):
        assert load.wait_s == pytest.approx(2.0 / 4)
    for one in open_exchanges:
        one.__exit__(None, None, None)
    assert load.open == 0


def test_open_exchanges_leave_less_of_the_time_to_prompts() -> None:
    """What the thread does without any is not theirs; a quarter of the time is always left."""
    clock = Hand()
    load = Load(cpu=clock)
    with load.judged(prompt(clock, 0.5, 0)) as flow:
        drive(flow, answer)
    for _ in range(100):
        load.used(0.01, 0.1)
    opened = [load.exchange() for _ in range(20)]
    for one in opened:
        one.__enter__()
    for _ in range(100):
        load.used(0.05, 0.1)  # a tenth of the time without them, half with twenty
    assert load.left == pytest.approx(0.6, abs=0.01)
    load.judging = 1
    assert load.wait_s == pytest.approx(0.5 / 0.6, rel=0.02)
    load.open = 200
    assert load.left == 0.25
    load.open = 0
    assert load.left == 1.0


def test_replies_that_wait_for_stage_2_are_ahead_too() -> None:
    """What open streams asked counts beside the prompts; a prompt's own question counts once."""
    ahead = Ahead(each_s=0.1, waiting=30)
    load = Load(stage2=lambda: ahead, cpu=Hand())
    assert load.wait_s == pytest.approx(3.0)
    assert load.refusal(2.0) is not None
    assert load.refusal(3.5) is None
    load.judging = 30  # of which each waits there with one text, at no known cost of its own
    assert load.wait_s == 0.0


@pytest.mark.parametrize("ahead", [Ahead(), Ahead(1.0, 9), Ahead(crowded=True)])
def test_stage_2_is_asked_once_for_an_admission(ahead: Ahead) -> None:
    """Taken or turned away, a request is judged by one moment of stage 2."""
    asked: list[Ahead] = []

    def stage2() -> Ahead:
        asked.append(ahead)
        return ahead

    Load(stage2=stage2, cpu=Hand()).refusal(2.0)
    assert asked == [ahead]


def test_prompts_leave_half_of_stage_2s_places_to_replies() -> None:
    """However cheap a text is: a prompt that is taken never fails because the queue is full."""

    class Stuck:
        """Answers nobody."""

        def __init__(self) -> None:
            self.go = threading.Event()

        def score(self, inputs: list[ScoringInput]) -> list[ExchangeScore]:
            self.go.wait(60)
            return [ExchangeScore(logit=0.0, clause="") for _ in inputs]

    async def ask() -> list[int | None]:
        scorer = Stuck()
        stage2 = Stage2(scorer, BatchLimits(batch=1, waiting=8))
        load, told, asked = Load(stage2=lambda: stage2.ahead), [], []
        for number in range(7):
            refused = load.refusal(2.0)
            told.append(None if refused is None else refused.retry_after_s)
            question = stage2(Escalation(prompt=str(number), reply=""))
            asked.append(asyncio.ensure_future(question))
            await asyncio.sleep(0.01)
        scorer.go.set()
        assert all(isinstance(one, Scored) for one in await asyncio.gather(*asked))
        stage2.close()
        return told

    assert asyncio.run(ask()) == [None, None, None, None, None, 1, 1]


def test_a_flow_that_breaks_is_no_longer_ahead() -> None:
    """An error passes through as it is, and leaves nothing behind."""
    load = Load(cpu=Hand())

    def broken() -> Generator[Escalation, Any, Allow]:
        yield Escalation(prompt="x", reply="")
        raise OSError

    with pytest.raises(OSError), load.judged(broken()) as flow:
        drive(flow, answer)
    assert load.judging == 0


def test_one_large_prompt_turns_nobody_away() -> None:
    """It is judged beside the others: it slows them by its share, and is no measure of them."""
    clock = Hand()
    load = Load(cpu=clock)
    with load.judged(prompt(clock, 0.5, 0)) as flow:
        drive(flow, answer)
    with load.judged(prompt(clock, 900.0, 0), large=True) as flow:
        assert load.refusal(5.0) is None
        drive(flow, answer)
        with load.judged(prompt(clock, 0.5, 0)):
            assert load.wait_s == pytest.approx(2 * 0.5)
    assert load.large == 0


def test_a_long_wait_is_told_in_at_most_a_minute() -> None:
    """Being behind counts by how long it lasts; who is told to come again is told within bounds."""
    load = Load(cpu=Hand())
    for _ in range(200):
        load.behind(0.01)  # a turn of the loop is short: a request needs eight
    assert load.refusal(5.0) is None
    load.behind(900.0)
    told = load.refusal(5.0)
    assert told is not None
    assert told.retry_after_s == 60
    for _ in range(200):
        load.behind(0.0)
    assert load.refusal(5.0) is None


def test_a_loop_that_is_free_again_takes_requests_within_two_seconds() -> None:
    """After a crowd whose turns took a second each, twenty beats without one are enough."""
    load = Load(cpu=Hand())
    for _ in range(100):
        load.behind(1.0)
    assert load.refusal(2.0) is not None
    for _ in range(20):
        load.behind(0.0)
    assert load.refusal(0.1) is None


def test_time_that_others_take_turns_nobody_away() -> None:
    """The loop was late by the clock on the wall and did nothing itself: it is not behind."""
    load = Load(cpu=Hand())  # no CPU second passes for this worker

    async def beats() -> None:
        beat = asyncio.ensure_future(load.beat())
        await asyncio.sleep(0.25)
        beat.cancel()

    asyncio.run(beats())
    assert load.wait_s == 0.0


def test_what_a_text_costs_stage_2_is_measured() -> None:
    """The mean is of CPU seconds a text, whatever the size of the batches."""

    class Scorer:
        def score(self, inputs: list[ScoringInput]) -> list[ExchangeScore]:
            sum(range(200_000))
            return [ExchangeScore(logit=0.0, clause="") for _ in inputs]

    async def ask() -> Stage2:
        stage2 = Stage2(Scorer())
        assert stage2.each_s == 0.0
        await asyncio.gather(*(stage2(Escalation(prompt=str(n), reply="")) for n in range(40)))
        stage2.close()
        return stage2

    assert 0.0 < asyncio.run(ask()).each_s < 10.0


def test_a_busy_gateway_refuses_new_requests_at_once(stage: Start) -> None:
    """While it is behind, a request gets 503 and when to come again, and a row; then 200 again."""
    at = stage(limits=msgspec.structs.replace(SMALL, verdict_wait_s=1.0))
    load = at.gateway.gateway.relay.load
    hi = json.dumps(body_for(PATHS[0], "hi", stream=False)).encode()
    assert post(at.gateway.port, PATHS[0], hi)[0] == 200
    load.beat_s = 3600.0  # the next one comes after the test
    load.behind(3000.0)
    for path in PATHS:
        status, headers, _ = post(at.gateway.port, path, json.dumps(body_for(path, "hi")).encode())
        assert status == 503
        assert b"retry-after: " in headers
    assert at.prompts()[-1].action is Action.REFUSE
    for _ in range(400):
        load.behind(0.0)
    assert post(at.gateway.port, PATHS[0], hi)[0] == 200


@pytest.mark.parametrize(("behind_s", "told"), [(3000.0, 503), (0.0, 200)])
def test_a_crowd_that_sends_its_bodies_later_is_a_crowd(
    stage: Start, behind_s: float, told: int
) -> None:
    """Who was let in and holds its body back is weighed again when that comes."""
    at = stage(limits=SMALL)
    load = at.gateway.gateway.relay.load
    load.beat_s = 3600.0  # the next one comes after the test
    time.sleep(0.2)
    hi = json.dumps(body_for(PATHS[0], "hi", stream=False)).encode()
    head = (
        f"POST {PATHS[0]} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(hi)}\r\nconnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", at.gateway.port), timeout=60) as sock:
        sock.sendall(head.encode() + hi[:5])
        time.sleep(0.2)
        load.behind(behind_s)
        sock.sendall(hi[5:])
        got = read(sock)
    assert int(got.split(b" ")[1]) == told
    assert (b"retry-after:" in got.lower()) is (told == 503)


def test_canaries_tell_what_a_prompt_costs(stage: Start) -> None:
    """A gateway that has begun weighs its first client: its canaries took the same way."""
    at = stage()
    load = at.gateway.gateway.relay.load
    asyncio.run_coroutine_threadsafe(at.gateway.gateway.canaries.run_all(), at.gateway.loop).result(
        60
    )
    assert at.prompts() == []
    load.judging = 1
    assert load.wait_s > 0.0


def test_long_prompts_leave_the_stores_threads_alone() -> None:
    """However many long texts are being scored, what needs a thread for a moment has one."""
    go = threading.Event()

    def long() -> Generator[Escalation, Any, Allow]:
        go.wait(60)
        yield Escalation(prompt="x", reply="")
        return Allow(score=0.0)

    async def stage2(request: Escalation) -> Scored | Failed:
        return answer(request)

    async def ask() -> list[Allow]:
        flows = [asyncio.ensure_future(run_flow(long(), stage2, offload=True)) for _ in range(100)]
        await asyncio.sleep(0.05)
        assert await asyncio.wait_for(asyncio.to_thread(sum, (1, 2)), 30) == 3
        go.set()
        return await asyncio.gather(*flows)

    assert asyncio.run(ask()) == [Allow(score=0.0)] * 100


def test_measuring_changes_no_verdict() -> None:
    """A flow answers and ends as it does without anybody who measures."""

    async def served() -> Allow:
        clock = Hand()

        async def stage2(request: Escalation) -> Scored | Failed:
            return answer(request)

        with Load(cpu=clock).judged(prompt(clock, 0.1, 2)) as flow:
            return await run_flow(flow, stage2, offload=True)

    assert asyncio.run(served()) == Allow(score=0.0)
