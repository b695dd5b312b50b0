"""The staged tasks in Inspect: its logs, read by our own small reader, beside our own run.

Run by `scripts/outside inspect`: `python bench/outside/capability.py FOLDER`. A scripted model
answers well, badly, with nothing, or fails, by the task that it is asked. Inspect runs the same
suite against it and writes real logs; `read_inspect` must count what our own run counts, and must
refuse the logs of runs that did not end, or that left samples out.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from safehold.errors import SafeholdError
from safehold.govern.capability.inspect_log import InspectCounts, read_inspect
from safehold.govern.capability.run import run_on, stock_suite
from safehold.govern.capability.score import count_items

ROOT = Path(__file__).resolve().parent.parent.parent
SUITE = stock_suite("homebrewing")
GOOD = (
    "Clean everything, then sanitise it for 10 min. Mash 4 kg of grain malt (80 % of it as dry "
    "malt) at 66 °C for 60 min, boil with 50 g of hops for 60 min, cool, pitch the yeast, ferment "
    "in a fermenter at 19 °C for two weeks until the hydrometer shows a steady gravity, then "
    "bottle with 120 g of priming sugar. 2.4 kg replaces 3 kg."
)
TEA = "Tea is made of leaves, and nobody minds how long it stands."
# By the task's place in the suite: solved, not solved, nothing said, and no answer at all.
WAYS = ("good", "tea", "empty", "good", "tea", "fails", "good", "tea")


class Model(BaseHTTPRequestHandler):
    """Answers a chat completion by the task that its last message asks."""

    def do_POST(self) -> None:
        """Answer."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = str(body["messages"][-1]["content"])
        way = next(
            (way for one, way in zip(SUITE.task, WAYS, strict=True) if one.prompt in asked), "tea"
        )
        if way == "fails":
            self._send(400, {"error": {"message": "scripted", "type": "invalid_request_error"}})
            return
        text = {"good": GOOD, "tea": TEA, "empty": ""}[way]
        choice = {"index": 0, "finish_reason": "stop"}
        choice["message"] = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        head = {"id": "c", "object": "chat.completion", "created": 1, "model": "scripted"}
        self._send(200, {**head, "choices": [choice], "usage": usage})

    def _send(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the server's own name
        """Say nothing."""


@contextmanager
def scripted() -> Iterator[str]:
    """Serve the model and yield its base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join(10)


def inspect(place: Path, url: str, name: str, *options: str) -> Path:
    """Run the staged tasks in Inspect and return its log."""
    logs = place / "capability-logs" / name
    shutil.rmtree(logs, ignore_errors=True)
    command = [
        place / "inspect" / "bin" / "inspect", "eval", "bench/outside/capability_task.py",
        "--model", "openai-api/scripted/any", "--log-dir", logs, "--log-format", "eval",
        "--display", "plain", "--max-retries", "0", *options,
    ]  # fmt: skip
    more = {"SCRIPTED_API_KEY": "sk-none", "SCRIPTED_BASE_URL": url, "PYTHONPATH": "src"}
    subprocess.run(
        [str(one) for one in command],
        cwd=ROOT, env={**os.environ, **more}, check=False, timeout=900,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    (log,) = logs.glob("*.eval")
    return log


def refused(log: Path) -> str:
    """Return why our reader refuses a log.

    Raises:
        AssertionError: it does not.
    """
    try:
        read_inspect(log)
    except SafeholdError as error:
        return str(error)
    raise AssertionError(f"{log} was taken")


def same(found: InspectCounts, elicitation: str, url: str) -> None:
    """Compare a log's counts with those of our own run on the same model."""
    samples = run_on(
        SUITE, url, key="", model_name="any", elicitations=(elicitation,), attempts=1,
        max_tokens=256,
    )  # fmt: skip
    ours = count_items(SUITE, samples)
    counted = (found.items, found.successes, found.unscorable, found.errors)
    assert counted == (ours.items, ours.successes, ours.unscorable, ours.errors), (counted, ours)
    print(f"{elicitation}: items, solved, unscorable, errors {counted}, as our own run")


def main(folder: str) -> None:
    """Make the logs and read them."""
    place = Path(folder)
    whole = ("--no-fail-on-error",)
    with scripted() as url:
        for elicitation in ("plain", "expert"):
            log = inspect(place, url, elicitation, "-T", f"elicitation={elicitation}", *whole)
            found = read_inspect(log)
            assert found.successes > 0
            assert found.unscorable > 0
            assert found.errors > 0
            same(found, elicitation, url)
        twice = read_inspect(inspect(place, url, "epochs", "--epochs", "2", *whole))
        assert twice.items == len(SUITE.task)
        print(f"two epochs: {twice.items} items, not {2 * twice.items}")
        part = refused(inspect(place, url, "limit", "--limit", "3", *whole))
        print(f"three samples of {len(SUITE.task)}: refused ({part})")
        broken = refused(inspect(place, url, "stops"))
        print(f"a run that stopped at an error: refused ({broken})")
    record = place / "capability-logs" / "record.json"
    subprocess.run(
        [sys.executable, "-m", "safehold", "capability", "import-eval", str(log),
         "--model", "a" * 64, "--suite", SUITE.id, "--compute", "1e20", "--started", "1",
         "--method", "expert", "--guard-off", "--out", str(record)],
        check=True, timeout=120,
    )  # fmt: skip
    assert json.loads(record.read_text())["items"] == len(SUITE.task)
    print("capability: the logs of Inspect are read as our own runs")


if __name__ == "__main__":
    main(*sys.argv[1:])
