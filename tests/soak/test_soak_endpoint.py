"""Endpoint drills: a hundred kills under load, ten thousand execs, and what an exec costs."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from safehold.secure.endpoint.attack.drill import Cost, Kills, LearnedCommand

pytestmark = pytest.mark.soak


def drill(what: str, base: Path, *more: object) -> bytes:
    """Run one drill in namespaces of its own."""
    if os.geteuid() != 0:
        pytest.skip("a stage needs root")
    module = "safehold.secure.endpoint.attack.drill"
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable, "-m"]
    done = subprocess.run(
        [*command, module, what, str(base), *map(str, more)],
        capture_output=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr.decode()
    sys.stdout.write(done.stdout.decode())
    return done.stdout


def test_hundred_killed_workers_let_no_unknown_program_run(tmp_path: Path) -> None:
    """At 100 random moments the worker is killed: nothing unknown runs, waiting ends within 1 s."""
    found = msgspec.json.decode(drill("kills", tmp_path, 100), type=Kills)
    assert found.unknown_ran == 0
    assert found.unknown_tried > 100
    assert found.allowed_ran > 100
    assert found.longest_wait_s < 1.0


def test_ten_thousand_execs_do_not_hang(tmp_path: Path) -> None:
    """5,000 pairs of execs end, each within five seconds; the cost is printed, not judged."""
    found = msgspec.json.decode(drill("cost", tmp_path, 5000), type=Cost)
    assert found.hung == 0
    drill("cost-static", tmp_path, 2000)


def test_demo_learned_and_enforced_has_no_false_refusal(tmp_path: Path) -> None:
    """The demo, with gateway and model, is learned; enforced, it runs as before."""
    command = (sys.executable, "-m", "safehold", "demo", "--once", "--port", "18477")
    folder = ("--folder", "/tmp/demo")
    found = msgspec.json.decode(drill("learn", tmp_path, *command, *folder), type=LearnedCommand)
    assert (found.first_status, found.second_status) == (0, 0)
    assert found.refused == ()
    assert not found.unknown_ran
    assert found.learned > 100
