"""`safehold up` killed at every kind of point: it goes on, and no answer is paid for twice."""

import hashlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from safehold.improve.synthesis.calls import Paid
from safehold.testing.generator import GeneratorServer, generating

pytestmark = pytest.mark.soak
_CLASS = Path(__file__).parents[2] / "examples" / "classes" / "bicycle-repair.yaml"
_LIMIT_S = 2400.0


_KILLS = 5


def paid_calls(folder: Path) -> list[Paid]:
    """Return the calls that were answered and kept."""
    file = folder / "data" / "calls.jsonl"
    lines = file.read_bytes().split(b"\n") if file.exists() else []
    return [msgspec.json.decode(line, type=Paid) for line in lines if line.endswith(b"}")]


def paid(folder: Path) -> set[str]:
    """Return the keys of the calls that were answered and kept."""
    return {one.key for one in paid_calls(folder)}


def as_asked(one: Paid) -> str:
    """Return a paid call as the server notes what it was asked."""
    messages, seed = one.call.messages, one.call.seed
    return f"{messages[0]['content']}\n{messages[-1]['content']}\n{seed}"


class Upping:
    """`safehold up` for one generator and key; its cost is counted in CPU seconds."""

    def __init__(self, server: GeneratorServer, home: Path) -> None:
        """Take who answers, and the folder of the signing key."""
        self.command = [sys.executable, "-m", "safehold", "up", str(_CLASS)]
        self.command += ["--generator", server.url, "--rounds", "1", "--batch", "2"]
        self.command += ["--stage1-only", "--json", "--signing-key", str(home / "key.pem")]
        self.environment = {**os.environ, "HOME": str(home)}

    def start(self, out: Path) -> "subprocess.Popen[bytes]":
        """Start it for a folder."""
        return subprocess.Popen(
            [*self.command, "--out", str(out)], env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def whole(self, out: Path) -> tuple[dict[str, object], float]:
        """Run it to its end, and return its report and its CPU seconds."""
        before = os.times()
        running = self.start(out)
        told, said = running.communicate(timeout=_LIMIT_S)
        after = os.times()
        assert running.returncode == 0, said.decode()[-3000:]
        spent = after.children_user + after.children_system
        return msgspec.json.decode(told), spent - before.children_user - before.children_system

    def killed_after(self, out: Path, cpu_s: float) -> tuple[bool, float]:
        """Kill it once it used so much CPU; return whether that ended it, and what it used."""
        running = self.start(out)
        used = 0.0
        while running.poll() is None and used < cpu_s:
            time.sleep(0.01)
            used = max(used, cpu_of(running.pid))
        running.kill()
        _, said = running.communicate(timeout=60)
        assert running.returncode in {0, -9}, said.decode()[-2000:]
        return running.returncode == -9, used


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process, all its threads counted; 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def result_of(out: Path, report: dict[str, object]) -> tuple[object, ...]:
    """Return what a run gives, apart from what it cost."""
    rows = hashlib.sha256((out / "data" / "examples.jsonl").read_bytes()).hexdigest()
    answers = sorted((one.key, one.sha256) for one in paid_calls(out))
    return rows, answers, report["digest"], report["figures"], report["splits"]


@pytest.fixture(scope="module")
def unbroken(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[GeneratorServer, Upping, tuple[object, ...], float, float]]:
    """A run that nothing ended: its server, its result, its CPU seconds, and those of a start."""
    home = tmp_path_factory.mktemp("unbroken")
    with generating(GeneratorServer()) as server:
        upping = Upping(server, home)
        report, cost = upping.whole(home / "guard")
        assert len(set(server.asked)) == len(server.asked)
        result = result_of(home / "guard", report)
        _, again = upping.whole(home / "guard")
        yield server, upping, result, cost, again


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_up_killed_at_random_moments_gives_what_an_unbroken_run_gives(
    tmp_path: Path, unbroken: tuple[GeneratorServer, Upping, tuple[object, ...], float, float],
    seed: int,
) -> None:  # fmt: skip
    """Each moment is drawn from what is left of the run; no answer that was kept is asked again."""
    server, upping, result, cost, again = unbroken
    moments = random.Random(seed)
    out = tmp_path / "guard"
    left, by_signal, told = cost, 0, []
    kept: set[str] = set()
    for _ in range(_KILLS):
        server.asked.clear()
        moment = moments.uniform(0, left)
        ended, used = upping.killed_after(out, moment)
        told.append(f"{moment:.2f} of {left:.2f}: {'killed' if ended else 'done before'}")
        by_signal += ended
        # All but a start's own cost counts as kept, so that no moment lies behind the end.
        left -= max(0.0, used - again)
        now = {as_asked(one) for one in paid_calls(out)}
        assert kept <= now, f"answers are gone: {told}"
        assert not kept & set(server.asked), f"paid for twice: {told}"
        kept = now
    assert by_signal > _KILLS / 2, told
    server.asked.clear()
    report, _ = upping.whole(out)
    assert not kept & set(server.asked), f"paid for twice: {told}"
    assert result_of(out, report) == result, told
    assert not (out / ".bundle.unfinished").exists()


def test_up_goes_on_from_wherever_it_was_killed(tmp_path: Path) -> None:
    """Killed while it asks, builds, trains and writes the bundle, it ends as if it never was."""
    out = tmp_path / "guard"
    kinds: dict[str, Callable[[], bool]] = {}
    with generating(GeneratorServer()) as server:
        kinds["the first calls"] = lambda: len(server.asked) >= 5
        kinds["half of the calls"] = lambda: len(server.asked) >= 60
        kinds["the dataset is built"] = (out / "data" / "examples.jsonl").exists
        kinds["training"] = (out / "data" / "manifest.json").exists
        for part in ("stage1.prompt", "stage1.reply", "calibration.1.0", "test.0", "golden"):
            file = out / ".bundle.unfinished" / f"{part}.part"
            kinds[f"training keeps {part}"] = file.exists
        kinds["the bundle is written"] = lambda: any(out.glob(".bundle.draft*"))
        command = [sys.executable, "-m", "safehold", "up", str(_CLASS), "--generator", server.url]
        command += ["--out", str(out), "--rounds", "2", "--batch", "2", "--stage1-only"]
        command += ["--signing-key", str(tmp_path / "key.pem"), "--json"]
        environment = {**os.environ, "HOME": str(tmp_path)}
        kept: set[str] = set()
        for name, reached in kinds.items():
            running = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            deadline = time.monotonic() + _LIMIT_S
            while running.poll() is None and not reached() and time.monotonic() < deadline:
                time.sleep(0.02)
            if running.poll() is None:
                running.kill()
            _, said = running.communicate(timeout=60)
            assert running.returncode in {0, -9}, f"{name}: {said.decode()[-2000:]}"
            now = paid(out)
            assert kept <= now, f"{name}: answers are gone"
            kept = now
        done = subprocess.run(
            command, env=environment, capture_output=True, check=False, timeout=_LIMIT_S
        )
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        report = msgspec.json.decode(done.stdout)
        assert report["bundle"] == str(out / "bundle")
        assert not (out / ".bundle.unfinished").exists()
        again = Counter(server.asked)
        # Only calls under way when it was killed (four at once, twice) were asked again.
        assert sum(count - 1 for count in again.values()) <= 2 * 4
