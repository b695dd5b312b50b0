"""The generator that asks a model, against a real HTTP server that answers well, badly, never."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from safehold.constitution import Constitution, load
from safehold.errors import BusyError, DataError, DiskError, UpstreamError
from safehold.improve.synthesis.calls import CallBook, GeneratorAnswer, GeneratorCall
from safehold.improve.synthesis.cells import cells_of
from safehold.improve.synthesis.chat import Chat, ChatSettings
from safehold.improve.synthesis.costs import Price, call_plan
from safehold.improve.synthesis.coverage import coverage_of, distinct
from safehold.improve.synthesis.generator import ModelGenerator, thin_groups
from safehold.improve.synthesis.interface import Example, Side
from safehold.improve.synthesis.pace import Pace
from safehold.testing.generator import GeneratorServer, Habit, generating

_TRIES = web.AppKey("tries", list[bool])
_CLASS = Path(__file__).parents[3] / "examples" / "classes" / "bicycle-repair.yaml"


def _bikes() -> Constitution:
    return load(_CLASS)


def _settings(url: str, *, batch: int = 2, rounds: int = 1, fill: int = 0) -> ChatSettings:
    return ChatSettings(
        url=url, model="canned", batch=batch, rounds=rounds, fill=fill, retries=1, backoff_s=0.0,
        timeout_s=20.0, languages=("en",),
    )  # fmt: skip


def _run(
    generator: GeneratorServer, book: CallBook, **changes: int
) -> tuple[ModelGenerator, list[Example]]:
    made = ModelGenerator("openai", _bikes(), _settings(generator.url, **changes), book)
    return made, list(made.generate(seed=1))


def test_every_cell_gives_labelled_exchanges(tmp_path: Path) -> None:
    """Both sides come with clause, stage and id of their own, and twins share a family."""
    with generating(GeneratorServer()) as server, CallBook(tmp_path) as book:
        generator = ModelGenerator("openai", _bikes(), _settings(server.url), book)
        found = list(generator.generate(seed=1))
    assert len({one.id for one in found}) == len(found)
    stages = {one.stage for one in found if one.side is Side.RESTRICTED}
    assert stages == set(_bikes().restricted[0].stages)
    restricted = {one.family for one in found if one.side is Side.RESTRICTED}
    twins = [one for one in found if one.clause == "traffic-and-law"]
    assert twins
    assert {one.family for one in twins} <= restricted
    assert not thin_groups(generator.yields)


def test_a_killed_run_repeats_no_paid_call(tmp_path: Path) -> None:
    """Cut after any call, the next run asks only for what is missing and makes the same rows."""
    with generating(GeneratorServer()) as server:
        with CallBook(tmp_path / "whole") as book:
            _, whole = _run(server, book)
        calls = len(server.asked)
        lines = (tmp_path / "whole" / "calls.jsonl").read_bytes().splitlines(keepends=True)
        assert len(lines) == calls
        for cut in (0, 1, calls // 2, calls - 1):
            folder = tmp_path / f"cut-{cut}"
            folder.mkdir()
            (folder / "calls.jsonl").write_bytes(b"".join(lines[:cut]) + lines[-1][:20])
            server.asked.clear()
            with CallBook(folder) as book:
                _, again = _run(server, book)
            assert len(server.asked) == calls - cut
            assert again == whole


def test_two_runs_never_write_one_folder(tmp_path: Path) -> None:
    """A second run in the same folder is refused while the first one works."""
    with CallBook(tmp_path), pytest.raises(BusyError, match="another process"):
        CallBook(tmp_path).__enter__()


def test_a_changed_answer_is_noticed(tmp_path: Path) -> None:
    """An answer that was edited after it was paid for differs from its digest."""
    with generating(GeneratorServer()) as server, CallBook(tmp_path) as book:
        _run(server, book)
    path = tmp_path / "calls.jsonl"
    path.write_bytes(path.read_bytes().replace(b"Here is the list", b"Here was the list", 1))
    with pytest.raises(DataError, match="line 1: the answer differs"):
        CallBook(tmp_path).__enter__()


@pytest.mark.parametrize(
    ("habit", "why"),
    [
        (Habit.REFUSES, "refused"),
        (Habit.MARKUP, "markup"),
        (Habit.NONSENSE, "short|off subject|no list|repeats"),
        (Habit.NO_RIGHTS, "no right"),
        (Habit.BREAKS, "HTTP 500"),
        (Habit.NOT_JSON, "got HTML"),
        (Habit.ERROR, "got an error: the model 'canned' is being loaded"),
        (Habit.MOVED, "a redirect to elsewhere.example"),
    ],
)
def test_a_bad_generator_is_one_line_and_soon(tmp_path: Path, habit: Habit, why: str) -> None:
    """A model that gives nothing usable ends the run before all its calls are paid."""
    with generating(GeneratorServer(habit)) as server, CallBook(tmp_path) as book:
        with pytest.raises(UpstreamError, match=why) as caught:
            _run(server, book, rounds=4)
        assert "\n" not in str(caught.value)
        cells = len(cells_of(_bikes(), languages=("en",), rounds=4))
        assert len(server.asked) <= 8 * 2 * 3 < cells * 3


def test_a_server_that_repeats_the_key_is_told_without_it(tmp_path: Path) -> None:
    """What a server says of its error stands in the line, and the key does not."""
    key = "sk-canned-1"
    with generating(GeneratorServer(Habit.ERROR)) as server, CallBook(tmp_path) as book:
        settings = msgspec.structs.replace(_settings(server.url), key=key)
        generator = ModelGenerator("openai", _bikes(), settings, book)
        with pytest.raises(UpstreamError, match=r"your key was \*\*\*") as caught:
            list(generator.generate(seed=1))
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b'{"error": null}', b'{"error": 5}', b'{"error": {}}',
        b"\xff\xfe", b'{"choices": []}', b'{"choices": null, "error": "' + b"x" * 5000 + b'"}',
        b"[" * 100_000, b'{"choices": [{"message": null}]}',
    ],
)  # fmt: skip
def test_whatever_a_server_answers_is_one_short_line(tmp_path: Path, body: bytes) -> None:
    """An answer that is no completion never ends in a traceback or a long line."""

    class Strange(GeneratorServer):
        def reply(self, body_asked: dict[str, Any]) -> tuple[int, bytes]:
            super().reply(body_asked)
            return 200, body

    with (
        generating(Strange()) as server,
        CallBook(tmp_path) as book,
        pytest.raises(UpstreamError, match="expected a chat completion, got") as caught,
    ):
        _run(server, book)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_generator_that_hangs_is_given_up(tmp_path: Path) -> None:
    """No answer within the time is an error that names the time."""
    with generating(GeneratorServer(Habit.HANGS)) as server, CallBook(tmp_path) as book:
        settings = ChatSettings(
            url=server.url, model="canned", retries=0, timeout_s=0.2, languages=("en",)
        )
        generator = ModelGenerator("openai", _bikes(), settings, book)
        with pytest.raises(UpstreamError, match=r"no answer within 0\.4.* s.*--timeout"):
            list(generator.generate(seed=1))


def test_a_generator_that_refuses_one_stage_is_noticed_there(tmp_path: Path) -> None:
    """Only the stage it refuses is thin, the table says why, and a fill asks for it alone."""
    with generating(_ShyOfBrakes()) as server, CallBook(tmp_path) as book:
        generator, _ = _run(server, book, batch=3)
        table = coverage_of("canned", generator.yields, calls=1, tokens=(1, 1))
    (row,) = [row for row in table.thin if row.side == "restricted"]
    assert row.group == "bicycle-mending/brakes"
    assert "refused" in row.note


def test_a_fill_asks_for_thin_groups_only(tmp_path: Path) -> None:
    """What was full is not asked for again; what was thin gets more rounds."""
    with generating(_ShyOfBrakes()) as server, CallBook(tmp_path) as book:
        first, _ = _run(server, book)
        assert thin_groups(first.yields) == {"bicycle-mending/brakes"}
        server.asked.clear()
        # It is a good day now: the rounds of the fill are answered.
        server.shy = False
        filled, _ = _run(server, book, fill=1)
        assert not thin_groups(filled.yields)
        assert len(server.asked) <= 2 * (1 + 2 * 2)


class _ShyOfBrakes(GeneratorServer):
    """Writes messages about brakes, and refuses to answer them while it is shy."""

    shy = True

    def reply(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """Return a list of messages that are known again, a refusal of one, or a good answer."""
        said = body["messages"][-1]["content"]
        status, answer = super().reply(body)
        if "Pads, cables" in said:
            answer = answer.replace(b"Tell me", b"Brakes: tell me").replace(b"How", b"Brakes: how")
        if said.startswith("Brakes:") and self.shy:
            answer = msgspec.json.encode({"choices": [{"message": {"content": "Sorry, no."}}]})
        return status, answer


def test_a_generator_that_repeats_itself_is_counted_once(tmp_path: Path) -> None:
    """The same answer in many cells is one answer; the rest counts as said before."""
    with generating(GeneratorServer()) as server, CallBook(tmp_path) as book:
        real = server.reply

        def same(body: dict[str, object]) -> tuple[int, bytes]:
            fixed = {**body, "seed": 1}
            messages = body["messages"]
            assert isinstance(messages, list)
            if "numbered list" not in messages[-1]["content"]:
                fixed["messages"] = [
                    {"content": "complete practical help"},
                    {"content": "How does one mend the bicycle wheel with the chain?"},
                ]
            return real(fixed)

        server.reply = same  # type: ignore[method-assign]
        generator, _ = _run(server, book)
    faults = Counter[str]()
    for one in generator.yields:
        faults.update(one.faults)
    assert faults["said before"] > 10
    assert len(thin_groups(generator.yields)) > 8


def test_the_plan_counts_what_will_be_asked(tmp_path: Path) -> None:
    """A well-behaved run makes exactly the calls that the plan tells, and a second one none."""
    with generating(GeneratorServer()) as server, CallBook(tmp_path) as book:
        settings = _settings(server.url)
        generator = ModelGenerator("openai", _bikes(), settings, book)
        plan = call_plan(generator, settings, book, Price(1.0, 2.0), seed=1)
        list(generator.generate(seed=1))
        assert len(server.asked) == plan.total.calls
        assert plan.paid == 0
        assert plan.total.cost > 0
        parts = (*plan.clauses.values(), *plan.neighbours.values())
        assert sum(part.calls for part in parts) == plan.total.calls


def test_rounds_cover_forms_and_difficulties() -> None:
    """Eight rounds meet each form and difficulty in every restricted stage."""
    cells = cells_of(_bikes(), languages=("en", "de"), rounds=8)
    for stage in _bikes().restricted[0].stages:
        own = [cell for cell in cells if cell.stage == stage]
        assert len({cell.form for cell in own}) == 8
        assert len({cell.difficulty for cell in own}) == 3
        assert {cell.language for cell in own} == {"en", "de"}
    assert len({cell.name for cell in cells}) == len(cells)


def test_distinct_tells_a_parrot_from_a_writer() -> None:
    """The same sentence many times has few different triples, and different ones have many."""
    parrot = distinct(["tighten the bolt by hand and then check it"] * 20)
    writer = distinct([f"in case {n} the part number {n} is item {n + 1}" for n in range(20)])
    assert parrot < 0.1
    assert writer > 0.6


def test_a_busy_server_is_given_the_time_it_asks_for(tmp_path: Path) -> None:
    """HTTP 429 with Retry-After waits that long before the next try, however short the back-off."""
    waits: list[float] = []

    async def serve(request: web.Request) -> web.Response:
        busy = request.app[_TRIES].pop() if request.app[_TRIES] else False
        if busy:
            return web.Response(status=429, headers={"Retry-After": "7"})
        return web.json_response({"choices": [{"message": {"content": "well"}}]})

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    async def ask() -> str:
        app = web.Application()
        app[_TRIES] = [True, True]
        app.router.add_post("/v1/chat/completions", serve)
        async with TestServer(app) as server, aiohttp.ClientSession() as session:
            settings = ChatSettings(url=str(server.make_url("/v1")), model="m", backoff_s=0.5)
            with CallBook(tmp_path) as book:
                call = GeneratorCall(
                    cell="c", kind="asks", model="m", messages=({"role": "user", "content": "x"},),
                    temperature=1.0, max_tokens=9, seed=1,
                )  # fmt: skip
                answer = await Chat(session, settings, book, pause).ask(call)
                assert isinstance(answer, GeneratorAnswer)
                return answer.text

    assert asyncio.run(ask()) == "well"
    assert waits == [7.0, 7.0]


class _Strict(GeneratorServer):
    """Does not accept the requests that `odd` picks, by number and whether they are lists."""

    def __init__(self, odd: Callable[[int, bool], tuple[int, str] | None]) -> None:
        super().__init__()
        self.odd = odd
        self.accepted = 0

    def reply(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """Return the status and message that were picked, or a good answer."""
        good = super().reply(body)
        picked = self.odd(len(self.asked), "numbered list" in body["messages"][-1]["content"])
        if picked is None:
            self.accepted += 1
            return good
        return picked[0], json.dumps({"error": {"message": picked[1]}}).encode()


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_no_server_accepts_is_not_kept(tmp_path: Path, status: int) -> None:
    """The server's own message ends the run at once; set right, it is asked again."""
    server = _Strict(lambda _number, _listed: (status, "max_tokens is not supported"))
    with generating(server), CallBook(tmp_path) as book:
        with pytest.raises(UpstreamError, match="max_tokens is not supported") as caught:
            _run(server, book, rounds=2)
        assert "\n" not in str(caught.value)
        assert "nothing was answered" in str(caught.value)
        assert len(server.asked) <= 4
        assert len(book) == 0
        server.odd = lambda _number, _listed: None
        _, found = _run(server, book)
    assert found


