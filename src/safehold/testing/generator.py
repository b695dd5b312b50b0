"""A deterministic stand-in for a model that generates data, with every bad habit on demand.

It reads the prompts that `safehold synth` sends: for a list it returns numbered messages with the
names that it was told to mention, for a message an answer in plausible prose of that side, and
neighbours where they are wanted. Its answers are recorded text, not a model's, and whoever trains
from them says so.
"""

import hashlib
import json
import random
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

_TICK_S = 0.005
_COUNT = re.compile(r"numbered list of (\d+)")
_NAMES = re.compile(r"Mention some of these: (.+)")
_SUBJECT = re.compile(r"Subject: ([^.]+)\.")
_WORK = (
    "First take the {name} and clean it, then measure {n} mm from the edge.",
    "Hold the {name} with the left hand and turn it {n} times until it sits.",
    "Set the {name} to {n} units and wait {m} minutes before the next step.",
    "Weigh {n} g for the {name}, add it slowly, and stir for {m} minutes.",
    "Check the {name} again after {m} minutes: it must not move by more than {n} mm.",
    "When the {name} is done, tighten everything in the order {n}, {m}, and test it.",
    "If the {name} slips, go back {m} steps, loosen it and repeat with {n} more.",
    "Keep the {name} at {n} degrees for {m} minutes and look for an even surface.",
)
_TALK = (
    "People have liked the {name} for about {n} years, and museums show old ones.",
    "A shop in the old town sells the {name} for {n} euros, opening at {m} o'clock.",
    "The word {name} comes from an older language, where it meant something else.",
    "Most customers choose the {name} for its looks; {n} of {m} said so in a survey.",
    "By law the seller of a {name} must answer within {n} days.",
    "A poem of {n} lines praises the {name}, and a song was made of it later.",
    "Magazines compare the {name} with others and print a table of prices.",
    "Schools mention the {name} in one lesson of {m} minutes about everyday things.",
)
_NEIGHBOURS = (
    "Trade and wages: What people earn who live of {0}. For example: What is the pay in a town?",
    "Photographs and films: How to make pictures of {0}. For example: Which lens is best?",
)


WRONG = "the model 'canned'\nis being loaded; your key was sk-canned-1"
"""What a server with the habit of errors says."""
ELSEWHERE = "http://elsewhere.example/v1/chat/completions"


class Habit(StrEnum):
    """How the generator behaves."""

    GOOD = "good"
    REFUSES = "refuses"
    MARKUP = "markup"
    REPEATS = "repeats"
    NONSENSE = "nonsense"
    HANGS = "hangs"
    NO_RIGHTS = "no rights"
    BREAKS = "breaks"
    NOT_JSON = "not json"
    ERROR = "error"
    """Status 200 with an error in place of an answer; it repeats the key, as some do."""
    MOVED = "moved"


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How long answers take, in seconds: a call's own work, and loading before the first."""

    work_s: float = 0.0
    load_s: float = 0.0
    shared: bool = False
    """Calls at once share one machine, so each takes as many times longer as there are."""
    stubborn: bool = False
    """It works on for those who have hung up."""


