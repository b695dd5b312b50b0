"""The tutorial of a class of one's own, run as printed in an empty folder from a built wheel."""

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
import zipfile
from pathlib import Path

import pytest

from safehold.testing.generator import GeneratorServer, generating
from safehold.testing.upstream import MockUpstream

pytestmark = pytest.mark.soak
_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "docs" / "your-own-class.md"
_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
_SHOWN = re.compile(r"```text\n(.*?)```", re.DOTALL)
_LIMIT_S = 2400


def _installed(folder: Path) -> Path:
    """Return a folder with what the wheel holds; nothing of the repository is beside it."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")],
        cwd=_ROOT, check=True, capture_output=True, timeout=600,
    )  # fmt: skip
    (wheel,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    return folder / "site"


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


def _look(words: list[str], said: str, work: Path) -> None:
    """Hold what a command printed and wrote against what the page says of it."""
    match words[0]:
        case "synth":
            assert ("total" if "--dry-run" in words else "wanted") in said
        case "train" | "up":
            assert "blocked" in said
        case "eval":
            assert (work / "report" / "report.html").is_file()
        case "ledger":
            assert "second" in said


def test_the_tutorial_works_as_printed(tmp_path: Path) -> None:
    """Every command of the page, from the wheel, ends and prints as the page says; it serves."""
    site = _installed(tmp_path)
    work = tmp_path / "empty"
    work.mkdir()
    _files(work)
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(site)}
    page = _PAGE.read_text("utf-8")

    def run(words: list[str], status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "safehold", *words],
            cwd=work, env=environment, capture_output=True, text=True, check=False,
            timeout=_LIMIT_S,
        )  # fmt: skip
        assert done.returncode == status, f"{words}\n{done.stdout[-500:]}{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    where = [sys.executable, "-c", "import safehold; print(safehold.__file__)"]
    found = subprocess.run(where, cwd=work, env=environment, capture_output=True, check=True)
    assert found.stdout.decode().startswith(str(site)), "the repository's own code runs"
    with generating(GeneratorServer()) as server, MockUpstream() as model:
        for line in "\n".join(_BLOCK.findall(page)).split("\n"):
            if not line.startswith("safehold "):
                continue
            line = line.replace("$GENERATOR", server.url).replace("$MODEL", model.url)  # noqa: PLW2901
            words = shlex.split(line)[1:]
            if "bundles/second" in words:  # stands for a class that was trained the same way
                shutil.copytree(work / "bundles" / "mine", work / "bundles" / "second")
            if words[0] == "serve":
                _serve(words, work, environment)
                continue
            if "--read" in words:
                _accept(work)
            calls = len(server.asked)
            # An unfilled template is what lint must find fault with; nothing else is unfinished.
            unfilled = words[:2] == ["constitution", "lint"]
            said = run(words, 1 if unfilled else 0)
            _look(words, said, work)
            if unfilled:
                printed = [one for one in _SHOWN.findall(page)[0].split("\n") if one not in "..."]
                assert [one for one in printed if one not in said.split("\n")] == []
                assert "0 errors, 0 warnings" in run([*words[:2], "bicycle-repair.yaml"])
            assert "--dry-run" not in words or len(server.asked) == calls, "the plan calls nobody"
            if words[0] == "up":
                calls = len(server.asked)
                again = run(words)
                assert len(server.asked) == calls, "no call is paid for twice"
                assert "serve it: safehold serve" in again
