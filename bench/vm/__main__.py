"""Run tasks in the virtual machine and keep what they answered.

`python -m bench.vm PLACE [TASK...]`; tasks are `columns` (or `columns:none,systemd`), the attacks
against each engine, and `boot`, the guard learned and then enforced over a boot and apt. `--docs`
writes the table and the figures into docs/endpoint.md from all answers in `.bench/vm.json`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import msgspec
from bench.vm import page

ROOT = Path(__file__).resolve().parents[2]
ANSWERS = ROOT / ".bench" / "vm.json"
_PACKAGES = ("msgspec", "click", "cryptography", "cffi", "_cffi_backend", "rfc8785")
_KERNEL = (
    "console=ttyS0 root=/dev/vda rw panic=1 no_timer_check tsc=unstable mitigations=off"
    " systemd.default_timeout_start_sec=3600 lsm=landlock,lockdown,yama,integrity,apparmor,bpf"
)
_LIMITS_S = {"columns": 7200, "learn": 3600, "enforce": 3600}
_MOST_BYTES = 1 << 20
"""Larger files of the product are models, which no engine here needs."""
_LEARN = """\
version = 1
mode = "learn"
host = "machine"
dated_overlays = true

[[allow]]
name = "nothing"
kinds = ["elf"]
sha256 = ["0000000000000000000000000000000000000000000000000000000000000000"]
owner = "bench"
reason = "a policy needs a row"
ticket = "VM-1"
"""


def product(file: Path) -> None:
    """Pack the product, what it needs, and this bench."""
    with tarfile.open(file, "w") as archive:
        for name in ("src/safehold", "bench/vm"):
            archive.add(ROOT / name, name, filter=_plain)
        for folder in map(Path, sys.path):
            if folder.name != "site-packages":
                continue
            for one in sorted(folder.iterdir()):
                if one.name.split(".")[0].removesuffix("-info") in _PACKAGES:
                    archive.add(one, f"packages/{one.name}", filter=_plain)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    bundle = entry.name.startswith("src/") and entry.size > _MOST_BYTES
    if "__pycache__" in entry.name or bundle:
        return None
    entry.uid = entry.gid = 0
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry


def machine(place: Path, task: str, disk: Path, *, keep: bool) -> dict[str, object]:
    """Boot the machine with a task; return what it answered. `keep` writes to the disk given."""
    answer, packed = place / "answer.raw", place / "product.tar"
    answer.write_bytes(b"\0" * (8 << 20))
    product(packed)
    throwaway = "off" if keep else "on"
    command = [
        "qemu-system-x86_64", "-accel", "tcg,thread=single", "-cpu", "max,la57=off,pku=off",
        "-smp", "1", "-m", "1536", "-nographic",
        "-no-reboot", "-nic", "none", "-serial", f"file:{place}/console.log", "-monitor", "none",
        "-kernel", str(place / "kernel"), "-initrd", str(place / "initrd"),
        "-append", f"{_KERNEL} safehold.task={task}",
        "-drive", f"file={disk},format=raw,if=virtio,cache=unsafe,snapshot={throwaway}",
        "-drive", f"file={answer},format=raw,if=virtio,cache=unsafe",
        "-drive", f"file={packed},format=raw,if=virtio,readonly=on",
    ]  # fmt: skip
    began = time.monotonic()
    limit = _LIMITS_S[task.partition(":")[0]]
    try:
        subprocess.run(command, check=True, timeout=limit, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        print(f"{task}: not ended within {limit} s; see {place}/console.log", file=sys.stderr)
    text = answer.read_bytes().split(b"\0", 1)[0]
    found: dict[str, object] = json.loads(text) if text else {"broken": "no answer"}
    return {**found, "machine_seconds": round(time.monotonic() - began)}


def boot(place: Path) -> dict[str, object]:
    """Learn a boot and apt on a disk of its own, then enforce what was learned on the same disk."""
    disk, point = place / "boot.ext4", place / "point"
    subprocess.run(["cp", "--sparse=always", str(place / "image.ext4"), str(disk)], check=True)
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(disk), str(point)], check=True)
    try:
        packed = place / "product.tar"
        product(packed)
        target = point / "opt/safehold"
        target.mkdir(parents=True, exist_ok=True)
        with tarfile.open(packed) as archive:
            archive.extractall(target, filter="tar")
        (target / "unpacked").touch()
        for folder in ("etc/safehold", "var/lib/safehold/endpoint"):
            (point / folder).mkdir(parents=True, exist_ok=True)
        (point / "etc/safehold/endpoint.toml").write_text(_LEARN, encoding="utf-8")
        unit = point / "etc/systemd/system/safehold-guard.service"
        shutil.copy(ROOT / "bench/vm/safehold-guard.service", unit)
        wanted = point / "etc/systemd/system/sysinit.target.wants"
        wanted.mkdir(exist_ok=True)
        (wanted / unit.name).symlink_to("/etc/systemd/system/safehold-guard.service")
    finally:
        subprocess.run(["umount", str(point)], check=True)
    learned = machine(place, "learn", disk, keep=True)
    print(json.dumps(learned), flush=True)
    enforced = {} if "broken" in learned else machine(place, "enforce", disk, keep=True)
    disk.unlink()
    return {"learn": learned, "enforce": enforced}


def main() -> int:
    """Run the tasks; return 1 if one did not show what it must."""
    parser = argparse.ArgumentParser(prog="python -m bench.vm")
    parser.add_argument("place", type=Path)
    parser.add_argument("task", nargs="*")
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    answers: dict[str, object] = json.loads(ANSWERS.read_text()) if ANSWERS.exists() else {}
    tasks = given.task if given.task or given.docs else ["columns", "boot"]
    for task in tasks:
        if task == "boot":
            answers["boot"] = boot(given.place)
        else:
            found = machine(given.place, task, given.place / "image.ext4", keep=False)
            fresh = found.pop("columns", {})
            known = answers.get("columns", {})
            answers["columns"] = {**dict(known), **dict(fresh)}  # type: ignore[call-overload]
            answers["last"] = found
        ANSWERS.parent.mkdir(exist_ok=True)
        ANSWERS.write_text(json.dumps(answers, indent=1))
    shown = page.shown(answers)
    print(msgspec.json.format(msgspec.json.encode(shown)).decode())
    if given.docs:
        page.write(ROOT / "docs" / "endpoint.md", answers)
    return 1 if shown.short else 0


if __name__ == "__main__":
    sys.exit(main())