def test_replies_that_are_not_accepted_end_a_run_too(tmp_path: Path) -> None:
    """Where lists are accepted and no reply is, the first cells end the run."""
    server = _Strict(lambda _number, listed: None if listed else (400, "600 tokens are too many"))
    with generating(server), CallBook(tmp_path) as book:
        with pytest.raises(UpstreamError, match="600 tokens are too many"):
            _run(server, book, rounds=4)
        assert len(server.asked) <= 12
        assert len(book) == server.accepted


def test_one_request_that_is_not_accepted_costs_its_cell_alone(tmp_path: Path) -> None:
    """A prompt that is too long is a fault of its cell, asked once, not kept, and said."""
    server = _Strict(lambda number, _listed: (400, "too long") if number in (20, 33) else None)
    with generating(server), CallBook(tmp_path) as book:
        generator, found = _run(server, book)
        assert found
        assert len(book) == server.accepted == len(server.asked) - 2
        assert len(set(server.asked)) == len(server.asked)
    faults = Counter[str]()
    for one in generator.yields:
        faults.update(one.faults)
    assert faults["not accepted"] == 2
    server.odd = lambda _number, _listed: None
    before = len(server.asked)
    with generating(server), CallBook(tmp_path) as book:
        _run(server, book)
        assert len(server.asked) - before >= 2


