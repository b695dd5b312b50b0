"""A run that is spread over workers: the rows of one machine, and no paid call repeated."""

import os
import signal
import threading
from functools import partial
from pathlib import Path

import msgspec
import pytest

from safehold.constitution import Constitution, load
from safehold.detect.runners.interface import RunLimits
from safehold.detect.runners.pool import run_pool
from safehold.errors import UpstreamError
from safehold.improve.synthesis.calls import CallBook, GeneratorAnswer, GeneratorCall
from safehold.improve.synthesis.chat import ChatSettings
from safehold.improve.synthesis.generator import ModelGenerator
from safehold.improve.synthesis.interface import Example
from safehold.improve.synthesis.paid_calls import SharedCalls
from safehold.improve.synthesis.spread import Run, Spread, SpreadPlan
from safehold.testing.generator import GeneratorServer, Habit, generating

_CLASS = Path(__file__).parents[3] / "examples" / "classes" / "bicycle-repair.yaml"


def few() -> Constitution:
    """Return the bicycle class with two stages and its first neighbours."""
    whole = load(_CLASS)
    stages = whole.restricted[0].stages[:2]
    clause = msgspec.structs.replace(whole.restricted[0], stages=stages)
    return msgspec.structs.replace(whole, restricted=(clause,))


def settings(url: str, *, rounds: int = 1, fill: int = 0) -> ChatSettings:
    """Return how the model is asked."""
    return ChatSettings(
        url=url, model="canned", batch=2, rounds=rounds, fill=fill, retries=1, backoff_s=0.0,
        timeout_s=20.0, languages=("en",),
    )  # fmt: skip


def made(
    server: GeneratorServer, folder: Path, run: Run | None, processes: int = 1, **changes: int
) -> tuple[list[Example], list[object]]:
    """Return the rows and the cells of a run, spread where something runs workers."""
    asked = settings(server.url, **changes)
    with CallBook(folder) as book:
        workers = None
        if run is not None:
            plan = SpreadPlan(
                url=str(folder / "spread.db"), run=run, limits=RunLimits(processes=processes)
            )
            workers = Spread(plan, few(), asked, book)
        generator = ModelGenerator("openai", few(), asked, book, workers=workers)
        return list(generator.generate(seed=1)), list(generator.yields)


def test_workers_make_the_rows_of_one_machine(tmp_path: Path) -> None:
    """The same rows, cells and faults for the same seed and answers, thin cells filled too."""

    def habits(said: str) -> Habit:
        return Habit.REFUSES if "weather" in said or "law" in said else Habit.GOOD

    with generating(GeneratorServer(wanted=habits)) as server:
        alone = made(server, tmp_path / "alone", None, fill=1)
        calls = sorted(server.asked)
        server.asked.clear()
        spread = made(server, tmp_path / "spread", run_pool, 2, fill=1)
        assert sorted(server.asked) == calls  # the very calls, each once
        server.asked.clear()
        assert made(server, tmp_path / "spread", run_pool, fill=1) == spread
        assert not server.asked
    assert spread == alone


def killing(job: object, limits: RunLimits, *, kills: list[int], **others: object) -> object:
    """Run a pool, and kill a worker while it works."""
    pids: list[int] = []

    def kill() -> None:
        if pids:
            os.kill(pids[0], signal.SIGKILL)
            kills.append(pids[0])

    timer = threading.Timer(1.5, kill)
    timer.start()
    try:
        return run_pool(job, limits, started=pids.append, **others)  # type: ignore[arg-type]
    finally:
        timer.cancel()


def test_a_killed_worker_and_a_killed_leader_repeat_no_paid_call(tmp_path: Path) -> None:
    """Whatever died, a call that was answered is never asked again, and the rows are the same."""
    with generating(GeneratorServer()) as server:
        alone = made(server, tmp_path / "alone", None)
        calls = len(server.asked)
        server.asked.clear()
        kills: list[int] = []
        assert made(server, tmp_path / "killed", partial(killing, kills=kills)) == alone
        # A call in flight when its worker died was never answered: at most one for each lane.
        assert calls <= len(server.asked) <= calls + 4 * len(kills)
        # The leader dies after its workers paid, before its own book knew.
        (tmp_path / "led").mkdir()
        (tmp_path / "killed" / "spread.db").rename(tmp_path / "led" / "spread.db")
        server.asked.clear()
        assert made(server, tmp_path / "led", run_pool) == alone
        assert not server.asked


def test_what_a_book_holds_is_not_asked_for_by_workers(tmp_path: Path) -> None:
    """A run that one machine began goes on spread, from where it was."""
    with generating(GeneratorServer()) as server:
        alone = made(server, tmp_path, None)
        lines = (tmp_path / "calls.jsonl").read_bytes().splitlines(keepends=True)
        half = len(lines) // 2
        (tmp_path / "calls.jsonl").write_bytes(b"".join(lines[:half]))
        server.asked.clear()
        assert made(server, tmp_path, run_pool) == alone
        assert len(server.asked) == len(lines) - half


@pytest.mark.parametrize(
    ("habit", "said"), [(Habit.NO_RIGHTS, "no right"), (Habit.REFUSES, "refused")]
)
def test_a_bad_generator_ends_a_spread_run_soon(tmp_path: Path, habit: Habit, said: str) -> None:
    """One line, as alone, before more than the first cells were asked for."""
    with generating(GeneratorServer(habit)) as server:
        with pytest.raises(UpstreamError, match=said):
            made(server, tmp_path, run_pool, rounds=8)
        assert len(server.asked) < 200


def test_the_first_answer_of_a_call_stays(tmp_path: Path) -> None:
    """Two workers that were given one cell, one late, leave one answer."""
    shared = SharedCalls(str(tmp_path / "spread.db"))
    call = GeneratorCall(
        cell="c", kind="answer", model="m", messages=({"role": "user", "content": "hi"},),
        temperature=1.0, max_tokens=16, seed=1,
    )  # fmt: skip
    first = GeneratorAnswer(text="one", prompt_tokens=3)
    shared.keep(call, first)
    shared.keep(call, msgspec.structs.replace(first, text="another"))
    assert shared.find(call) == first
    with CallBook(tmp_path) as book:
        assert shared.give(book) == 1
        assert shared.give(book) == 0
        assert book.find(call) == first
