"""What a host of the demo went through: its bytes, its programs, a decoy that somebody opened.

The host is made up, for a kernel's rules need root. What judges it is the product: the egress watch
with its accounting, the software policy's own decision, the records and leaves that they write.
"""

import datetime as dt
import os
import random
from pathlib import Path

from safehold.console.demo.stage import DemoStage
from safehold.secure.egress.simulation.watched_day import WatchedDay, play_watched_day
from safehold.secure.endpoint.decoys import Lure, Touch, leaf, store_book, write
from safehold.secure.endpoint.interface import Ask, CodeKind, ExecRefused, ExecSubject, Target
from safehold.secure.endpoint.policy import EndpointPolicy, decide, parse_policy
from safehold.secure.endpoint.records import Records, open_records

_HOST = "gpu-1"
_POLICY = """\
version = 1
mode = "enforce"
host = "gpu-1"

[[allow]]
name = "system"
kinds = ["elf", "library", "script"]
path = ["/usr/bin/*", "/usr/lib/**", "/usr/sbin/*"]
owner = "platform team"
reason = "what the distribution ships"
ticket = "OPS-1"

[[allow]]
name = "serving"
kinds = ["elf", "library", "script"]
path = ["/opt/serving/**"]
owner = "serving team"
reason = "the model's server"
ticket = "OPS-2"

[[allow]]
name = "profiler"
kinds = ["elf"]
path = ["/opt/profiler/bin/*"]
owner = "performance team"
reason = "a measurement of one week"
ticket = "OPS-30"
expires = 2026-01-31

[[deny]]
name = "debuggers"
kinds = ["elf"]
path = ["/usr/bin/gdb", "/usr/bin/strace"]
reason = "a debugger reads another program's memory"
"""
_USUAL = (
    ("elf", "/usr/bin/ls", 1001, "/usr/bin/bash"),
    ("elf", "/usr/bin/python3.11", 990, "/usr/lib/systemd/systemd"),
    ("library", "/usr/lib/x86_64-linux-gnu/libc.so.6", 1001, "/usr/bin/ls"),
    ("script", "/opt/serving/bin/serve", 990, "/usr/lib/systemd/systemd"),
)
_ODD = (
    ("script", "/home/ines/tools/plot.py", 1002, "/usr/bin/python3.11"),
    ("elf", "/usr/bin/gdb", 1003, "/usr/bin/bash"),
    ("elf", "/opt/profiler/bin/sample", 1003, "/usr/bin/bash"),
    ("elf", "/tmp/.cache/kworker", 990, "/opt/serving/bin/serve"),  # noqa: S108 - only a name
    ("inline", "/usr/bin/python3.11", 1003, "/usr/bin/bash"),
    ("module", "/home/jonas/netmon.ko", 0, "/usr/sbin/insmod"),
    ("elf", "/usr/bin/strace", 1002, "/usr/bin/bash"),
)
_ODD_SHARE = 0.12
_ASKS = 360


def egress_day(folder: Path, begins: float, ends: float) -> Path:
    """Return the timeline of a day with stray packets and an hour of bytes that no row explains."""
    return play_watched_day(folder, WatchedDay(begins=begins, ends=ends))


def endpoint_day(path: Path, begins: float, ends: float, rng: random.Random) -> Path:
    """Put a day of starting programs before the software policy; return the record of refusals."""
    policy = parse_policy(_POLICY)
    now = [begins]
    handle = open_records(path)
    try:
        records = Records(handle, policy.mode.value, clock=lambda: now[0])
        for number in range(_ASKS):
            now[0] = begins + (ends - begins) * number / _ASKS
            _judged(policy, records, rng, now[0])
            records.flush()
    finally:
        os.close(handle)
    return path


def _judged(policy: EndpointPolicy, records: Records, rng: random.Random, now: float) -> None:
    kind, path, uid, exe = rng.choice(_ODD if rng.random() < _ODD_SHARE else _USUAL)
    owned = path.startswith(("/usr/", "/opt/"))
    asked = Ask(ExecSubject(uid, exe), Target(CodeKind(kind), path, owned=owned))
    said = decide(policy, asked, dt.datetime.fromtimestamp(now, dt.UTC).date())
    if isinstance(said, ExecRefused):
        records.add(asked, said)


def touched_decoy(stage: DemoStage, folder: Path) -> None:
    """Lay a decoy and have a copying program open it: a leaf tells of it."""
    folder.mkdir(parents=True, exist_ok=True)
    now = stage.sources.desk.now()
    decoy = write(folder / "model-00001-of-00004.safetensors", Lure.WEIGHTS, now)
    store_book(folder / "decoys.json", [decoy])
    touch = Touch(decoy.path, decoy.lure, pid=4711, exe="/usr/bin/rsync", uid=1003, time=now)
    stage.sources.desk.record(leaf(touch, _HOST))