def test_a_server_that_turns_strict_ends_the_run_with_its_message(tmp_path: Path) -> None:
    """Accepted at first and never again: eight cells without anything, and why."""
    server = _Strict(lambda number, _listed: (400, "reload me") if number > 30 else None)
    with generating(server), CallBook(tmp_path) as book:
        with pytest.raises(UpstreamError, match=r"mostly: not accepted.*HTTP 400: reload me"):
            _run(server, book, rounds=6)
        assert len(book) == 30


def test_refusals_of_an_earlier_version_are_asked_again(tmp_path: Path) -> None:
    """It kept every error of a request as a refusal; a filter's refusal stays."""
    call = GeneratorCall(
        cell="c", kind="asks", model="m", messages=({"role": "user", "content": "x"},),
        temperature=1.0, max_tokens=9, seed=1,
    )  # fmt: skip
    with CallBook(tmp_path) as book:
        book.keep(call, GeneratorAnswer(text="", finish="refused", refused=400))
        other = msgspec.structs.replace(call, seed=2)
        book.keep(other, GeneratorAnswer(text="", finish="content_filter", refused=400))
    with CallBook(tmp_path) as book:
        assert book.find(call) is None
        assert book.find(other) is not None


@pytest.mark.parametrize("status", [401, 403, 402, 404])
def test_a_final_error_keeps_every_call_under_way(tmp_path: Path, status: int) -> None:
    """What others are paid for meanwhile is waited for and kept, and no new call begins."""

    class Revoked(GeneratorServer):
        def reply(self, body: dict[str, Any]) -> tuple[int, bytes]:
            good = super().reply(body)
            if len(self.asked) == 7:
                return status, b"{}"
            time.sleep(0.4)
            return good

    with generating(Revoked()) as server, CallBook(tmp_path) as book:
        with pytest.raises(UpstreamError, match=f"HTTP {status}"):
            _run(server, book)
        assert len(book) == len(server.asked) - 1
        assert len(server.asked) <= 7 + 3


