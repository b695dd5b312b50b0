"""Who opens for writing only is told from who may read, while it waits."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safehold.secure.endpoint.asker import Opening, only_writes, opening

WAITING = """
import os, sys, threading, time
if sys.argv[3] == "2":
    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
os.open(sys.argv[1], int(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("flags", "threads", "expected"),
    [
        (os.O_WRONLY, 1, True),
        (os.O_WRONLY | os.O_CREAT | os.O_APPEND, 1, True),
        (os.O_RDONLY, 1, False),
        (os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 1, False),
        # Another thread may be the one that asks.
        (os.O_WRONLY, 2, False),
    ],
)
def test_open_for_writing_alone_is_known(
    tmp_path: Path, flags: int, threads: int, *, expected: bool
) -> None:
    """A process that waits in open is believed by its flags, and only if it has one thread."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-I", "-c", WAITING, str(pipe), str(flags), str(threads)]
    with subprocess.Popen(command) as child:
        try:
            _until_it_opens(child.pid)
            assert only_writes(child.pid) is expected
        finally:
            child.kill()


def test_process_that_does_not_wait_in_open_is_not_believed() -> None:
    """One that sleeps, one that runs, and one that is gone open nothing."""
    with subprocess.Popen(["/bin/sleep", "30"]) as child:
        time.sleep(0.05)
        assert not only_writes(child.pid)
        child.kill()
    assert not only_writes(child.pid)
    assert not only_writes(os.getpid())


SPINNING = """
import os, sys, time
os.write(1, b"x")
until = time.process_time() + float(sys.argv[2])
while time.process_time() < until:
    pass
os.open(sys.argv[1], int(sys.argv[3]))
"""


@pytest.mark.parametrize(
    ("flags", "expected"), [(os.O_WRONLY, Opening.WRITES), (os.O_RDONLY, Opening.READS)]
)
def test_who_does_not_sleep_yet_is_waited_for(
    tmp_path: Path, flags: int, expected: Opening
) -> None:
    """A question is there before who asks sleeps: its call is looked at when it does."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-I", "-c", SPINNING, str(pipe), "0.5", str(flags)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        try:
            assert opening(child.pid, 0.0) is Opening.UNSEEN
            assert opening(child.pid, 60.0) is expected
        finally:
            child.kill()


def test_who_never_sleeps_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    """One that goes on running is not believed after the time is over."""
    command = [sys.executable, "-I", "-c", SPINNING, str(tmp_path / "none"), "60", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        began = time.monotonic()
        try:
            assert opening(child.pid, 0.1) is Opening.UNSEEN
        finally:
            child.kill()
    assert time.monotonic() - began >= 0.1


def _until_it_opens(pid: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        words = Path(f"/proc/{pid}/syscall").read_text().split()
        waits = Path(f"/proc/{pid}/wchan").read_text()
        if words[0] == "257" and ("partner" in waits or "fifo" in waits):
            return
        time.sleep(0.01)
    pytest.fail("it did not come to its open")
