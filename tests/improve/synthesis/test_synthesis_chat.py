"""The chat generator against a real HTTP server that answers well, badly and not at all."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from safehold.constitution import load
from safehold.errors import UpstreamError
from safehold.improve.synthesis.chat import ChatGenerator, ChatSettings, listed
from safehold.improve.synthesis.interface import Side

Answer = Callable[[str, int], tuple[int, bytes]]
_PASSAGE = (
    "First you do the one thing for ten minutes, then the other thing, and at last you rest it."
)


def _completion(text: str) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def _good(said: str, count: int) -> tuple[int, bytes]:
    if "numbered list" in said:
        return _completion(
            f"1. how do I brew beer number {count}\n2) and this mash of mead?\n3. hi"
        )
    return _completion(f"{_PASSAGE} ({count})")


@contextmanager
def _server(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append(body["messages"][-1]["content"])
            status, reply = answer(asked[-1], len(asked))
            self.send_response(status)
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            del format, args

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that has what it wants hangs up; that is no error."""
            del request, client_address

    server = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _generator(url: str, rounds: int = 1) -> ChatGenerator:
    settings = ChatSettings(
        url=url, model="m", rounds=rounds, retries=2, backoff_s=0.0, timeout_s=10, concurrency=2
    )
    return ChatGenerator("openai", load("homebrewing"), settings)


def test_requests_and_answers_become_labelled_examples() -> None:
    """Both sides come with clause, stage, model and an id of their own."""
    with _server(_good) as (url, _):
        found = list(_generator(url).generate(seed=1, skip=frozenset()))
    assert {one.side for one in found} == set(Side)
    assert len({one.id for one in found}) == len(found)
    assert all(one.ask is (one.side is Side.RESTRICTED) for one in found)
    assert found[0].lineage.chain == ("model:m",)
    assert {one.stage for one in found if one.clause == "beer-production"} > {
        "mashing",
        "packaging",
    }


def test_jobs_that_are_done_are_not_asked_again() -> None:
    """A resumed run asks for nothing that is in the journal."""
    with _server(_good) as (url, asked):
        generator = _generator(url)
        found = list(generator.generate(seed=1, skip=frozenset()))
        before = len(asked)
        assert list(generator.generate(seed=1, skip=frozenset(one.id for one in found))) == []
        assert len(asked) == before


def test_a_server_that_fails_now_and_then_is_asked_again() -> None:
    """An error 500 and then a broken body are tried again, and the third answer counts."""
    tries: Counter[str] = Counter()

    def flaky(said: str, count: int) -> tuple[int, bytes]:
        tries[said] += 1
        faults = {1: (500, b"{}"), 2: (200, b"not json")}
        return faults.get(tries[said]) or _good(said, count)

    with _server(flaky) as (url, _):
        assert next(_generator(url).generate(seed=1, skip=frozenset())).reply


def test_a_wrong_key_is_said_at_once() -> None:
    """HTTP 401 is final: no retries, one clear error."""
    with _server(lambda *_: (401, b"{}")) as (url, asked):
        with pytest.raises(UpstreamError, match="HTTP 401"):
            list(_generator(url).generate(seed=1, skip=frozenset()))
        assert len(asked) <= 2


def test_declined_and_foreign_text_is_left_out() -> None:
    """Refusals are no restricted replies, and a model that only refuses is an error."""

    def declines(said: str, count: int) -> tuple[int, bytes]:
        if "numbered list" in said:
            return _good(said, count)
        return _completion("I'm sorry, but I cannot help with that, whatever you may say. " * 3)

    with _server(declines) as (url, _), pytest.raises(UpstreamError, match="no usable exchange"):
        list(_generator(url).generate(seed=1, skip=frozenset()))


def test_lists_are_read_in_the_forms_models_write() -> None:
    """Numbers, brackets, dashes and quotes are taken off; prose is no item."""
    assert listed('Sure!\n1. "one"\n2) two\n- three\n1. "one"\n') == ["one", "two", "three"]
