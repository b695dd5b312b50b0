"""Long prompts, of an old revision and of this one in one run: a prompt, a tool's result, a wait.

    python -m bench.long_prompts --against REV [--pairs N] [--result-chars N]

A prompt of 200,000 characters, a tool's result of 2 MB, and a small request that comes while the
result is scored in a thread, as the gateway does it. Each revision is a worktree and a process of
its own, with its own stock bundle (no rules, so stage 1 reads all of it); who goes first takes
turns. CPU is the process's.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from bench.against import environment, row, tree
from bench.guard import prose

PROMPT_CHARS = 200_000
RESULT_CHARS = 2_000_000

_WORK = """
import asyncio, json, sys, time
from pathlib import Path
from bench import guard as b
from safehold.exchange import Channel, Exchange, Role, TextPart, Turn
text = Path(sys.argv[1]).read_text("utf-8")
bundle = b.opened()
guard, ask = b.Guard(bundle.cascade, b.ViewDecoder()), b.Watched(bundle)

def session(chars, role, channel):
    said = (text * (chars // len(text) + 1))[:chars] or "-"
    turns = (Turn(role=Role.USER, parts=(TextPart(text="Please go on."),)),)
    turns += (Turn(role=role, parts=(TextPart(text=said, channel=channel),)),)
    return guard.session(Exchange(turns=turns), b.SessionPolicy())

def judged(chars, role, channel):
    one, ask.seconds, ask.calls = session(chars, role, channel), 0.0, 0
    began = time.process_time()
    b.drive(one.judge_prompt(), ask)  # stage 1 reads all of it before anything is decided
    cpu = time.process_time() - began
    return {"cpu": cpu, "own": cpu - ask.seconds}

async def beside(chars):
    async def stage2(request):
        return await asyncio.to_thread(ask, request)
    long = session(chars, Role.TOOL, Channel.TOOL_RESULT)
    # No long one: a second of small requests alone, which says what they cost themselves.
    judged = b.run_flow(long.judge_prompt(), stage2, offload=True) if chars else asyncio.sleep(1)
    task = asyncio.ensure_future(judged)
    await asyncio.sleep(0.05)
    waits = []
    while not task.done():
        small = guard.session(b.user_says("How long does bread rise?"), b.SessionPolicy())
        began = time.perf_counter()
        await b.run_flow(small.judge_prompt(), stage2)
        waits.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)
    await task
    return {"waits": waits}

for line in sys.stdin:
    kind, chars = line.split()
    if kind == "prompt":
        found = judged(int(chars), Role.USER, Channel.TEXT)
    elif kind == "result":
        found = judged(int(chars), Role.TOOL, Channel.TOOL_RESULT)
    else:
        found = asyncio.run(beside(int(chars)))
    print(json.dumps(found), flush=True)
"""


@contextlib.contextmanager
def working(place: Path, text: Path) -> Iterator[Callable[[str, int], bytes]]:
    """Give a call that has one piece of work done in a process of that tree."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WORK, str(text)],
        cwd=place, env=environment(place), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("no pipes")
    asks, answers = process.stdin, process.stdout

    def once(kind: str, chars: int) -> bytes:
        asks.write(f"{kind} {chars}\n")
        asks.flush()
        return answers.readline().encode()

    try:
        yield once
    finally:
        asks.close()
        process.wait(60)


def cpu(answer: bytes) -> dict[str, float]:
    """Return the CPU seconds of a piece of work: of all of it, and without stage 2."""
    return msgspec.json.decode(answer, type=dict[str, float])


def waited(where: str, both: Sequence[list[float]]) -> Iterator[str]:
    """Yield a line on how long small requests took, old and new."""
    for name, seconds in zip(("old", "new"), both, strict=True):
        if not seconds:
            continue
        ordered = sorted(seconds)
        p95 = ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)]
        yield (
            f"small request {where}, {name}: n={len(ordered)}, "
            f"median {statistics.median(ordered) * 1000:.1f} ms, 95 % within {p95 * 1000:.1f} ms"
        )


def small(one: Callable[[str, int], bytes], beside: int) -> list[float]:
    """Return how long small requests took beside a result of so many characters, or alone."""
    return msgspec.json.decode(one("beside", beside), type=dict[str, list[float]])["waits"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", required=True, help="the old revision")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--result-chars", type=int, default=RESULT_CHARS, help="0: leave it out")
    given = parser.parse_args()
    size = given.result_chars
    ratios: dict[str, list[float]] = {"cpu": [], "own": []}
    chars: list[float] = []
    waits: tuple[list[float], list[float]] = ([], [])
    alone: tuple[list[float], list[float]] = ([], [])
    with tree(given.against) as before, tree(None) as after, tempfile.TemporaryDirectory() as at:
        text = Path(at) / "text"
        text.write_text("\n\n".join(prose(24)), encoding="utf-8")
        with working(before, text) as old, working(after, text) as new:
            for one in (old, new):
                one("prompt", 20_000)  # what is loaded lazily is loaded
            for number in range(given.pairs):
                turns = (old, new) if number % 2 == 0 else (new, old)
                found = {one: cpu(one("prompt", PROMPT_CHARS)) for one in turns}
                for name, listed in ratios.items():
                    listed.append(found[new][name] / found[old][name])
                if not size:
                    continue
                result = cpu(new("result", size))
                chars.append((result["own"] / size) / (found[new]["own"] / PROMPT_CHARS))
                for listed, beside in ((alone, 0), (waits, size)):
                    for one, kept in zip((old, new), listed, strict=True):
                        kept.extend(small(one, beside))
    print("| work | pairs | median ratio | range | 95 % upper bound | verdict |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, listed in (
        (f"prompt of {PROMPT_CHARS:,} characters, without stage 2", ratios["own"]),
        (f"prompt of {PROMPT_CHARS:,} characters, all of it", ratios["cpu"]),
        (f"a character of a result of {size:,}, over one of the prompt", chars),
    ):
        if not listed:
            continue
        print("| " + " | ".join(row(name, listed)) + " |")
    print(*waited("alone", alone), *waited("beside it", waits), sep="\n")


if __name__ == "__main__":
    main()
