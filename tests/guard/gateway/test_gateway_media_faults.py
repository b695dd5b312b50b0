"""A media scorer that does what ill servers do: nothing passes, and it is said why."""

import asyncio
import base64
import gzip
import json
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from gateway_wire import PATHS, body_for, post

from safehold.guard.gateway.interface import Media, Rules
from safehold.guard.gateway.media_settings import MediaScorer
from safehold.guard.gateway.policy import SurfacePolicy
from safehold.guard.gateway.relaying.media_scoring import MediaJudge
from safehold.guard.ledger.interface import EventKind, EventRow
from safehold.testing.ports import held_port
from safehold.testing.upstream import says

SECRET = "inside-of-the-scorer"
GOOD = b'{"score": 0.1}'


def answer(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """Return an HTTP answer as bytes."""
    length = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", f"content-length: {length}", "connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


DEEP = b'{"x": ' + b"[" * 60_000 + b"]" * 60_000 + b', "score": 0.1}'
FAULTS: dict[str, tuple[list[bytes | float], str]] = {
    "hangs": ([1.5], "within"),
    "drips": ([answer(b"", length=99), *([b" ", 0.1] * 12)], "within"),
    "drips in its head": ([b"HTTP/1.1 200 OK\r\nx: ", *([b"a", 0.1] * 12)], "within"),
    "html": ([answer(f"<html>{SECRET}".encode(), "content-type: text/html")], "no JSON"),
    "nothing": ([answer(b"")], "no JSON"),
    "text score": ([answer(b'{"score": "0.1"}')], "no JSON"),
    "not a number": ([answer(b'{"score": NaN}')], "no JSON"),
    "null": ([answer(b'{"score": null}')], "no JSON"),
    "yes": ([answer(b'{"score": true}')], "no JSON"),
    "below 0": ([answer(b'{"score": -0.1}')], "0 to 1"),
    "giant": ([answer(b'{"score": 1e999}')], "no JSON|0 to 1"),
    "deep": ([answer(DEEP)], "no JSON"),
    "not utf-8": ([answer(b'{"x": "\xff", "score": 0.1}')], "no JSON"),
    "redirects": ([answer(b"", "location: http://127.0.0.1:9/", status="307 Moved")], "status 307"),
    "busy": ([answer(SECRET.encode(), "retry-after: 1", status="429 Slow")], "status 429"),
    "away": ([answer(SECRET.encode(), "retry-after: 9", status="503 Away")], "status 503"),
    "created": ([answer(GOOD, status="201 Created")], "status 201"),
    "long": ([answer(GOOD + b" " * (2 << 20))], "bytes"),
    "long without a length": ([b"HTTP/1.1 200 OK\r\n\r\n" + GOOD + b" " * (2 << 20)], "bytes"),
    "bomb": (
        [answer(gzip.compress(GOOD + b" " * (32 << 20)), "content-encoding: gzip")],
        "encoded",
    ),
    "half": ([answer(GOOD, length=99)], "closed"),
    "closes": ([b""], "closed"),
    "no http": ([f"{SECRET}\r\n\r\n".encode()], "HTTP"),
    "long head": ([b"HTTP/1.1 200 OK\r\nx: " + b"a" * 99_000 + b"\r\n\r\n"], "HTTP|closed"),
}


def patience(fault: str) -> float:
    """Return how long to wait for a scorer, in seconds: long, but where it is late for ever."""
    return 0.6 if FAULTS[fault][1] == "within" else 60.0


_KEPT_BYTES = 1 << 20


class SickServer:
    """Takes connections, reads a request and does what the table says."""

    def __init__(self, script: list[bytes | float]) -> None:
        self.script = script
        self.asked: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/score"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                taken, _ = self._socket.accept()
                threading.Thread(target=self._one, args=(taken,), daemon=True).start()

    def _one(self, taken: socket.socket) -> None:
        with taken, suppress(OSError):
            head, _, body = taken.recv(1 << 16).partition(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split()[0])
            if length > _KEPT_BYTES:
                left, room = length - len(body), bytearray(1 << 16)
                while left > 0:
                    left -= taken.recv_into(room)
            while len(body) < length <= _KEPT_BYTES:
                body += taken.recv(1 << 16)
            self.asked.append(body)
            for step in self.script:
                if isinstance(step, float):
                    time.sleep(step)
                else:
                    taken.sendall(step)

    def close(self) -> None:
        """Take no further connections."""
        self._socket.close()


@pytest.fixture
def sick() -> Iterator[Callable[[list[bytes | float]], SickServer]]:
    """Return a function that starts a server with a script."""
    started: list[SickServer] = []

    def start(script: list[bytes | float]) -> SickServer:
        started.append(SickServer(script))
        return started[-1]

    yield start
    for one in started:
        one.close()


def shows(data: bytes = b"image") -> bytes:
    """Return a request with one image."""
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url}}]
    return json.dumps(
        body_for(PATHS[0], "") | {"messages": [{"role": "user", "content": parts}]}
    ).encode()


