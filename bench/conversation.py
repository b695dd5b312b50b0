"""A long conversation: every turn judged as it comes, beside its last turn alone.

Run `python -m bench --only conversation`, or `python -m bench.conversation [--turns N]`. The stock
guard judges each request of a chat, with what earlier turns scored remembered, and without. CPU is
the process's; `a first turn` is what a request without any history costs.
"""

import argparse
import time
from collections.abc import Callable

from bench.curve_work import _stock, chat
from bench.tables import Table

from safehold.exchange import Exchange
from safehold.guard.interface import Escalation, SessionPolicy
from safehold.guard.session.drivers import Answer, drive
from safehold.guard.session.remembered import ScoreMemory


def _cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def measured(turns: int, *, without: bool) -> tuple[str, ...]:
    """Return one row; `without` measures the conversation without a memory too (it takes long)."""
    guard, stage2 = _stock()
    whole = chat(turns)

    def judge(end: int, memory: ScoreMemory | None) -> None:
        asked = Exchange(turns=whole.turns[:end])
        session = guard.session(asked, SessionPolicy(), memory=memory, account="t/k")
        drive(session.judge_prompt(), counted)

    def every(memory: ScoreMemory | None) -> None:
        for end in range(1, turns + 1, 2):
            judge(end, memory)

    read = 0

    def counted(request: Escalation) -> Answer:
        nonlocal read
        read += 1
        return stage2(request)

    judge(1, None)
    first = _cpu(lambda: [judge(1, None) for _ in range(5)]) / 5
    alone = _cpu(lambda: judge(turns - 1, None))
    read = 0
    kept = _cpu(lambda: every(ScoreMemory()))
    texts = read
    bare = f"{_cpu(lambda: every(None)):.2f}" if without else "-"
    requests = turns // 2
    return (
        f"{turns}",
        f"{first * 1e3:.1f}",
        f"{alone:.2f}",
        bare,
        f"{kept:.2f}",
        f"{kept / alone:.1f}",
        f"{kept / (requests * first):.1f}",
        f"{texts / requests:.1f}",
    )


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - the runner's interface
    """Measure 600 turns; `quick` takes 60."""
    return [table((20, 60) if quick else (60, 200, 600), without=quick)]


def table(sizes: tuple[int, ...], *, without: bool) -> Table:
    """Measure conversations of some lengths."""
    rows = []
    for turns in sizes:
        rows.append(measured(turns, without=without))
        print(*rows[-1], sep="  ", flush=True)
    return Table(
        title="A conversation, every turn judged",
        columns=(
            "turns",
            "a first turn, CPU ms",
            "last turn alone, CPU s",
            "every turn, no memory, CPU s",
            "every turn, CPU s",
            "x last turn alone",
            "x as many first turns",
            "texts of a request that stage 2 read",
        ),
        rows=tuple(rows),
        note="Turns of 300 characters by user and model, runs without a sentence's end, which are "
        "cut in windows that stage 2 reads too; a request for each of the user's.",
    )


def main() -> None:
    """Measure one length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=600)
    parser.add_argument("--without", action="store_true", help="also without a memory")
    given = parser.parse_args()
    print(table((given.turns,), without=given.without).markdown())


if __name__ == "__main__":
    main()
