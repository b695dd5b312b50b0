"""A package manager at work under the guard, on one processor; its twins are refused as ever."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

STAGE = '''
import json, mmap, os, shutil, signal, subprocess, sys, time
from pathlib import Path
from safehold.secure.endpoint.attack import programs
from safehold.secure.endpoint.attack.bench import RECORDS, start_guard
from safehold.secure.endpoint.attack.stage import W, build
from safehold.secure.endpoint.records import read_records

subprocess._USE_VFORK = False
# Who asks and who answers share a processor: the answer begins before who asks sleeps.
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
place = build(Path(sys.argv[1]))
w = Path(W)
allowed = Path("/bin/true").read_bytes()
unknown = programs.static_program() + b"unpacked"
for name in ("DEBIAN", "usr/bin", "usr/lib"):
    (w / "pack" / name).mkdir(parents=True)
(w / "pack").chmod(0o755)
fields = ("Package: some", "Version: 1", "Architecture: all", "Maintainer: x <x@example.org>",
          "Description: x", "")
(w / "pack/DEBIAN/control").write_text("\\n".join(fields))
for number in range(12):
    (w / f"pack/usr/bin/some{number}").write_bytes(unknown)
    (w / f"pack/usr/lib/libsome{number}.so").write_bytes(programs.library())
os.link(w / "pack/usr/bin/some0", w / "pack/usr/bin/linked")
subprocess.run(["dpkg-deb", "-b", str(w / "pack"), str(w / "some.deb")], check=True,
               stdout=subprocess.DEVNULL)
for name in ("info", "updates"):
    (w / "into/var/lib/dpkg" / name).mkdir(parents=True)
(w / "into/var/lib/dpkg/status").touch()
holder = start_guard(place)

def opens(path, flags):
    try:
        os.close(os.open(path, flags))
    except PermissionError:
        return False
    return True

def runs(path):
    try:
        return subprocess.run([path], capture_output=True).returncode == 0
    except PermissionError:
        return False

def unpack(data, final):
    """What dpkg, tar, install and ld do with a new file."""
    fresh = f"{final}.new"
    handle = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    os.write(handle, data)
    os.fchmod(handle, 0o755)
    os.close(handle)
    handle = os.open(fresh, os.O_WRONLY)
    os.fsync(handle)
    os.close(handle)
    os.link(fresh, f"{final}.hard")
    os.rename(fresh, final)
    os.close(os.open(final, os.O_WRONLY | os.O_APPEND))
    handle = os.open(f"{final}.mapped", os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o755)
    os.ftruncate(handle, len(data))
    with mmap.mmap(handle, len(data)) as view:
        view[:] = data
        view.flush()
    os.close(handle)
    handle = os.open(f"{final}.mapped", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(handle, data)
    os.close(handle)

for number in range(30):
    unpack((unknown, allowed)[number % 2], f"{w}/p{number}")
statuses = [
    subprocess.run(["dpkg", f"--root={w}/into", "--force-all", "-i", f"{w}/some.deb"],
                   capture_output=True).returncode
    for _ in range(3)
]
time.sleep(1.5)
refused = [f"{one.kind} {one.path} by {one.exe}: {one.reason}" for one in read_records(RECORDS)]
good = [runs(f"{w}/p1{end}") for end in ("", ".hard", ".mapped")]
# The twins: what nobody allowed is not run, read or mapped, whoever unpacked it.
bad = [runs(f"{w}/p0{end}") for end in ("", ".hard", ".mapped")]
bad += [runs(f"{w}/into/usr/bin/{name}") for name in ("some0", "linked")]
bad += [opens(f"{w}/p0", flags) for flags in (os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND)]
bad += [opens(f"{w}/into/usr/lib/libsome3.so", os.O_RDONLY)]
os.kill(holder, signal.SIGTERM)
print(json.dumps([statuses, refused, good, bad, Path("/run/notes").read_text()]))
'''


def test_unpacking_goes_on_and_what_was_unpacked_does_not_run(tmp_path: Path) -> None:
    """Dpkg and what unpacks like it are refused nothing; the unknown programs stay refused."""
    if os.geteuid() != 0:
        pytest.skip("a stage needs root")
    script = tmp_path / "script.py"
    script.write_text(STAGE, encoding="utf-8")
    base = tmp_path / "base"
    base.mkdir()
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable]
    done = subprocess.run(
        [*command, str(script), str(base)], capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    statuses, refused, good, bad, notes = json.loads(done.stdout)
    assert (statuses, refused, notes) == ([0, 0, 0], [], "")
    assert all(good)
    assert not any(bad)