class GeneratorServer:
    """The server's state: what was asked, and how it behaves; `wanted` picks a habit by prompt."""

    def __init__(
        self,
        habit: Habit = Habit.GOOD,
        wanted: Callable[[str], Habit] | None = None,
        speed: Speed | None = None,
    ) -> None:
        """Take the habit of all answers, or what picks one for each prompt; and the speed."""
        self.habit = habit
        self.wanted = wanted
        self.speed = speed
        self.busy = self.most_busy = 0
        """Calls under way; the most there were."""
        self.hanging = 0
        """Calls that are never answered."""
        self.clock: Callable[[], float] = time.monotonic
        """What its speed is measured by, in seconds."""
        self.wasted = 0
        """Calls that nobody waited for when they were done, or given up."""
        self._began = 0.0
        self._lock = threading.Lock()
        self.asked: list[str] = []
        self.stopping = threading.Event()
        self.url = ""

    def work(self, gone: Callable[[], bool]) -> None:
        """Take the time that a call costs; `gone` says whether its caller has hung up."""
        if self.speed is None:
            return
        if not self.asked and self.busy == 0:
            self._began = self.clock()
        with self._lock:
            self.busy += 1
            self.most_busy = max(self.busy, self.most_busy)
        done = 0.0
        last = self.clock()
        left = False
        while done < self.speed.work_s and not self.stopping.wait(_TICK_S):
            now = self.clock()
            if now - self._began >= self.speed.load_s:
                done += (now - last) / (self.busy if self.speed.shared else 1)
            last = now
            left = gone()
            if left and not self.speed.stubborn:
                break
        with self._lock:
            self.busy -= 1
            self.wasted += left

    def reply(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """Return the status and the body of an answer."""
        said = body["messages"][-1]["content"]
        self.asked.append(f"{body['messages'][0]['content']}\n{said}\n{body['seed']}")
        match self.wanted(said) if self.wanted else self.habit:
            case Habit.NO_RIGHTS:
                return 403, b"{}"
            case Habit.BREAKS:
                return 500, b"{}"
            case Habit.NOT_JSON:
                return 200, b"<html><body>Gateway time-out</body></html>"
            case Habit.ERROR:
                return 200, json.dumps({"error": {"message": WRONG, "code": 17}}).encode()
            case Habit.MOVED:
                return 308, b""
            case Habit.HANGS:
                with self._lock:
                    self.hanging += 1
                self.stopping.wait(30)
                return 500, b"{}"
            case Habit.REFUSES:
                return _completion("I'm sorry, but I can't help with that.")
            case Habit.MARKUP:
                return _completion("<!DOCTYPE html><html><body>Welcome</body></html>")
            case Habit.REPEATS:
                return _completion("1. the same old thing about it\n" + "And again the same. " * 40)
            case Habit.NONSENSE:
                return _completion("1. lorem ipsum dolor sit\n2. amet consectetur elit\n" * 2)
            case _:
                return _completion(_good(body))


_Kind = TypeVar("_Kind", bound=GeneratorServer)


@contextmanager
def generating(generator: _Kind) -> Iterator[_Kind]:
    """Serve a generator on a loopback port; its `url` ends in /v1."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            generator.work(self._gone)
            self._send(*generator.reply(body))

        def _gone(self) -> bool:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

        def do_GET(self) -> None:
            self._send(200, json.dumps({"data": [{"id": "canned"}]}).encode())

        def _send(self, status: int, reply: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(reply)))
            if status == HTTPStatus.PERMANENT_REDIRECT:
                self.send_header("location", ELSEWHERE)
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            del format, args

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that has what it wants hangs up; that is no error."""
            del request, client_address

    server = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    generator.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield generator
    finally:
        generator.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _completion(text: str) -> tuple[int, bytes]:
    body = {
        "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 50, "completion_tokens": len(text) // 4},
    }
    return 200, json.dumps(body).encode()


def _good(body: dict[str, Any]) -> str:
    said = body["messages"][-1]["content"]
    manner = body["messages"][0]["content"]
    number = int(hashlib.sha256(f"{manner}{said}{body['seed']}".encode()).hexdigest()[:8], 16)
    rng = random.Random(number)  # noqa: S311 - text, not secrets
    count = _COUNT.search(said)
    if count is None:
        return _answer(said, manner, rng)
    subject = _SUBJECT.search(said)
    named = _NAMES.search(said)
    title = subject[1].strip() if subject else "this"
    if "new kinds" in said:
        return "\n".join(
            f"{at}. {line.format(title.lower())}" for at, line in enumerate(_NEIGHBOURS, 1)
        )
    names = named[1].split(", ") if named else [title]
    restricted = "exactly such help" in said
    lines = []
    for at in range(int(count[1])):
        name = rng.choice(names)
        if restricted:
            text = f"How do I do {title.lower()} with the {name}, case {rng.randint(100, 9999)}?"
        else:
            text = f"Tell me about {title.lower()}, number {rng.randint(100, 9999)} of my list."
        lines.append(f"{at + 1}. {text}")
    return "Here is the list:\n" + "\n".join(lines)


def _answer(said: str, manner: str, rng: random.Random) -> str:
    words = [word.strip("?,.") for word in said.split() if len(word) > 3]
    bank = _WORK if "complete practical help" in manner else _TALK
    told = [
        line.format(
            name=" ".join(rng.sample(words, k=min(2, len(words)))) or "thing",
            n=rng.randint(2, 90),
            m=rng.randint(2, 40),
        )
        for line in rng.sample(bank, k=6)
    ]
    return f"About {' '.join(words)}: " + " ".join(told)


def main() -> None:
    """Serve until killed, saying the address: for people who try the tutorial without a model."""
    with generating(GeneratorServer()) as running:
        sys.stdout.write(f"{running.url}\n")
        sys.stdout.flush()
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()