def gateway(stage: Callable[..., Any], url: str, **more: Any) -> Any:
    """Start a gateway whose images go to that scorer."""
    scorer = MediaScorer(url=url, form="plain", **{"timeout_s": 60.0} | more)
    return stage(
        says("It is a zebra."),
        default=SurfacePolicy(rules=Rules(images="score")),
        media_scorer=scorer,
    )


def judged(url: str, *images: bytes, **more: Any) -> list[Any]:
    """Have images scored without a gateway around it."""

    async def ask() -> list[Any]:
        judge = MediaJudge(MediaScorer(url=url, form="plain", **{"timeout_s": 60.0} | more))
        try:
            return await judge.scores([Media("image/png", data, "d") for data in images])
        finally:
            await judge.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("fault", FAULTS)
def test_an_ill_scorer_scores_nothing_and_the_reason_is_ours(
    fault: str, sick: Callable[[list[bytes | float]], SickServer]
) -> None:
    """No fault is a score, none takes longer than the limit, and no word of the scorer is told."""
    script, why = FAULTS[fault]
    started = time.monotonic()
    (found,) = judged(sick(script).url, b"image", timeout_s=patience(fault))
    assert time.monotonic() - started < 30
    assert found.score is None
    assert any(word in found.failed for word in why.split("|")), found.failed
    assert SECRET not in found.failed


@pytest.mark.parametrize("fault", ["deep", "html", "away", "half", "hangs"])
def test_a_client_learns_nothing_of_the_scorers_inside(
    fault: str,
    stage: Callable[..., Any],
    sick: Callable[[list[bytes | float]], SickServer],
) -> None:
    """500 in the same words whatever happened; the row says why, and other prompts are served."""
    script, why = FAULTS[fault]
    at = gateway(stage, sick(script).url, timeout_s=patience(fault))
    status, _, body = post(at.gateway.port, PATHS[0], shows())
    assert status == 500
    assert json.loads(body)["error"]["message"] == "an image or a file could not be scored"
    rows = [r for r in at.ledger.rows if isinstance(r, EventRow) and r.kind is EventKind.MEDIA]
    assert why in str(rows[-1].detail["failed"])
    assert at.finals()[-1].delivered == ()
    assert post(at.gateway.port, PATHS[0], json.dumps(body_for(PATHS[0], "hi")).encode())[0] == 200


def test_a_scorer_that_is_not_there_or_not_trusted_is_named_by_what_is_wrong() -> None:
    """No name, nobody at the port, and TLS where none is spoken: three reasons."""
    with held_port() as port:
        (found,) = judged(f"http://127.0.0.1:{port}/", b"image")
    assert "not reached" in found.failed
    (found,) = judged("http://no-such-name.invalid/", b"image", timeout_s=20.0)
    assert "name is unknown" in found.failed or "within" in found.failed
    with socket.create_server(("127.0.0.1", 0)) as plain:
        threading.Thread(target=_greets, args=(plain,), daemon=True).start()
        (found,) = judged(f"https://127.0.0.1:{plain.getsockname()[1]}/", b"image")
    assert "TLS" in found.failed


