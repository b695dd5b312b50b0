"""Who opens for writing only is told from who may read, while it waits."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safehold.secure.endpoint.asker import only_writes

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


def _until_it_opens(pid: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        words = Path(f"/proc/{pid}/syscall").read_text().split()
        waits = Path(f"/proc/{pid}/wchan").read_text()
        if words[0] == "257" and ("partner" in waits or "fifo" in waits):
            return
        time.sleep(0.01)
    pytest.fail("it did not come to its open")