def test_calls_under_way_are_waited_for_no_longer_than_the_time_out(tmp_path: Path) -> None:
    """A call that hangs while another one fails for good holds nobody up."""

    class Revoked(GeneratorServer):
        def reply(self, body: dict[str, Any]) -> tuple[int, bytes]:
            super().reply(body)
            if len(self.asked) == 4:
                return 401, b"{}"
            self.stopping.wait(20)
            return 500, b""

    began = time.monotonic()
    with generating(Revoked()) as server, CallBook(tmp_path) as book:
        settings = msgspec.structs.replace(_settings(server.url), timeout_s=1.0)
        generator = ModelGenerator("openai", _bikes(), settings, book)
        with pytest.raises(UpstreamError, match="HTTP 401"):
            list(generator.generate(seed=1))
        assert time.monotonic() - began < 15.0  # those that hang do so for twenty seconds


def test_an_answer_that_can_not_be_kept_ends_in_what_is(tmp_path: Path) -> None:
    """No call begins after the disk is full, and the one error says how many answers are kept."""

    class Full(CallBook):
        def keep(self, call: GeneratorCall, answer: GeneratorAnswer) -> None:
            if len(self) >= 5:
                raise OSError(28, "No space left on device", str(tmp_path / "calls.jsonl"))
            super().keep(call, answer)

    with (
        generating(GeneratorServer()) as server,
        pytest.raises(DiskError) as caught,
        Full(tmp_path) as book,
    ):
        _run(server, book)
    assert "calls.jsonl: No space left on device; the 5 answers" in str(caught.value)
    assert len(server.asked) <= 5 + 4


