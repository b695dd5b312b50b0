"""A private mount namespace for each test: nothing of the machine itself is ever marked."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

_PRELUDE = """
import contextlib, ctypes, mmap, os, shutil, signal, subprocess, sys, threading, time
from safehold.secure.fanotify.group import Group, WriterError, prepare_reader, read_lease
from safehold.secure.fanotify.hold import Holder
from safehold.secure.fanotify.interface import Asked, FanotifyError, GroupClass, Scope
from safehold.secure.fanotify.layers import layers_are_asked
from safehold.secure.fanotify.mounts import MountTable, MountWatch

# Under vfork the child's exec is asked about while its parent waits for it with the lock that the
# answering thread needs; documented as the way to have fork instead.
subprocess._USE_VFORK = False
SPACE = "/mnt/space"
signal.alarm(90)
os.mkdir(SPACE)
subprocess.run(["mount", "-t", "tmpfs", "space", SPACE], check=True)
shutil.copy("/bin/true", SPACE + "/prog")
ALL = Asked.OPEN | Asked.EXEC

def run(path, *more):
    try:
        return subprocess.run([path, *more], capture_output=True).returncode
    except PermissionError:
        return "refused"

def spawn(path):
    pid = os.fork()
    if pid == 0:
        try:
            os.execv(path, [path])
        except PermissionError:
            os._exit(17)
        finally:
            os._exit(18)
    return pid

def ended(pid, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return "waits"

def answer(group, judge, until=lambda: False):
    while not until():
        for question in group.questions(0.05):
            question.answer(allow=judge(question.event))

def answering(group, judge):
    prepare_reader()
    threading.Thread(target=answer, args=(group, judge), daemon=True).start()

def no_exec(event):
    return not event.mask & Asked.EXEC
"""


@pytest.fixture
def in_private(tmp_path: Path) -> Callable[[str], list[str]]:
    """A function that runs Python text in a mount namespace of its own; gives its output lines."""
    if os.geteuid() != 0:
        pytest.skip("fanotify needs root")

    def run(text: str) -> list[str]:
        script = tmp_path / "script.py"
        script.write_text(_PRELUDE + textwrap.dedent(text), encoding="utf-8")
        fresh = "mount --make-rprivate / && mount -t tmpfs none /mnt && exec timeout 100 "
        done = subprocess.run(
            ["unshare", "-m", "/bin/sh", "-c", f'{fresh} "$0" "$1"', sys.executable, str(script)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    return run