def _greets(server: socket.socket) -> None:
    with suppress(OSError):
        taken, _ = server.accept()
        with taken:
            taken.recv(1 << 16)
            taken.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("size", [1, 8 << 20], ids=["short", "long"])
def test_a_kept_connection_that_ended_costs_no_image(size: int, how: str) -> None:
    """A scorer may close an idle connection at any time: it is asked again, not refused.

    Where the end comes before, while or after the question is sent, and however many had been kept.
    """
    kept = answer(GOOD).replace(b"connection: close\r\n", b"")
    firsts: list[socket.socket] = []

    def serve(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                taken, _ = listening.accept()
                threading.Thread(target=one, args=(taken,), daemon=True).start()

    def one(taken: socket.socket) -> None:
        with suppress(OSError):
            head, _, body = taken.recv(1 << 16).partition(b"\r\n\r\n")
            left = int(head.lower().split(b"content-length:")[1].split()[0]) - len(body)
            while left > 0:
                left -= len(taken.recv(1 << 16))
            if how == "reset":  # with what may be unread, and without a word
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            firsts.append(taken)  # before the answer: who has it may look at once
            taken.sendall(kept)
            taken.recv(1 << 10)  # a next question has begun
            taken.close()

    async def ask(url: str) -> list[Any]:
        judge = MediaJudge(MediaScorer(url=url, form="plain", timeout_s=60.0))
        image = Media("image/png", b"i" * size, "d")
        try:
            many = [await judge.scores([image] * 4) for _ in range(3)]
            return [one for few in many for one in few]
        finally:
            await judge.close()

    with socket.create_server(("127.0.0.1", 0), backlog=200) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        found = asyncio.run(ask(f"http://127.0.0.1:{listening.getsockname()[1]}/score"))
    assert [one.score for one in found] == [0.1] * 12
    assert len(firsts) == 12  # each connection answered once: eight ended under a question


@pytest.mark.parametrize("script", [[b""], [answer(GOOD, length=99)]], ids=["nothing", "half"])
def test_a_new_connection_that_ends_is_asked_once(
    script: list[bytes | float], sick: Callable[[list[bytes | float]], SickServer]
) -> None:
    """A scorer that hangs up on each question is not asked for ever."""
    server = sick(script)
    (found,) = judged(server.url, b"i", timeout_s=60.0)
    assert found.score is None
    assert len(server.asked) == 1


@pytest.mark.parametrize("size", [0, 1, 2, 3, (3 << 14) - 1, 3 << 14, (3 << 14) + 1, 7 << 16])
def test_what_the_scorer_gets_is_the_image(
    size: int, sick: Callable[[list[bytes | float]], SickServer]
) -> None:
    """The pieces of the body are one JSON with the whole image, whatever its length."""
    server = sick([answer(GOOD)])
    data = bytes(range(256)) * (size // 256 + 1)
    (found,) = judged(server.url, data[:size], timeout_s=60.0)
    assert found.score == 0.1
    assert base64.b64decode(json.loads(server.asked[0])["data"]) == data[:size]


def test_many_images_cost_no_copies_and_hold_nobody_up(
    sick: Callable[[list[bytes | float]], SickServer],
) -> None:
    """Forty images of 2 MB before a slow scorer: a few pieces of memory, and the loop goes on."""
    server = sick([0.2, answer(GOOD)])
    image = b"x" * (2 << 20)
    longest = 0.0

    async def ask() -> list[Any]:
        nonlocal longest
        judge = MediaJudge(MediaScorer(url=server.url, form="plain", timeout_s=60.0))
        going = asyncio.ensure_future(judge.scores([Media("image/png", image, "d")] * 40))
        while not going.done():
            started = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - started)
        await judge.close()
        return going.result()

    assert [one.score for one in asyncio.run(ask())] == [0.1] * 40
    assert longest < 0.25
    tracemalloc.start()
    try:
        asyncio.run(ask())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(image)  # a copy of each, in base64, would be 53 of them
