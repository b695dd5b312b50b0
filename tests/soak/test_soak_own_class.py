"""The tutorial of a class of one's own, run as printed in an empty folder, to a served guard."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from safehold.testing.generator import GeneratorServer, generating
from safehold.testing.upstream import MockUpstream

pytestmark = pytest.mark.soak
_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "docs" / "your-own-class.md"
_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
_LIMIT_S = 2400


def _files(folder: Path) -> None:
    labelled = [
        {"text": f"Take the derailleur off, turn screw {n} by {n + 2} mm.", "label": "restricted"}
        for n in range(20)
    ]
    labelled += [{"text": f"The museum has {n} old posters.", "label": "benign"} for n in range(20)]
    traffic = [
        {"text": f"Please write {n} lines about the weather in {n + 1900}."} for n in range(400)
    ]
    for name, rows in (("labelled", labelled), ("traffic", traffic)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def _accept(folder: Path) -> None:
    path = folder / "sheet" / "neighbours.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([rows[0], *(["accept", *row[1:]] for row in rows[1:])])


def _serve(words: list[str], folder: Path, environment: dict[str, str]) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "safehold", *words, "--port", "0", "--json"],
        cwd=folder, env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        base = json.loads(running.stdout.readline())["openai_base_url"]
        body = {"model": "m", "messages": [{"role": "user", "content": "Good morning."}]}
        for _ in range(120):
            request = urllib.request.Request(
                f"{base}/chat/completions",
                data=json.dumps(body).encode(),
                headers={"content-type": "application/json"},
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    assert json.loads(answer.read())["choices"]
                    return
            except OSError:
                time.sleep(1)
        pytest.fail("the guard never answered")
    finally:
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=60)


def test_the_tutorial_works_as_printed(tmp_path: Path) -> None:
    """Every command of the page ends as the page says, and the guard answers at the end."""
    _files(tmp_path)
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    with generating(GeneratorServer()) as server, MockUpstream() as model:
        lines = "\n".join(_BLOCK.findall(_PAGE.read_text("utf-8"))).split("\n")
        for line in lines:
            if not line.startswith("safehold "):
                continue
            line = line.replace("$GENERATOR", server.url).replace("$MODEL", model.url)  # noqa: PLW2901
            words = shlex.split(line)[1:]
            if "bundles/second" in words:  # stands for a class that was trained the same way
                shutil.copytree(tmp_path / "bundles" / "mine", tmp_path / "bundles" / "second")
            if words[0] == "serve":
                _serve(words, tmp_path, environment)
                continue
            if "--read" in words:
                _accept(tmp_path)
            done = subprocess.run(
                [sys.executable, "-m", "safehold", *words],
                cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
                timeout=_LIMIT_S,
            )  # fmt: skip
            # An unfilled template is what lint must find fault with; nothing else is unfinished.
            wanted = 1 if words[:2] == ["constitution", "lint"] else 0
            assert done.returncode == wanted, f"{line}\n{done.stderr[-3000:]}"
            assert "Traceback" not in done.stderr
            if words[0] == "up":
                calls = len(server.asked)
                again = subprocess.run(
                    [sys.executable, "-m", "safehold", *words],
                    cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
                    timeout=_LIMIT_S,
                )  # fmt: skip
                assert again.returncode == 0
                assert len(server.asked) == calls, "no call is paid for twice"
                assert "serve it: safehold serve" in again.stdout
