"""`safehold up` killed at every kind of point: it goes on, and no answer is paid for twice."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from safehold.improve.synthesis.calls import Paid
from safehold.testing.generator import GeneratorServer, generating

pytestmark = pytest.mark.soak
_CLASS = Path(__file__).parents[2] / "examples" / "classes" / "bicycle-repair.yaml"
_LIMIT_S = 2400.0


def paid(folder: Path) -> set[str]:
    """Return the keys of the calls that were answered and kept."""
    file = folder / "data" / "calls.jsonl"
    lines = file.read_bytes().split(b"\n") if file.exists() else []
    return {msgspec.json.decode(line, type=Paid).key for line in lines if line.endswith(b"}")}


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
