"""The floor under every engine: kernel settings and mounts, each with what it costs.

Checked from what is read; applied one by one. What the kernel does not have is said, not skipped.
"""

# ruff: noqa: E501 - one line for each setting

import ctypes
import os
import subprocess
from enum import StrEnum
from pathlib import Path

import msgspec

from safehold.errors import EndpointError
from safehold.secure.fanotify.mounts import Mount

_PR_GET_MDWE = 66
PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/home", "/run")
_OPTIONS = ("noexec", "nosuid", "nodev")


class FloorState(StrEnum):
    """How one part of the floor stands."""

    CLOSED = "closed"
    OPEN = "open"
    ABSENT = "absent"
    """This kernel does not have it, so nothing closes what it would."""


class Setting(msgspec.Struct, frozen=True):
    """One kernel setting: the least value that closes, what it closes, and what it costs."""

    name: str
    least: int
    closes: str
    cost: str
    most: bool = False
    """The value must be at most `least` instead."""


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "vm.memfd_noexec",
        2,
        "programs in nameless memory (memfd and fexecve)",
        "runc before 1.2 and some sandboxes copy themselves into a memfd; per process namespace",
    ),
    Setting(
        "user.max_user_namespaces",
        0,
        "a mount namespace without root, in which a tmpfs holds programs",
        "no rootless containers, and no sandbox of Chromium or Flatpak",
        most=True,
    ),
    Setting(
        "kernel.io_uring_disabled",
        2,
        "files opened by a ring, past filters on system calls",
        "databases and servers that use io_uring fall back or stop",
    ),
    Setting("kernel.yama.ptrace_scope", 2, "code written into a process that runs", "no debugger without CAP_SYS_PTRACE"),
    Setting("kernel.kptr_restrict", 1, "addresses of the kernel", "profilers show no kernel symbols"),
    Setting("kernel.unprivileged_bpf_disabled", 1, "BPF by everybody", "none known"),
    Setting("kernel.modules_disabled", 1, "kernel modules until the next boot", "no new hardware, no new file system"),
    Setting("kernel.kexec_load_disabled", 1, "another kernel without a boot", "no crash dump by kexec set up later"),
    Setting("vm.unprivileged_userfaultfd", 0, "page faults answered by a program", "live migration needs root", most=True),
)  # fmt: skip


class FloorPart(msgspec.Struct, frozen=True):
    """One part of the floor here: how it stands, what was found, what it closes and costs."""

    name: str
    state: FloorState
    found: str
    closes: str
    cost: str


def judge_setting(setting: Setting, text: str | None) -> FloorPart:
    """Return how one setting stands; None: the kernel does not have it."""
    if text is None:
        state, found = FloorState.ABSENT, "not in this kernel"
    else:
        found = text.strip()
        try:
            value: int | None = int(found)
        except ValueError:
            value = None
        closed = value is not None and (
            value <= setting.least if setting.most else value >= setting.least
        )
        state = FloorState.CLOSED if closed else FloorState.OPEN
    return FloorPart(setting.name, state, found, setting.closes, setting.cost)


def judge_place(place: str, mounts: tuple[Mount, ...]) -> FloorPart:
    """Return how the mount that a place lies on stands; the last one on a point holds."""
    here = [one for one in mounts if one.point == place]
    closes = "programs and set-user-id files in a place that others write"
    cost = "installers that run programs from there stop (apt: APT::ExtractTemplates::TempDir)"
    if not here:
        return FloorPart(place, FloorState.OPEN, "no mount of its own", closes, cost)
    missing = [option for option in _OPTIONS if option not in here[-1].options]
    found = f"without {', '.join(missing)}" if missing else ", ".join(_OPTIONS)
    return FloorPart(place, FloorState.OPEN if missing else FloorState.CLOSED, found, closes, cost)


def judge_write_execute(answer: int) -> FloorPart:
    """Return whether the kernel can refuse memory that is writable and executable (Linux 6.3)."""
    return FloorPart(
        "memory-deny-write-execute",
        FloorState.CLOSED if answer >= 0 else FloorState.ABSENT,
        "offered to each service (`endpoint run`, MemoryDenyWriteExecute=)"
        if answer >= 0
        else "no",
        "code that a process writes into its own memory",
        "just-in-time compilers stop: node, java, triton, numba, PyPy",
    )


def check(mounts: tuple[Mount, ...], root: Path = Path("/proc/sys")) -> list[FloorPart]:
    """Return every part of the floor, as it stands here."""
    parts = [judge_setting(one, _read(root, one)) for one in SETTINGS]
    parts += [judge_place(place, mounts) for place in PLACES if Path(place).is_dir()]
    answer = ctypes.CDLL(None).prctl(_PR_GET_MDWE, 0, 0, 0, 0)
    return [*parts, judge_write_execute(answer)]


def _read(root: Path, setting: Setting) -> str | None:
    try:
        return _path(root, setting).read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"unreadable: {os.strerror(error.errno or 0)}"


def _path(root: Path, setting: Setting) -> Path:
    return root / setting.name.replace(".", "/")


def apply(name: str, root: Path = Path("/proc/sys")) -> None:
    """Close one part, until the next boot.

    Raises:
        EndpointError: there is no such part, or the kernel refused.
    """
    for setting in SETTINGS:
        if setting.name == name:
            try:
                _path(root, setting).write_text(f"{setting.least}\n", encoding="ascii")
            except OSError as error:
                raise EndpointError(f"{name}: {os.strerror(error.errno or 0)}") from error
            return
    if name not in PLACES:
        known = [one.name for one in SETTINGS] + list(PLACES)
        raise EndpointError(f"expected one of {', '.join(known)}, got {name}")
    command = ["mount", "-o", f"remount,bind,{','.join(_OPTIONS)}", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EndpointError(f"{name}: {done.stderr.strip()[:200]}; it must be a mount of its own")


def persistent(parts: list[FloorPart]) -> str:
    """Return the lines of `/etc/sysctl.d/50-safehold.conf` for what is open here."""
    opened = {part.name for part in parts if part.state is FloorState.OPEN}
    return "".join(f"{one.name} = {one.least}\n" for one in SETTINGS if one.name in opened)