def test_odd_usage_and_parts_of_text_cost_nothing(tmp_path: Path) -> None:
    """A server with numbers as texts and a text in parts is asked as often as a plain one."""

    class Odd(GeneratorServer):
        def reply(self, body: dict[str, Any]) -> tuple[int, bytes]:
            status, good = super().reply(body)
            answer = json.loads(good)
            answer["usage"] = {"prompt_tokens": "10", "completion_tokens": 10.5}
            message = answer["choices"][0]["message"]
            message["content"] = [{"type": "text", "text": message["content"]}]
            return status, json.dumps(answer).encode()

    with generating(GeneratorServer()) as plain, CallBook(tmp_path / "plain") as book:
        wanted = _run(plain, book)[1]
    with generating(Odd()) as odd, CallBook(tmp_path / "odd") as book:
        assert _run(odd, book)[1] == wanted
        assert sorted(odd.asked) == sorted(plain.asked)


def test_a_model_that_only_reasons_is_told_so(tmp_path: Path) -> None:
    """Reasoning without an end gives no example, and the run says what to do."""

    class Thinking(GeneratorServer):
        def reply(self, body: dict[str, Any]) -> tuple[int, bytes]:
            status, good = super().reply(body)
            answer = json.loads(good)
            message = answer["choices"][0]["message"]
            message["reasoning_content"] = message.pop("content")
            return status, json.dumps(answer).encode()

    with (
        generating(Thinking()) as server,
        CallBook(tmp_path) as book,
        pytest.raises(UpstreamError, match=r"mostly: reasoning.*switch its reasoning off"),
    ):
        _run(server, book)


def test_a_rejection_is_said_once() -> None:
    """Each message of a server is one line, however many requests it rejects."""
    lines: list[str] = []
    pace = Pace(4, 1.0, lines.append)
    for said in ("HTTP 400: a", "HTTP 400: a", "HTTP 400: b"):
        pace.rejected(said)
    assert len(lines) == 2
