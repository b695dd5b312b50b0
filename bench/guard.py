"""What the guard costs, stage by stage, beside what the embedded model itself costs per character.

CPU time throughout, so that a busy machine disturbs it little. The text is benign prose of the
project's own seed books; `SAFEHOLD_BENCH_BUNDLE` names another bundle than the stock one.
"""

import asyncio
import json
import os
import statistics
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml
from bench.tables import Table

from safehold.exchange import Exchange, Lane, Role, TextPart, Turn, user_says
from safehold.guard.bundle.load import Bundle, UnsafeUnsigned, load_bundle
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.gateway.upstreams.embedded import MODEL, LocalServer
from safehold.guard.interface import Block, Escalation
from safehold.guard.scorers.tokens import tokens
from safehold.guard.session.batching import InlineStage2, Stage2
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import Answer, drive, run_flow
from safehold.guard.session.session import Guard, SessionPolicy

SEEDS = Path(__file__).parents[1] / "src/safehold/improve/synthesis/seeds/homebrewing"
BOOKS = "permitted-general-*.yaml"
DELTA_CHARS = 5
STREAMS = (1, 8, 64)
_TOKENS = 200


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str) and len(value) > 200:
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)


def prose(count: int) -> list[str]:
    """Return benign texts, evenly taken from the seed books."""
    found = [
        text
        for path in sorted(SEEDS.glob(BOOKS))
        for text in _texts(yaml.safe_load(path.read_text(encoding="utf-8")))
    ]
    return [found[index * len(found) // count] for index in range(count)]


def opened() -> Bundle:
    """Return the bundle to measure."""
    named = os.environ.get("SAFEHOLD_BENCH_BUNDLE")
    return load_bundle(Path(named), UnsafeUnsigned()) if named else load_bundle(*stock_bundle())


def deltas(text: str) -> list[str]:
    """Cut a text as a model would send it."""
    return [text[at : at + DELTA_CHARS] for at in range(0, len(text), DELTA_CHARS)]


class Watched:
    """A stage 2 that counts its calls and their CPU time."""

    def __init__(self, bundle: Bundle) -> None:
        if bundle.stage2 is None:
            raise SystemExit("this benchmark needs a bundle with a stage 2")
        self._ask = InlineStage2(bundle.stage2)
        self.calls = 0
        self.seconds = 0.0

    def __call__(self, request: Escalation) -> Answer:
        """Answer, and note what it took."""
        began = time.process_time()
        answer = self._ask(request)
        self.seconds += time.process_time() - began
        self.calls += 1
        return answer


class ModelCost(NamedTuple):
    """The embedded model's CPU microseconds for a generated character, and for a token."""

    char: float
    token: float


def model_cost(size: int) -> ModelCost:
    """Return what the embedded model costs, over three stories of `size` tokens."""
    with LocalServer(threads=1, slots=1) as local:
        before, written, made = _children_cpu(), 0, 0
        for topic in ("a lighthouse", "a railway station", "an old library"):
            body = {
                "model": MODEL, "max_tokens": size, "temperature": 0,
                "messages": [{"role": "user", "content": f"Write a long story about {topic}."}],
            }  # fmt: skip
            request = urllib.request.Request(  # noqa: S310 - http, our own child
                f"{local.url}/chat/completions",
                json.dumps(body).encode(),
                {"content-type": "application/json", "authorization": f"Bearer {local.key}"},
            )
            with urllib.request.urlopen(request, timeout=600) as response:  # noqa: S310 - same
                answer = json.load(response)
            written += len(answer["choices"][0]["message"]["content"])
            made += answer["usage"]["completion_tokens"]
        spent = (_children_cpu() - before) * 1e6
        return ModelCost(spent / written, spent / made)


def budgets(bundle: Bundle, texts: list[str], model: ModelCost) -> Table:
    """Return what the guard may cost beside the embedded model, and what it costs.

    Replies of about 200 of the model's tokens; a token is as long as the model's own are.
    """
    guard = Guard(bundle.cascade, ViewDecoder())
    if bundle.cascade.stage1 is None:
        raise SystemExit("this benchmark needs a bundle with a stage 1")
    chars = round(_TOKENS * model.token / model.char)
    replies = [" ".join(texts[at : at + 8])[:chars] for at in range(len(texts) - 8)]
    ask = Watched(bundle)
    began = time.process_time()
    for text in replies:
        session = guard.session(user_says("Please go on."), SessionPolicy())
        for delta in deltas(text):
            if isinstance(drive(session.feed(Lane(), delta), ask), Block):
                break
        else:
            drive(session.finish(), ask)
    whole = (time.process_time() - began) * 1e6 / len(replies)
    cost, runs = [], [tokens(text) for text in replies]
    for stream in (True, False):
        began = time.process_time()
        for run in runs:
            if stream:
                lane = bundle.cascade.stage1.open_reply()
                for word in run:
                    lane.feed([word])
            else:
                bundle.cascade.stage1.open_prompt().feed(run)
        cost.append((time.process_time() - began) * 1e6 / sum(map(len, replies)))
    spent = []
    for text in texts:
        session, before = (
            guard.session(user_says(text.split(". ")[0]), SessionPolicy()),
            ask.seconds,
        )
        drive(session.judge_prompt(), ask)
        spent.append((ask.seconds - before) * 1e6)
    share = [f"{part / model.char * 100:.2f} %" for part in cost]
    return Table(
        title="What the guard may cost",
        columns=("what", "at most", "measured"),
        rows=(
            (
                f"guard's CPU over the embedded model's, a reply of {_TOKENS} tokens",
                "1.5 %",
                f"{whole / (_TOKENS * model.token) * 100:.2f} %",
            ),
            ("stage 1's CPU over the model's own, streamed", "1 %", share[0]),
            ("stage 1's CPU over the model's own, a whole prompt at once", "0.1 %", share[1]),
            (
                "stage 2 on a prompt at the median, in the model's CPU for one token",
                "2",
                f"{statistics.median(spent) / model.token:.2f}",
            ),
        ),
        note=f"The model: {model.token:.0f} CPU µs a token; {len(replies)} replies, "
        f"{len(texts)} prompts of a sentence, all benign. CPU time on whatever else runs here.",
    )


def long_requests(bundle: Bundle, texts: list[str], model: ModelCost) -> Table:
    """Return what stage 2 costs on requests that it reads more than once."""
    guard, ask, rows = Guard(bundle.cascade, ViewDecoder()), Watched(bundle), []
    asks = [text.split(". ")[0][:180] for text in texts]
    for name, given in (
        ("a sentence", [user_says(one) for one in asks]),
        ("marks around each word", [user_says(_marked(one)) for one in asks]),
        ("a record for each word", [user_says(_records(one)) for one in asks]),
        ("behind a system's message", [_behind_system(one) for one in asks]),
        *(
            (f"padded to {size:,} characters", [user_says(one) for one in _padded(texts, size)])
            for size in (300, 800, 3_000, 30_000)
        ),
    ):
        few = given[:: 4 if name.endswith("30,000 characters") else 1]
        spent, calls = [], ask.calls
        for exchange in few:
            before = ask.seconds
            drive(guard.session(exchange, SessionPolicy()).judge_prompt(), ask)
            spent.append((ask.seconds - before) * 1e6 / model.token)
        spent.sort()
        rows.append(
            (
                name,
                str(len(spent)),
                f"{statistics.median(spent):.2f}",
                f"{spent[len(spent) * 9 // 10]:.2f}",
                f"{(ask.calls - calls) / len(spent):.1f}",
            )
        )
    return Table(
        title="Stage 2 on requests that are read more than once",
        columns=("the last request", "n", "median", "90 % quantile", "texts read each"),
        rows=tuple(rows),
        note=f"CPU of stage 2 in the embedded model's for one token ({model.token:.0f} µs); "
        "all requests are benign.",
    )


def _marked(text: str) -> str:
    return " ".join(f"`{word}`" for word in text.split())


def _records(text: str) -> str:
    return "\n".join(json.dumps({"t": word}) for word in text.split())


def _behind_system(text: str) -> Exchange:
    said = (Role.SYSTEM, "You are a friendly helper. Be brief."), (Role.USER, text)
    return Exchange(
        turns=tuple(Turn(role=role, parts=(TextPart(text=words),)) for role, words in said)
    )


def _padded(texts: list[str], size: int) -> list[str]:
    """Return requests in the middle of harmless prose, of so many characters in all."""
    prose = " ".join(texts)
    room = max(1, len(prose) - size)
    found = []
    for number, text in enumerate(texts):
        own = text.split(". ")[0][:180]
        start = number * 997 % room
        padding = prose[start : start + size - len(own)]
        found.append(f"{padding[: len(padding) // 2]}\n{own}\n{padding[len(padding) // 2 :]}")
    return found


def _children_cpu() -> float:
    found = 0
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rsplit(") ", 1)[1].split()
            found += int(fields[11]) + int(fields[12])
    return found / os.sysconf("SC_CLK_TCK")


def costs(bundle: Bundle, texts: list[str], model: float) -> Table:
    """Return what each part costs per character of reply, and as a share of the model's cost."""
    guard = Guard(bundle.cascade, ViewDecoder())
    if bundle.cascade.stage1 is None:
        raise SystemExit("this benchmark needs a bundle with a stage 1")
    chars = sum(len(text) for text in texts)
    words = [tokens(text) for text in texts]
    began = time.process_time()
    for run in words:
        bundle.cascade.stage1.open_reply().feed(run)
    stage1 = time.process_time() - began
    ask, escalated = Watched(bundle), 0
    began = time.process_time()
    for text in texts:
        session, calls = guard.session(user_says("Please go on."), SessionPolicy()), ask.calls
        for delta in deltas(text):
            if isinstance(drive(session.feed(Lane(), delta), ask), Block):
                break
        else:
            drive(session.finish(), ask)
        escalated += ask.calls > calls
    whole = time.process_time() - began

    def row(name: str, seconds: float) -> tuple[str, ...]:
        micro = seconds / chars * 1e6
        per_token = seconds / sum(len(run) for run in words) * 1e6
        return name, f"{micro:.2f}", f"{per_token:.1f}", f"{micro / model * 100:.2f} %"

    return Table(
        title="Guard beside the embedded model",
        columns=("part", "CPU µs per character", "CPU µs per guard token", "share of the model"),
        rows=(
            row("stage 1 alone", stage1),
            row("session without stage 2 (decoded views, cutting)", whole - ask.seconds),
            row("stage 2", ask.seconds),
            row("whole guard", whole),
        ),
        note=(
            f"SmolLM2-135M itself: {model:.0f} CPU µs per character. {len(texts)} benign replies "
            f"of {chars:,} characters; {escalated} of them reached stage 2, {ask.calls} calls."
        ),
        bars="share of the model",
    )


def prompts(bundle: Bundle, texts: list[str]) -> Table:
    """Return how long judging a prompt takes."""
    guard, rows = Guard(bundle.cascade, ViewDecoder()), []
    long = [" ".join(texts[at : at + 4])[:1000] for at in range(len(texts) - 4)]
    for name, asked in (
        ("first sentence", [text.split(". ")[0] for text in texts]),
        ("long", long),
    ):
        times, ask = [], Watched(bundle)
        for text in asked:
            session = guard.session(user_says(text), SessionPolicy())
            began = time.process_time()
            drive(session.judge_prompt(), ask)
            times.append((time.process_time() - began) * 1000)
        times.sort()
        rows.append(
            (
                f"{name} (about {sum(map(len, asked)) // len(asked)} characters)",
                f"{statistics.median(times):.2f}",
                f"{times[len(times) * 99 // 100]:.2f}",
                f"{ask.calls / len(asked):.3f}",
            )
        )
    head = ("prompt", "CPU ms, p50", "CPU ms, p99", "stage-2 calls per prompt")
    return Table(title="Judging a prompt", columns=head, rows=tuple(rows))


def crowds(bundle: Bundle, texts: list[str]) -> Table:
    """Return what many streams at once get, as fast as they come, with a shared stage 2."""
    guard = Guard(bundle.cascade, ViewDecoder())

    async def stream(text: str, stage2: Stage2, waits: list[float]) -> None:
        session = guard.session(user_says("Please go on."), SessionPolicy())
        for delta in deltas(text):
            began = time.perf_counter()
            step = await run_flow(session.feed(Lane(), delta), stage2)
            waits.append((time.perf_counter() - began) * 1000)
            if isinstance(step, Block):
                return
            await asyncio.sleep(0)
        await run_flow(session.finish(), stage2)

    async def crowd(count: int) -> tuple[float, list[float], Stage2]:
        if bundle.stage2 is None:
            raise SystemExit("this benchmark needs a bundle with a stage 2")
        stage2, waits = Stage2(bundle.stage2), list[float]()
        began = time.perf_counter()
        chosen = [texts[number % len(texts)] for number in range(count)]
        await asyncio.gather(*(stream(text, stage2, waits) for text in chosen))
        stage2.close()
        return len(waits) / (time.perf_counter() - began), sorted(waits), stage2

    rows = []
    for count in STREAMS:
        rate, waits, stage2 = asyncio.run(crowd(count))
        rows.append(
            (
                f"{count} at once",
                f"{rate:,.0f}",
                f"{statistics.median(waits):.3f}",
                f"{waits[len(waits) * 99 // 100]:.2f}",
                f"{stage2.scored / max(1, stage2.batches):.1f}",
            )
        )
    head = ("streams", "deltas per second", "wait ms, p50", "wait ms, p99", "stage-2 batch")
    return Table(
        title="Streams at once", columns=head, rows=tuple(rows), bars="deltas per second",
        note="One process; a wait is what one delta of five characters spends in the guard.",
    )  # fmt: skip


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - the runner's interface
    """Measure everything."""
    bundle, texts = opened(), prose(24 if quick else 160)
    model = model_cost(48 if quick else 160)
    tables = [costs(bundle, texts, model.char), budgets(bundle, texts, model)]
    tables.append(long_requests(bundle, texts, model))
    return [*tables, prompts(bundle, texts), crowds(bundle, texts)]
