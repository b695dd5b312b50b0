"""The floor: read as it stands, closed one by one, and what it closes is closed for real."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safehold.errors import EndpointError
from safehold.secure.endpoint.engines.confine import REFUSED, filter_program
from safehold.secure.endpoint.floor import (
    SETTINGS,
    FloorState,
    apply,
    check,
    judge_place,
    judge_setting,
    judge_write_execute,
    persistent,
)
from safehold.secure.fanotify.mounts import Mount


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: one.name)
def test_setting_is_closed_from_its_value_on(setting: object) -> None:
    """The wanted value closes; one step towards the open side, nonsense or absence do not."""
    one = next(item for item in SETTINGS if item is setting)
    worse = one.least + 1 if one.most else one.least - 1
    assert judge_setting(one, f"{one.least}\n").state is FloorState.CLOSED
    assert judge_setting(one, f"{worse}\n").state is FloorState.OPEN
    assert judge_setting(one, "unreadable").state is FloorState.OPEN
    assert judge_setting(one, None).state is FloorState.ABSENT
    assert one.cost


def test_place_is_closed_only_by_its_own_mount_with_all_options() -> None:
    """A mount above does not count, nor one option less; the last mount on a point holds."""
    good = Mount(1, "0:1", "/dev/shm", "tmpfs", ("rw", "noexec", "nosuid", "nodev"))
    bad = Mount(2, "0:2", "/dev/shm", "tmpfs", ("rw", "nosuid", "nodev"))
    assert judge_place("/dev/shm", (good,)).state is FloorState.CLOSED
    assert judge_place("/dev/shm", (good, bad)).state is FloorState.OPEN
    assert judge_place("/dev/shm/below", (good,)).state is FloorState.OPEN


def test_kernel_without_write_execute_denial_says_so() -> None:
    """Before Linux 6.3 the part is absent, not closed."""
    assert judge_write_execute(-1).state is FloorState.ABSENT
    assert judge_write_execute(0).state is FloorState.CLOSED


def test_applied_setting_is_read_back_and_listed_no_more(tmp_path: Path) -> None:
    """Applying writes exactly the wanted value; what is closed is not in the lasting file."""
    for setting in SETTINGS:
        file = tmp_path / setting.name.replace(".", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1\n" if setting.most else "0\n")
    assert persistent(check((), tmp_path)).count("\n") == len(SETTINGS)
    apply("vm.memfd_noexec", tmp_path)
    assert "memfd" not in persistent(check((), tmp_path))
    with pytest.raises(EndpointError, match="expected one of"):
        apply("vm.no_such", tmp_path)


_MEMFD = """
import os
handle = os.memfd_create("x", 0)
os.write(handle, open("/bin/true", "rb").read())
try:
    os.execve(handle, ["x"], {})
except PermissionError:
    print("refused")
"""


def test_closed_memory_files_do_not_run() -> None:
    """In a process namespace of its own the setting is applied; then a memory file is refused."""
    if os.geteuid() != 0:
        pytest.skip("a namespace needs root")
    text = (
        "from safehold.secure.endpoint.floor import apply\n"
        "import subprocess, sys\n"
        f"command = [sys.executable, '-c', {_MEMFD!r}]\n"
        "run = lambda: print(subprocess.run(command).returncode, flush=True)\n"
        "run(); apply('vm.memfd_noexec'); run()\n"
    )
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", sys.executable, "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["0", "refused", "0"]


def test_filter_refuses_other_architectures_and_each_named_call() -> None:
    """The seccomp program names each call once, and its jumps end inside it."""
    program = filter_program()
    assert len(program) % 8 == 0
    for number in REFUSED.values():
        assert program.count(b"\x15\x00\x00\x01" + number.to_bytes(4, "little")) == 1


_CONFINED = """
import ctypes, mmap, os, subprocess, sys
from safehold.secure.endpoint.engines.confine import confine
confine(["/usr", "/bin", "/lib", "/lib64", sys.base_prefix, sys.prefix])
libc = ctypes.CDLL(None, use_errno=True)
print(subprocess.run(["/bin/true"]).returncode)
print(libc.unshare(0x10000000), libc.mount(b"x", b"/mnt", b"tmpfs", 0, None))
try:
    os.memfd_create("x")
    print("made")
except PermissionError:
    print("refused")
try:
    mmap.mmap(-1, 4096, prot=7)
    print("mapped")
except PermissionError:
    print("refused")
"""


def test_confined_command_can_still_run_allowed_programs_and_nothing_of_the_rest() -> None:
    """Allowed programs run; namespaces, mounts, memory files and W+X memory are refused."""
    done = subprocess.run(
        [sys.executable, "-c", _CONFINED], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == ["0", "-1 -1", "refused", "refused"]
