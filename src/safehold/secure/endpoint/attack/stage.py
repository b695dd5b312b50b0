"""A root file system of its own: overlay on the machine's, own disk, own /dev and /tmp.

Must run in mount and process namespaces of its own (`unshare --mount --pid --fork`). Nothing of
the machine is marked or written: what the kernel is told to watch are file systems made here.
"""

import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from safehold.errors import EndpointError
from safehold.secure.endpoint.attack import programs

ACTS = "/opt/safehold-stage"
"""Where the stage has the acts: the product itself may lie below a folder that the stage hides."""
W, T = "/mnt/w", "/mnt/t"
_NODES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}


class StagePlace(msgspec.Struct, frozen=True):
    """What commands are filled with."""

    w: str
    t: str
    py: str
    python: str
    act: str
    loader: str

    def fill(self, command: str) -> str:
        """Return a command with its places filled in."""
        for name, value in msgspec.to_builtins(self).items():
            command = command.replace(f"{{{name}}}", value)
        return command


def build(base: Path, keep: tuple[str, ...] = ()) -> StagePlace:
    """Build the stage below `base`, enter it, and return its places.

    Args:
        base: An empty folder.
        keep: Folders that stay where they are, read-only, also below what the stage hides.

    Raises:
        EndpointError: the machine has no overlay, no loop device or no mkfs.ext4.
    """
    programs.require_machine()
    python = sys.executable = os.path.realpath(sys.executable)  # a link to it may be hidden below
    _run("mount", "--make-rprivate", "/")
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "stage", str(base))
    root, layers_disk = base / "root", base / "disk"
    for folder in (root, layers_disk):
        folder.mkdir()
    disk(base / "root.img", layers_disk, 256)
    for name in ("up", "wk"):
        (layers_disk / name).mkdir()
    layers = f"lowerdir=/,upperdir={layers_disk}/up,workdir={layers_disk}/wk"
    _run("mount", "-t", "overlay", "stage", "-o", layers, str(root))
    for name in ("dev", "tmp", "run", "mnt", "var/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", "mode=755", name.replace("/", "-"), str(root / name))
    (root / "tmp").chmod(0o1777)
    for stays in keep:
        if Path(stays).is_relative_to("/tmp") or Path(stays).is_relative_to("/run"):
            kept = root / stays.removeprefix("/")
            kept.mkdir(parents=True, exist_ok=True)
            _run("mount", "--bind", stays, str(kept))
            _run("mount", "-o", "remount,bind,ro", str(kept))
    acts = root / ACTS.removeprefix("/")
    acts.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("act.py"), acts)
    _run("mount", "-t", "proc", "proc", str(root / "proc"))
    _devices(root / "dev")
    for name in ("w", "t", "n"):
        (root / "mnt" / name).mkdir()
    disk(base / "w.img", root / "mnt/w", 64)
    _run("mount", "-t", "tmpfs", "-o", "mode=777", "t", str(root / "mnt/t"))
    # Not chroot: who is in one may not make user namespaces, and an attack needs them.
    os.chdir(root)
    _run("pivot_root", ".", ".")
    _run("umount", "-l", ".")
    os.chdir("/")
    _fill()
    return _place(python)


def build_machine(base: Path) -> StagePlace:
    """Put the disk, the tmpfs and the programs on this machine itself, and return their places.

    Raises:
        EndpointError: it has no loop device or no mkfs.ext4.
    """
    programs.require_machine()
    python = os.path.realpath(sys.executable)
    Path(ACTS).mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("act.py"), ACTS)
    for name in ("w", "t", "n"):
        (Path("/mnt") / name).mkdir(exist_ok=True)
    disk(base / "w.img", Path(W), 64)
    _run("mount", "-t", "tmpfs", "-o", "mode=777", "t", T)
    _fill()
    return _place(python)


def clear_machine() -> None:
    """Take disk and tmpfs from the machine again."""
    for point in (W, T):
        _run("umount", "-l", point)


def _place(python: str) -> StagePlace:
    return StagePlace(
        w=W,
        t=T,
        py=f"{python} -I -S -B",
        python=python,
        act=f"{python} -I -S -B {ACTS}/act.py",
        loader=os.path.realpath("/lib64/ld-linux-x86-64.so.2"),
    )


def trusted_roots() -> tuple[str, ...]:
    """Return the folders of Python itself."""
    prefix = Path(os.path.realpath(sys.base_prefix))
    return (str(prefix / "bin"), str(prefix / "lib"))


def disk(image: Path, point: Path, megabytes: int) -> None:
    """Make a disk file system in a file and mount it."""
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    _run("mkfs.ext4", "-q", "-F", "-b", "4096", str(image))
    _run("mount", "-o", "loop", str(image), str(point))


def _devices(folder: Path) -> None:
    for name, minor in _NODES.items():
        os.mknod(folder / name, 0o20666, os.makedev(1, minor))
    os.mknod(folder / "tty", 0o20666, os.makedev(5, 0))
    os.mknod(folder / "loop-control", 0o20600, os.makedev(10, 237))
    for number in range(64):
        os.mknod(folder / f"loop{number}", 0o60600, os.makedev(7, number))
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1")):
        (folder / name).symlink_to(target)
    (folder / "shm").mkdir()
    _run("mount", "-t", "tmpfs", "-o", "mode=1777", "shm", str(folder / "shm"))


def _fill() -> None:
    unknown = Path("/bin/echo").read_bytes() + b"nobody allowed this"
    for folder in (W, T):
        _program(Path(folder) / "prog", unknown)
        _program(Path(folder) / "progs", programs.static_program())
        _program(Path(folder) / "lib.so", programs.library())
        _program(Path(folder) / "code.bin", programs.CODE, 0o644)
        _program(Path(folder) / "x.sh", b"#!/bin/sh\necho RAN\n")
        _program(Path(folder) / "x.txt", b"echo RAN\n", 0o644)
        _program(Path(folder) / "x.py", b"#!/usr/bin/python3\nprint('RAN')\n")
        _program(Path(folder) / "chain", f"#!{folder}/prog RAN\n".encode())
        _program(Path(folder) / "ok.sh", b"#!/bin/sh\nexit 0\n")
    _program(Path("/dev/shm/prog"), unknown)
    w = Path(W)
    # Programs as text: an attacker who may not read an unknown program has them like this.
    for name in ("progs", "x.sh"):
        data = base64.encodebytes((w / name).read_bytes())
        _program(w / f"{name.partition('.')[0]}.b64", data, 0o644)
    shutil.copy("/bin/true", w / "okcopy")
    (w / "d").mkdir()
    _program(w / "d/prog", unknown)
    os.link(w / "prog", w / "hard")
    (w / "sym").symlink_to(w / "prog")
    _program(w / "suid", unknown, 0o4755)
    for name in ("bind", "up", "wk", "ov", "img"):
        (Path(T) / name).mkdir()
    image, point = w / "img.ext4", Path(T) / "img"
    disk(image, point, 4)
    _program(point / "progs", programs.static_program())
    _run("umount", str(point))


def _program(path: Path, data: bytes, mode: int = 0o755) -> None:
    path.write_bytes(data)
    path.chmod(mode)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EndpointError(f"the stage: {command[0]}: {done.stderr.strip()[:200]}")
